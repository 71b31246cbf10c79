"""Every name of other packages that is used here and not public, and a check that the installed versions have it.

Such a name can change with any release. The packages are pinned for that reason, but an environment can hold something
else. Then one line at the start says so, instead of a run that fails at its first restart.

- `check_packages()`: what can be imported, before anything else imports it
- `check_wandb()`: the same for W&B, where W&B is used
- `check_trainer(trainer)`: what objects have once they are made; takes less than 5 ms

Who uses a new private name adds it to a table here; a test compares the tables with the code. Two kinds of dependence
can't be checked at the start, and only tests notice a change: the names in UNCHECKED, and the texts of jsonargparse's
messages that settings/typed/messages.py takes apart.
"""

import pkgutil
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from .settings.errors import SettingsError

# Package → a version that has all names.
WORKS_WITH = {
    "lightning": "lightning>=2.6,<2.7",
    "torchmetrics": "torchmetrics==1.9.0",
    "jsonargparse": "jsonargparse>=4.40,<5",
    "wandb": "wandb==0.31.0",
    "torch": "torch==2.13.0",
}

# MODULE:NAME of classes and functions, and of what classes have.
IN_PACKAGES = (
    # survive/lightning_state.py makes the running averages of logged values again
    "lightning.pytorch.trainer.connectors.logger_connector.result:_Metadata",
    "lightning.pytorch.trainer.connectors.logger_connector.result:_ResultCollection",
    "lightning.pytorch.trainer.connectors.logger_connector.result:_ResultMetric",
    "lightning.pytorch.trainer.connectors.logger_connector.result:_Sync._should",
    "lightning.pytorch.trainer.connectors.logger_connector.result:_Sync.should",
    # survive/restart.py: what the loops guess after a restart is wrong
    "lightning.pytorch.loops.fit_loop:RestartStage.NONE",
    "lightning.pytorch.loops.evaluation_loop:RestartStage.RESTARTED_MID_EVALUATION",
    # attempts/attempt.py watches the ranks that Lightning starts, in place of its own observer
    "lightning.pytorch.strategies.launchers.subprocess_script:_launch_process_observer",
    # training/callbacks.py: what stands before the progress bar
    "lightning.pytorch.callbacks.progress.rich_progress:RichProgressBar._get_train_description",
    # … and what `load_from_checkpoint` makes a model with
    "lightning.pytorch.cli:instantiate_module",
    # cka/: layers that are compiled, that give back their input, or that are no layers
    "torch:_foreach_div_",
    "torch.nn:Module._compiled_call_impl",
    "torch.nn.modules.dropout:_DropoutNd",
    "torch.nn.modules.loss:_Loss",
)

# The key that W&B would find, without asking anybody for it: trackers/wandb_runs.py, sweeps/wandb_sweeps.py.
IN_WANDB = (
    "wandb.sdk.wandb_setup:singleton",
    "wandb.sdk.lib.wbauth:read_netrc_auth",
    # trackers/wandb_runs.py: a run whose service has died is no longer W&B's present one
    "wandb.sdk.lib.module:unset_globals",
)

ON_TRAINER = (
    # where in the run we are
    "fit_loop.epoch_progress.current.completed",
    "fit_loop.epoch_loop.batch_progress.current.completed",
    "fit_loop.epoch_loop.val_loop.batch_progress.current.completed",
    # what Lightning guesses on a restart
    "fit_loop._restarting",
    "fit_loop._restart_stage",
    "fit_loop.epoch_loop._should_check_val_fx",
    "fit_loop.epoch_loop.val_loop._restarting",
    "fit_loop.epoch_loop.val_loop._restart_stage",
    # to repeat a validation after the last step
    "fit_loop.epoch_loop.max_steps",
    # the step of a row that is logged now
    "fit_loop.epoch_loop._batches_that_stepped",
    # when it has asked for the loaders, and what it has fetched ahead
    "fit_loop._last_train_dl_reload_epoch",
    "fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch",
    "fit_loop._data_fetcher",
    # what it remembers of logged values
    "fit_loop.epoch_loop._results",
    "fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader",
    "fit_loop.epoch_loop.val_loop._results",
    "_logger_connector._first_loop_iter",
    "_logger_connector._callback_metrics",
    "_logger_connector._logged_metrics",
    "_logger_connector._progress_bar_metrics",
    # to write a checkpoint where errors can be caught
    "_checkpoint_connector.dump_checkpoint",
    # its handlers act in the middle of a step
    "_signal_connector.register_signal_handlers",
)

