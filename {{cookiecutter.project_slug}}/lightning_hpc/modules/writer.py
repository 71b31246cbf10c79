"""`self.logger.experiment` of a LightningModule: TensorBoard's writer, W&B's run, or nothing at all.

Pasted code asks for the one that its author had. `speak_all(trackers)` lets the run's trackers understand the words of
both. What the first one does not know goes to another that does, or is said in words that it knows. What none can show
is left out, and said once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment

logger = logging.getLogger(__name__)

# Methods of TensorBoard's writer and of W&B's run that add something.
OF_EXPERIMENTS = (
    "add_audio", "add_custom_scalars", "add_embedding", "add_figure", "add_graph", "add_histogram",
    "add_histogram_raw", "add_hparams", "add_image", "add_image_with_boxes", "add_images", "add_mesh", "add_pr_curve",
    "add_scalar", "add_scalars", "add_text", "add_video", "flush", "log", "watch",
)  # fmt: skip

# Methods of Lightning's loggers that only some of them have.
OF_LOGGERS = ("log_audio", "log_image", "log_table", "log_text", "log_video", "unwatch", "watch")


class Experiment:
    """A tracker's experiment, which also has the methods of other trackers' experiments.

    Args:
        tracker: the logger.
        inner: the logger's own experiment; None if it has none.
        others: the other loggers of the run.
    """

    def __init__(self, tracker: Logger, inner: Any, others: Sequence[Logger]) -> None:
        vars(self).update(tracker=tracker, inner=inner, others=others)

    def __getattr__(self, name: str) -> Any:
        if self.inner is not None and hasattr(self.inner, name):
            return getattr(self.inner, name)
        if name not in OF_EXPERIMENTS:
            raise AttributeError(f"{type(self.tracker).__name__} has nothing called {name}")

        for other in self.others:
            inner = getattr(other.experiment, "inner", None)
            if inner is not None and hasattr(inner, name):
                return getattr(inner, name)
        return getattr(_Translation(self.tracker), name, None) or left_out(self.tracker, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def __dir__(self) -> list[str]:
        return dir(self.inner)  # what is really there, for those who ask before they call


class _Translation:
    """What can be said in the words that each of Lightning's loggers has."""

    def __init__(self, tracker: Logger) -> None:
        self.tracker = tracker

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, *_: Any, **__: Any) -> None:
        self.tracker.log_metrics({tag: float(scalar_value)}, step=as_step(global_step))

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping, global_step: int | None = None, *_: Any) -> None:
        values = {f"{main_tag}/{tag}": float(value) for tag, value in tag_scalar_dict.items()}
        self.tracker.log_metrics(values, step=as_step(global_step))

    def log(self, data: Mapping[str, Any], step: int | None = None, *_: Any, **__: Any) -> None:
        values = {name: float(value) for name, value in data.items() if is_number(value)}
        if values:
            self.tracker.log_metrics(values, step=as_step(step))

    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None, *_: Any, **__: Any) -> None:
        self.add_images(tag, [img_tensor], global_step)

    add_figure = add_image

    def add_images(self, tag: str, img_tensor: Any, global_step: int | None = None, *_: Any, **__: Any) -> None:
        if isinstance(self.tracker, WandbLogger):
            self.tracker.log_image(tag, list(img_tensor), step=as_step(global_step))
        else:
            left_out(self.tracker, "add_image")()

    def flush(self) -> None:
        self.tracker.save()


def as_step(step: Any) -> int | None:
    """A step as a number; authors also give tensors."""
    return None if step is None else int(step)


def is_number(value: Any) -> bool:
    """True for numbers and tensors of one number."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float)


def left_out(tracker: Logger, name: str) -> Callable[..., None]:
    """A method that does nothing, and says so at its first call."""

    def nothing(*_: Any, **__: Any) -> None:
        said: set[str] = vars(tracker).setdefault("left_out", set())
        if name in said:
            return
        said.add(name)
        advice = "; to see it, add --config trackers/tensorboard.yaml" if name.startswith("add_") else ""
        logger.warning(f"warning: {name} shows nothing in {type(tracker).__name__}{advice}")

    return nothing


def speak_all(trackers: Sequence[Logger]) -> None:
    """Let trackers understand what is meant for others: each gets a child of its class, with the same name."""
    for tracker in trackers:
        tracker.__class__ = speaking(type(tracker), [other for other in trackers if other is not tracker])


def speaking(kind: Any, others: Sequence[Logger]) -> type[Logger]:
    """A child of a logger's class that understands what is meant for other trackers."""

    def experiment(self: Any) -> Any:
        own = getattr(kind, "experiment", None)
        inner = None if own is None else own.fget(self)
        if isinstance(inner, DummyExperiment):  # that of other ranks understands everything
            return inner
        return Experiment(self, inner, others)

    def missing(self: Any, name: str) -> Any:
        if name in OF_LOGGERS:
            return left_out(self, name)
        raise AttributeError(f"{kind.__name__} has nothing called {name}")

    members = dict(experiment=property(experiment), __module__=kind.__module__, __qualname__=kind.__qualname__)
    if not hasattr(kind, "__getattr__"):
        members["__getattr__"] = missing
    return type(kind.__name__, (kind,), members)
