"""The Trainer of a run: its callbacks and their order, its files and trackers, and its length."""

import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..attempts.start_up import StartUp
from ..data.module import KeepSplit
from ..failures import may_fail
from ..modules.adapt import adapt, compile_networks
from ..modules.writer import speak_all
from ..private_names import check_trainer
from ..processes import TASKS
from ..provenance.callback import KeepProvenance
from ..runs.folder import RunFolder
from ..runs.run import Run
from ..settings.errors import SettingsError
from ..settings.parser import CLI
from ..survive.checkpoint_io import AtomicCheckpointIO
from ..survive.checkpoints import Checkpoints
from ..survive.exact_resume import ExactResume
from ..survive.metrics_file import MetricsFile
from ..trackers.chosen import place_loggers
from ..values.named_sets import NamedSets
from .callbacks import Bar, BestSoFar, Canary, EpochReport, FolderIsThere, KeepPredictions, RecordSettings
from .schedules import ContinueAnother

# What says that a rank was started by torchrun, by Open MPI, or by Lightning itself.
OTHER_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_SIZE", "LOCAL_RANK")


def make(cli: CLI, run: Run) -> None:
    """Make the model, the data and the Trainer of a run: cli.model, cli.datamodule and cli.trainer.

    Raises:
        SettingsError: a setting is wrong.
    """
    config, folder = cli.config, run.folder.path
    training = run.command == "fit"

    # The test set's metrics alone are the run's: those of another set would take their place.
    tracked = training or (run.command == "test" and is_of_test_set(config))
    config.trainer.logger = place_loggers(config.trainer.logger, run) if tracked else False
    cli.make_model()
    of_the_model = adapt(cli, run)

    take_place_in_slurm(config.trainer.devices, config.trainer.num_nodes)
    shows_bar = config.trainer.enable_progress_bar is not False and sys.stderr.isatty()
    plugins = cli.config_init.trainer.plugins or []
    if not isinstance(plugins, list):
        plugins = [plugins]
    for plugin in plugins:
        if isinstance(plugin, CheckpointIO):
            raise SettingsError(
                f"trainer.plugins: {type(plugin).__name__} writes checkpoints, which the run itself does: leave it out"
            )
    callbacks = all_callbacks(cli, run, shows_bar)
    cli.make_trainer(
        callbacks,
        default_root_dir=str(folder),
        plugins=[*plugins, AtomicCheckpointIO()],
        enable_progress_bar=shows_bar,
        # Lightning allows its own checkpoint callbacks with True only, which would add one if there were none.
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        use_distributed_sampler=False,  # ExactResume shares the samples among the ranks
        **of_the_model,
    )

    check_trainer(cli.trainer)
    for tracker in cli.trainer.loggers:
        may_fail(tracker)
    # These two come after the Trainer is made, since with fast_dev_run it drops its loggers and validates one batch. So
    # a sweep asks a run which metrics it logs, and that is what metrics.csv says.
    if training:
        # Last, as `self.logger` of a model is the first: a tracker, where there is one.
        cli.trainer.loggers = [*cli.trainer.loggers, MetricsFile(folder)]
    speak_all(cli.trainer.loggers)
    if data_setting(config, "mode") == "final":
        cli.trainer.limit_val_batches = 0  # all that could validate is trained on

    if config.compile:
        compile_networks(cli.model)


