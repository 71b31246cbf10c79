"""What a run's settings and a LightningModule say about the same thing: which of the two counts."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torchmetrics import Metric

from ..logs import say
from ..runs.run import Run
from ..settings.classes import import_class
from ..settings.errors import SettingsError
from ..settings.parser import CLI
from .hooks import CLIPPING, check_hooks, check_loader, clips_itself, evaluation_of


def adapt(cli: CLI, run: Run) -> dict[str, Any]:
    """Let what a model does by itself take the place of defaults; says so.

    Args:
        cli: the settings, with the model made; its datamodule becomes None where the model has loaders of its own.
        run: the run.

    Returns:
        settings of the Trainer that take the place of the user's.

    Raises:
        SettingsError: the model or its data lack a hook, or something that was asked for contradicts it.
    """
    check_hooks(cli.model, run.command)
    use_own_loaders(cli, run)
    check_loader(cli.datamodule or cli.model, run.command)
    return let_it_clip(cli, run)


def asked_for(run: Run, key: str) -> bool:
    """True if a setting, or one below it, is not what the first file of settings has."""
    for name, source in run.settings.source.items():
        if name == key or name.startswith(f"{key}."):
            if source != run.settings.base or name in run.changes:
                return True
    return False


def let_it_clip(cli: CLI, run: Run) -> dict[str, Any]:
    """Settings that let a model clip its gradients itself; Lightning refuses the Trainer's beside its own."""
    why = clips_itself(cli.model)
    setting = cli.config_init.trainer.gradient_clip_val
    if why is None or setting is None:
        return {}
    if asked_for(run, "trainer.gradient_clip_val"):
        raise SettingsError(
            f"{why}, so nothing can be clipped for it: set --trainer.gradient_clip_val null, and call "
            "self.clip_gradients where it should be done"
        )

    say(f"{why}, so it clips its gradients itself; trainer.gradient_clip_val {setting:g} is not used")
    for name in CLIPPING:
        cli.resolved["trainer"][name] = None
    return dict.fromkeys(CLIPPING)


def use_own_loaders(cli: CLI, run: Run) -> None:
    """Let a model that has loaders of its own use them, unless other data were asked for."""
    if not is_overridden("train_dataloader", cli.model, LightningModule):
        return
    name, data = type(cli.model).__name__, type(cli.datamodule).__name__
    if names_data(run):
        say(f"the data are those of {data}; {name}.train_dataloader is not used")
        return
    if asked_for(run, "data"):
        keys = sorted(key for key in run.changes if key.startswith("data."))
        raise SettingsError(
            f"{name} has train_dataloader, so its data are its own, and --{keys[0] if keys else 'data'} changes "
            "nothing: leave it out, or name a DataModule with --data"
        )
    say(f"the data are those of {name}, which has train_dataloader")
    cli.datamodule = None


def names_data(run: Run) -> bool:
    """True if a DataModule was asked for, and is not that of the first file of settings."""
    return "data" in run.changes or run.settings.source.get("data") != run.settings.base


def evaluation(model_class: Any, run: Run) -> str | None:
    """The command that evaluates a run with a model of this class: test, or else validate; None if neither can."""
    data_class = model_class
    own_loaders = getattr(model_class, "train_dataloader", None) is not LightningModule.train_dataloader
    if names_data(run) or not own_loaders:
        data_class = import_class(run.settings.flat["data"])
    return evaluation_of(model_class, data_class)


def compile_networks(model: LightningModule) -> None:
    """Compile the networks in a model in place, so that the names of the weights stay as they are."""
    for child in model.children():
        if not isinstance(child, Metric):
            child.compile()
