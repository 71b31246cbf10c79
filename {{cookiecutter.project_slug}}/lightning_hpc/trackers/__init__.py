"""Experiment trackers: one run in each for all attempts of a run, whatever happens to the server or to the run.

metrics.csv is always written (survive/metrics_file.py). Weights & Biases is on in configs/base.yaml; MLflow, Comet and
TensorBoard, which Lightning's own logger does, are overlays in configs/trackers/.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comet_runs import Comet
    from .mlflow_runs import MLflow
    from .wandb_runs import WandB

_HOME = {"Comet": "comet_runs", "MLflow": "mlflow_runs", "WandB": "wandb_runs"}
__all__ = ["Comet", "MLflow", "WandB"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds, and help and planning need none."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