def take_place_in_slurm(devices: Any, nodes: int) -> None:
    """Let Lightning see SLURM's tasks only where srun has started one process for each device.

    In a job's own shell, and alone in a step, SLURM's variables speak of tasks that nobody starts. Lightning would wait
    for them, refuse their number, or train on one device where it was told two. Without them it starts its own.

    Args:
        devices: trainer.devices, on each node.
        nodes: trainer.num_nodes.

    Raises:
        SettingsError: srun has started another number of processes than these settings need.
    """
    if "SLURM_JOB_ID" not in os.environ or any(name in os.environ for name in OTHER_LAUNCHERS):
        return
    number = int(devices) if str(devices).isdigit() else None  # `auto`, or a list

    # Only srun sets this one.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1:
        if number is not None and number * nodes != tasks:
            raise SettingsError(
                f"srun has started {tasks} processes, and trainer.devices {number} × trainer.num_nodes {nodes} needs "
                f"{number * nodes}: say the same in both places"
            )
        # Lightning wants to be told, and srun --ntasks=N alone does not tell it.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(tasks // nodes))
        return

    if nodes > 1:
        raise SettingsError(
            f"trainer.num_nodes is {nodes}, and this process is alone: start one for each device, by "
            "`python SlurmTrain.py submit` or `srun --ntasks-per-node=DEVICES python Train.py …`"
        )
    said = {os.environ.get(name, "1") for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")}
    if number != 1 or said != {"1"}:
        for name in list(os.environ):
            if name.startswith(TASKS):
                del os.environ[name]


def all_callbacks(cli: CLI, run: Run, shows_bar: bool) -> list[Callback]:
    """All callbacks of a run, in the order in which they act at each hook. Nowhere else is one added or moved.

    Args:
        cli: the settings, with the callbacks that they choose already made.
        run: the run.
        shows_bar: True if there is a progress bar.
    """
    config = cli.config
    training = run.command == "fit"
    chosen = chosen_callbacks(cli, shows_bar)

    # First: it seeds the generators, which any other hook of a batch may draw from.
    callbacks: list[Callback] = [ExactResume(config.seed_everything)]

    # Second: a checkpoint is cut at the start of a batch, before any other hook has changed something.
    checkpoints = Checkpoints(**config.checkpoints, config=run.identity)
    if rank_zero_only.rank == 0:
        checkpoints.on_save.append(partial(note_checkpoint, run.folder))
    callbacks.append(checkpoints)

    # A folder that is another process's by now must get nothing more.
    if training and rank_zero_only.rank == 0:
        callbacks += [FolderIsThere(run.folder), StartUp(run.folder)]

    # Trackers have the settings, and the folder has the split, before anything is measured.
    if training:
        callbacks += [ContinueAnother(), RecordSettings(cli.resolved), KeepSplit()]

    # Those of the configuration. CKA comes after an average of the weights, to look at what a validation looks at.
    callbacks += [*chosen, NamedSets()]  # it measures what an average evaluates, too
    if training and cli.config_init.cka is not None:
        callbacks.append(cli.config_init.cka)

    if run.command == "predict" and rank_zero_only.rank == 0:
        callbacks.append(KeepPredictions(result_path(config, run, "predictions")))

    # What reports comes after what measures: Checkpoints knows by now whether this validation was the best.
    if training:
        callbacks += [BestSoFar(checkpoints), EpochReport(), KeepProvenance(cli.resolved)]
    if shows_bar and not any(isinstance(callback, ProgressBar) for callback in chosen):
        callbacks.append(Bar())

    # Last: it says that a validation has passed, so all others must have got through it.
    if training and config.canary:
        callbacks.append(Canary(run.folder))
    return callbacks


def chosen_callbacks(cli: CLI, shows_bar: bool) -> list[Callback]:
    """The callbacks that the configuration chooses, without those that have nothing to do in this run.

    Args:
        cli: the settings, with the callbacks already made.
        shows_bar: True if there is a progress bar.
    """
    chosen = cli.config_init.trainer.callbacks or []
    if not isinstance(chosen, list):
        chosen = [chosen]

    useless: list[type[Callback]] = []
    if not shows_bar:
        useless.append(ProgressBar)  # in a log file it is noise
    if data_setting(cli.config, "mode") == "final":
        useless.append(EarlyStopping)  # it would wait for a validation
    return [callback for callback in chosen if not isinstance(callback, tuple(useless))]


def note_checkpoint(folder: RunFolder, entry: dict[str, Any]) -> None:
    """Write into status.json how far the newest checkpoint is. From now on a restart resumes from it."""
    best = entry["best_so_far"]
    place = dict(step=entry["step"], epoch=entry["epoch"], resume=None, save_seconds=entry["seconds"])
    folder.update(**place, monitor=best["monitor"], mode=best["mode"], best=best["value"])


def data_setting(config: Namespace, name: str) -> Any:
    """A setting of the data; None if the DataModule has no such setting."""
    return (config.data.get("init_args") or Namespace()).get(name)


def is_of_test_set(config: Namespace) -> bool:
    """True if a test is of the test set, and not of other data (data.test_on)."""
    return data_setting(config, "test_on") in (None, "test")


def result_path(config: Namespace, run: Run, name: str) -> Path:
    """Where an evaluation writes: data other than the test set have results beside the test set's, under their name."""
    folder = data_setting(config, "predict_dir") if run.command == "predict" else None
    source = folder or data_setting(config, "test_on") or "test"
    if run.command == "validate" or (source == "test" and not folder):
        return run.folder.path / name
    return run.folder.path / f"{Path(name).stem}-{Path(source).resolve().name}{Path(name).suffix}"


def check_trains(trainer: Trainer) -> None:
    """Check that the settings leave something to train.

    Raises:
        SettingsError: they leave nothing; a run that did nothing would count as done.
    """
    lengths = {
        "trainer.limit_train_batches": trainer.limit_train_batches,
        "trainer.max_epochs": trainer.max_epochs,
        "trainer.max_steps": trainer.max_steps,
    }
    for name, value in lengths.items():
        if value == 0:
            raise SettingsError(f"{name} is 0, so there is nothing to train")


def set_length(config: Namespace, trainer: Trainer, data: LightningDataModule | LightningModule) -> None:
    """Turn total_batch_size, max_samples, val_every_steps and val_every_samples into the Trainer's own settings.

    A step is an optimizer step: `accumulation` batches on each of the devices.

    Raises:
        SettingsError: the numbers do not go together; the message has all of them.
    """
    chosen = [config.total_batch_size, config.max_samples, config.val_every_steps, config.val_every_samples]
    if all(value is None for value in chosen):
        return
    if any(value is not None and value < 1 for value in chosen):
        raise SettingsError("total_batch_size, max_samples, val_every_steps and val_every_samples must be at least 1")
    if config.val_every_steps and config.val_every_samples:
        raise SettingsError("val_every_steps and val_every_samples say the same thing twice: give one of them")

    batch_size: Any = getattr(data, "batch_size", None)
    in_samples = [config.total_batch_size, config.max_samples, config.val_every_samples]
    if batch_size is None and any(value is not None for value in in_samples):
        raise SettingsError(
            f"{type(data).__name__} has no attribute batch_size, which lengths in samples are counted with"
        )

    if config.total_batch_size is not None:
        trainer.accumulate_grad_batches = accumulation_for(config.total_batch_size, batch_size, trainer.world_size)
    accumulation = trainer.accumulate_grad_batches
    samples_per_step = (batch_size or 1) * trainer.world_size * accumulation

    if config.max_samples is not None:
        trainer.fit_loop.epoch_loop.max_steps = math.ceil(config.max_samples / samples_per_step)

    steps = config.val_every_steps
    if config.val_every_samples:
        steps = max(1, round(config.val_every_samples / samples_per_step))
    if steps:
        trainer.val_check_interval = steps * accumulation  # Lightning counts batches here
        trainer.check_val_every_n_epoch = None  # … and over the whole run, not from each epoch's start


def accumulation_for(total_batch_size: int, batch_size: int, devices: int) -> int:
    """How many batches on each device make an optimizer step of so many samples.

    Raises:
        SettingsError: no whole number does; the message has the nearest sizes.
    """
    at_once = batch_size * devices
    accumulation, rest = divmod(total_batch_size, at_once)
    if accumulation and not rest:
        return accumulation

    below, above = accumulation * at_once, (accumulation + 1) * at_once
    nearest = f"{below} or {above}" if accumulation else f"{above}"
    raise SettingsError(
        f"total_batch_size {total_batch_size} is not a multiple of {at_once}: "
        f"data.batch_size {batch_size} × {devices} devices; nearest: {nearest}"
    )
