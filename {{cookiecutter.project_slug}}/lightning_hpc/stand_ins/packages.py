"""What torchmetrics and W&B import in any case, and what they ask of it."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

from .late import late, late_class, standing_in

# What inputs of a job are declared through; who has not imported it has declared none.
LAUNCH = "wandb.sdk.launch"


@contextmanager
def style(*arguments: Any, **keywords: Any) -> Iterator[None]:
    """`matplotlib.pyplot.style.context`, which torchmetrics decorates its plots with."""
    from matplotlib import pyplot

    with pyplot.style.context(*arguments, **keywords):
        yield


class NoInputs:
    """`StagedLaunchInputs` of W&B, where no inputs of a job have been declared."""

    def apply(self, run: Any) -> None:
        """Nothing."""


def of_torchmetrics() -> dict[str, ModuleType]:
    """Name → stand-in of each module that torchmetrics 1.9 imports, with what it asks of it at import."""
    axes = late("matplotlib.axes", Axes=late_class("matplotlib.axes", "Axes"))
    colors = late("matplotlib.colors", Colormap=late_class("matplotlib.colors", "Colormap"))
    figure = late_class("matplotlib.pyplot", "Figure")
    pyplot = late("matplotlib.pyplot", Figure=figure, style=late("matplotlib.pyplot.style", context=style))

    texts = ("AutoModel", "AutoTokenizer", "AutoProcessor", "CLIPConfig", "CLIPModel", "CLIPProcessor")
    transformers = late("transformers", **{name: late_class("transformers", name) for name in texts})
    signal = late("scipy.signal", hamming=None)  # it is not added where there is one
    matplotlib = late("matplotlib", axes=axes, colors=colors, pyplot=pyplot)
    return {module.__name__: module for module in (matplotlib, axes, colors, pyplot, signal, transformers)}


def import_torchmetrics() -> None:
    """Import torchmetrics without what it seldom uses; to be called before anything imports it, as Lightning does."""
    if "torchmetrics" in sys.modules:
        return
    with standing_in(of_torchmetrics()):
        import torchmetrics  # noqa: F401


@contextmanager
def without_job_queues() -> Iterator[None]:
    """Let a run of W&B begin without the client of its job queues, unless that has been imported."""
    if LAUNCH in sys.modules:
        yield
        return
    inputs = f"{LAUNCH}.inputs.internal"
    with standing_in({inputs: late(inputs, StagedLaunchInputs=NoInputs)}):
        yield


def without_pandas() -> AbstractContextManager[None]:
    """Let W&B log a picture without pandas, which it imports to ask whether the picture is a table."""
    return standing_in({"pandas": late("pandas", DataFrame=late_class("pandas", "DataFrame"))})
