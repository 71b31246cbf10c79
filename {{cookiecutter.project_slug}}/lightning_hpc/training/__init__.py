"""What a run does around the Trainer; the names below are what configs and models use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..modules.steps import is_logged
    from .averaging import EMA, SWA
    from .callbacks import StopOnDivergence
    from .schedules import WarmupCosine, configure_optimizers

_HOME = {
    "EMA": "averaging",
    "SWA": "averaging",
    "StopOnDivergence": "callbacks",
    "WarmupCosine": "schedules",
    "configure_optimizers": "schedules",
    "is_logged": ".modules.steps",
    "WandB": ".trackers",  # it was here once, and settings of earlier runs say so
}
__all__ = [
    "EMA",
    "SWA",
    "StopOnDivergence",
    "WarmupCosine",
    "configure_optimizers",
    "is_logged",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds, and help and planning need none."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