ON_METRIC = ("_update_count", "_computed", "metric_state")  # whether it has anything to compute

ON_RUNNING_AVERAGE = ("_update_count", "_forward_cache", "has_reset")

# Where self.log was called: training/averaging.py; which metrics it knows: values/named_sets.py. Buffers that are not
# saved: survive/lightning_state.py.
ON_MODULE = ("_current_fx_name", "_non_persistent_buffers_set", "_metric_attributes")

ON_BATCH_SIZE_FINDER = ("_batch_arg_name", "optimal_batch_size")  # what it has found: survive/restart.py

ON_TENSOR = ("_version",)  # whether it was changed in place: values/attributes.py

ON_WEIGHT_AVERAGING = ("_average_model",)

# loading/loaders.py: persistent workers, which end with a run; where a class with its own __iter__ gets its batches
ON_LOADER = ("_iterator", "_get_iterator")

ON_COMBINED_LOADER = ("_mode",)  # whether a shorter loader begins anew: loading/sources.py

ON_WANDB_LOGGER = ("_wandb_init", "_experiment", "_id")

# Name → why its absence can't be seen at the start.
UNCHECKED = {
    "_compiler_ctx": "only a LightningModule that was compiled as a whole has it",
    "_orig_mod": "only a module that torch.compile has wrapped has it, and importing torch's compiler takes seconds",
    "_actions": "of Python's argparse, in the parser that settings/ makes before the Trainer",
    "_instantiator": "a key of checkpoints; without it `load_from_checkpoint` needs the model's arguments",
    "_typehint": "of jsonargparse's arguments, in the same parser; without it a text may be taken for a class name",
}


def check_packages() -> None:
    """Check the names that can be imported; call it before anything that imports them.

    Raises:
        SettingsError: a name is missing; says which, and which version has it.
    """
    for name in IN_PACKAGES:
        _check_import(name)


def check_wandb() -> None:
    """Check the names of W&B; call it where W&B is used.

    Raises:
        SettingsError: a name is missing; says which, and which version has it.
    """
    for name in IN_WANDB:
        _check_import(name)


def check_trainer(trainer: Any) -> None:
    """Check the names that objects have, on the Trainer and on new objects of the other classes.

    Args:
        trainer: a lightning.pytorch.Trainer.

    Raises:
        SettingsError: a name is missing; says which, and which version has it.
    """
    from lightning.pytorch import LightningModule
    from lightning.pytorch.callbacks import BatchSizeFinder, WeightAveraging
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric
    from lightning.pytorch.utilities import CombinedLoader
    from torch import Tensor
    from torch.utils.data import DataLoader
    from torchmetrics import MeanMetric

    _check_object(trainer, ON_TRAINER, "lightning")
    _check_object(MeanMetric(), ON_METRIC, "torchmetrics")
    _check_object(_ResultMetric(_Metadata("training_step", "loss"), True), ON_RUNNING_AVERAGE, "lightning")
    _check_object(LightningModule(), ON_MODULE, "lightning")
    _check_object(BatchSizeFinder(), ON_BATCH_SIZE_FINDER, "lightning")
    _check_object(Tensor(), ON_TENSOR, "torch")
    _check_object(WeightAveraging(), ON_WEIGHT_AVERAGING, "lightning")
    _check_object(DataLoader([0]), ON_LOADER, "torch")
    _check_object(CombinedLoader([]), ON_COMBINED_LOADER, "lightning")

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _check_object(logger, ON_WANDB_LOGGER, "lightning")


def _check_import(name: str) -> None:
    """Check one MODULE:NAME."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        package = name.partition(":")[0].partition(".")[0]
        raise _missing(name.replace(":", "."), package) from None


def _check_object(thing: Any, names: Iterable[str], package: str) -> None:
    """Check that an object has each of the names; a dotted one leads through several objects."""
    for name in names:
        value = thing
        for attribute in name.split("."):
            if not hasattr(value, attribute):
                raise _missing(f"{type(thing).__name__}.{name}", package)
            value = getattr(value, attribute)


def _missing(name: str, package: str) -> SettingsError:
    """The error that says in one line which name is missing, and what to install."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    return SettingsError(
        f"{package} {version} has no {name}, which is not public and needed here; install a version that has it: "
        f"pip install '{WORKS_WITH[package]}'"
    )
