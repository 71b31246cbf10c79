"""Which hooks a LightningModule has, and what follows from that before anything begins."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..failures import in_one_line
from ..settings.errors import SettingsError

# Command → the hooks that Lightning can't do without.
NEEDED = dict(
    fit=("training_step", "configure_optimizers"), validate=("validation_step",), test=("test_step",), predict=()
)

# Command → what to do where a hook is missing.
ADVICE = dict(
    fit="write it",
    validate="write it, or evaluate with `test`",
    test="write it, as short as `test_step = validation_step`, or evaluate with `validate`",
)

# Command → the loader that it takes its batches from, and what to do where the data have none.
LOADERS = dict(
    fit=("train_dataloader", "write it"),
    validate=("val_dataloader", "write it, or evaluate with `test`"),
    test=("test_dataloader", "write it, or evaluate with `validate`"),
    predict=("predict_dataloader", "write it, as short as `predict_dataloader = val_dataloader`"),
)

# Hooks of Lightning 1, which Lightning 2 refuses to call → what took their place.
REMOVED = dict(
    training_epoch_end="on_train_epoch_end",
    validation_epoch_end="on_validation_epoch_end",
    test_epoch_end="on_test_epoch_end",
)

CLIPPING = ("gradient_clip_val", "gradient_clip_algorithm")


def check_hooks(model: LightningModule, command: str) -> None:
    """Check that a model has the hooks that a command calls.

    Args:
        model: the model.
        command: fit, validate, test or predict.

    Raises:
        SettingsError: one is missing, or is one that Lightning no longer has.
    """
    name = type(model).__name__
    for hook in NEEDED[command]:
        if not is_overridden(hook, model, LightningModule):
            raise SettingsError(
                f"{name} has no {hook}, which {command} calls: {ADVICE[command]}",
                page="model.md#another-lightningmodule",
            )
    for hook, today in REMOVED.items():
        if callable(getattr(model, hook, None)):
            raise SettingsError(
                f"{name}.{hook} is of Lightning 1, and Lightning 2 does not call it: rename it to {today}(self), and "
                "collect what the steps return in a list of your own",
                page="tutorials/from-a-paper.md#code-of-lightning-1",
            )

    if command == "predict" and not is_overridden("predict_step", model, LightningModule):
        if type(model).forward is LightningModule.forward:
            raise SettingsError(f"{name} has neither predict_step nor forward, which predict calls: write one of them")
        setattr(model, "predict_step", forward_of_inputs(model))  # noqa: B010 - it is a method to mypy


def check_loader(data: LightningDataModule | LightningModule, command: str) -> None:
    """Check that data have the loader that a command needs.

    Args:
        data: the DataModule, or the model if the data are its own.
        command: fit, validate, test or predict.

    Raises:
        SettingsError: they have not.
    """
    loader, advice = LOADERS[command]
    if not is_overridden(loader, data):
        raise SettingsError(f"{type(data).__name__} has no {loader}, which {command} calls: {advice}")


def forward_of_inputs(model: LightningModule) -> Callable[..., Any]:
    """A predict_step for a model that has none: Lightning's own gives the whole batch to forward, targets included."""
    name = type(model).__name__

    def predict_step(batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if not isinstance(batch, Mapping):
            return model(batch[0] if isinstance(batch, list | tuple) else batch)
        try:
            return model(batch)
        except Exception as error:  # of the user's forward, which mostly takes one of the values
            raise SettingsError(
                f"{name} has no predict_step, and its forward does not take a whole batch, which is a mapping: "
                f"write predict_step(self, batch, batch_idx) ({in_one_line(error)})"
            ) from error

    return predict_step


def evaluation_of(model_class: Any, data_class: Any) -> str | None:
    """The command that evaluates models of a class on data of a class: test, or else validate; None if neither can."""
    for command in ("test", "validate"):
        (step,), (loader, _) = NEEDED[command], LOADERS[command]
        has_step = getattr(model_class, step, None) is not getattr(LightningModule, step)
        if has_step and getattr(data_class, loader, None) is not getattr(LightningDataModule, loader):
            return command
    return None


def clips_itself(model: LightningModule) -> str | None:
    """Why a model does not want the Trainer to clip its gradients; None if it does not mind."""
    name = type(model).__name__
    if not model.automatic_optimization:
        return f"{name} optimizes by hand"
    if is_overridden("configure_gradient_clipping", model, LightningModule):
        return f"{name} has configure_gradient_clipping"
    return None
