"""The machine room of a PyTorch Lightning research project; README.md beside this file has the map."""

import importlib
from typing import TYPE_CHECKING, Any

from .stand_ins import import_torchmetrics

if TYPE_CHECKING:
    from .training.evaluate import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first asked for: torch takes seconds, and help and planning need none."""
    if name != "load":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import_torchmetrics()
    return importlib.import_module(f"{__name__}.training.evaluate").load


def __dir__() -> list[str]:
    return [*globals(), "load"]
