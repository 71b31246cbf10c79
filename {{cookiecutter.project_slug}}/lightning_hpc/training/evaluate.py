"""`validate`, `test` and `predict` with a checkpoint of a run, and a run's model and data for looking into them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from .. import signals
from ..attempts.warm_start import warm_start
from ..code.compare import warn_of_other_code
from ..files import read_json, write_json
from ..logs import say
from ..modules.adapt import use_own_loaders
from ..runs.folder import EXIT_CODES, now
from ..runs.run import Run, read_command_line
from ..settings.errors import SettingsError
from ..settings.parser import CLI
from ..settings.places import PROJECT, here_or_in_project, quoted
from ..settings.yaml_files import read_yaml
from ..survive.checkpoint_files import CheckpointError, Found, find_checkpoint, read_meta
from ..survive.checkpoint_io import does_not_fit
from ..survive.checkpoints import Checkpoints
from ..survive.metrics_file import MetricsFile
from ..trackers.chosen import finish_trackers
from .trainer import data_setting, is_of_test_set, make, result_path

ABOUT_TEST = ("checkpoint", "step", "epoch", "time")  # what stands in test.json beside the metrics


def evaluate(cli: CLI, run: Run, root: Path) -> int:
    """Validate, test or predict with a checkpoint of a run, the best one unless --ckpt_path says otherwise.

    Args:
        cli: the settings.
        run: the run.
        root: the folder of today's code.

    Returns:
        the exit code.

    Raises:
        SettingsError, CheckpointError: there is no such run, checkpoint or data.
    """
    checkpoint = choose_checkpoint(cli, run)
    make(cli, run)
    status = run.folder.status()
    if status.get("state") == "unknown":
        say(f"warning: {status['reason']}")
    code = (run.folder.status(), root, run.folder.path.parent.parent, run.settings.flat)
    for line in warn_of_other_code(*code):
        say(line)
    say(f"checkpoint: {checkpoint.path} ({how_far(checkpoint)})")

    # A callback keeps the predictions.
    method = getattr(cli.trainer, run.command)
    if run.command == "predict":
        method = partial(method, return_predictions=False)
    try:
        results = method(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint.path, weights_only=True)
    except signals.Stopped as stopped:
        return EXIT_CODES[stopped.reason]
    except (RuntimeError, ValueError) as error:
        misfit = does_not_fit(error)
        if misfit is None:
            raise
        raise CheckpointError(f"{misfit}. Use it with the code and the settings that it was trained with") from error

    if run.command == "predict" and cli.trainer.predict_loop.skip:
        raise SettingsError("there is no sample to predict: the data set, or trainer.limit_predict_batches, is empty")

    loaded = as_loaded(checkpoint, cli.trainer)
    if checkpoint.step not in (None, loaded.step):
        say(f"{checkpoint.path.name} is that of step {loaded.step} by now")
    finish_trackers(cli.trainer.loggers, 0)
    if cli.trainer.is_global_zero and run.command != "predict":
        save_metrics(results, loaded, result_path(cli.config, run, f"{run.command}.json"))
    return 0


def as_loaded(checkpoint: Found, trainer: Trainer) -> Found:
    """A checkpoint with the step and epoch of what was loaded: a run that goes on gives its name to later ones."""
    (checkpoints,) = [callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)]
    return replace(checkpoint, **checkpoints.loaded)


def test_at_end(cli: CLI, run: Run) -> None:
    """Test a run that has just been trained, with the same checkpoint and the same results as the command `test`.

    Args:
        cli: its settings, and the Trainer that has trained it.
        run: the run.

    Raises:
        CheckpointError: it has no such checkpoint.
    """
    trainer = cli.trainer
    checkpoint = choose_checkpoint(cli, run)
    say(f"test: {checkpoint.path} (step {checkpoint.step}, epoch {checkpoint.epoch})")

    # metrics.csv is of the training, and trackers get the test set's results alone.
    loggers, callbacks = trainer.loggers, trainer.callbacks
    trackers = [tracker for tracker in loggers if not isinstance(tracker, MetricsFile)]
    trainer.loggers = trackers if is_of_test_set(cli.config) else []

    # The checkpoint has the averaged weights as the model's. Who averages would put the last ones back, to train on.
    trainer.callbacks = [callback for callback in callbacks if not isinstance(callback, WeightAveraging)]
    try:
        results = trainer.test(
            cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint.path, verbose=False, weights_only=True
        )
    finally:
        trainer.loggers, trainer.callbacks = loggers, callbacks
    if trainer.is_global_zero:
        save_metrics(results, checkpoint, result_path(cli.config, run, "test.json"))


def damaged_status(before: Mapping[str, Any]) -> list[str]:
    """A line if status.json had to be made anew from what the checkpoints tell."""
    if before.get("state") != "unknown":
        return []
    return [f"warning: {before['reason']}; it is written anew, without the attempts and times of before"]


def how_far(checkpoint: Found) -> str:
    """`step 120, 7 epochs done`, as far as it is known."""
    done = "" if checkpoint.epoch is None else f", {checkpoint.epoch} epoch{'' if checkpoint.epoch == 1 else 's'} done"
    return f"step {checkpoint.step}{done}"


def choose_checkpoint(cli: CLI, run: Run) -> Found:
    """The checkpoint to evaluate.

    Raises:
        SettingsError, CheckpointError: there is no such run or checkpoint, or the run has no data to validate on.
    """
    folder = run.folder.path
    if not folder.is_dir():
        runs = sorted(folder.parent.parent.glob("*/*/status.json"), key=lambda file: file.stat().st_mtime)
        newest = f"; the newest run: --run {quoted(runs[-1].parent)}" if runs else ""
        raise SettingsError(f"there is no run with these settings ({folder}): train it with `fit`, or name one{newest}")

    if data_setting(cli.config, "mode") == "final" and run.command == "validate":
        raise SettingsError("with data.mode final there is no validation data: all of it was trained on; use `test`")
    default = cli.config.get("ckpt_path") or default_checkpoint(cli, folder / "checkpoints")
    return find_checkpoint(folder / "checkpoints", default)


def default_checkpoint(cli: CLI, checkpoints: Path) -> str:
    """`best`, or `last` where none is the best: there was no validation, or no metric that says it."""
    if data_setting(cli.config, "mode") == "final" or cli.config.checkpoints.monitor is None:
        return "last"
    had_best = read_meta(checkpoints).get("best") or (checkpoints / "best.ckpt").exists()
    return "best" if had_best or not (checkpoints / "last.ckpt").exists() else "last"


def save_metrics(results: list[dict[str, float]], checkpoint: Found, path: Path) -> None:
    """Write the metrics of all data loaders, and which checkpoint they belong to."""
    record = dict(
        checkpoint=str(checkpoint.path.relative_to(path.parent)),
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        time=now(),
    )
    for metrics in results:
        record |= metrics
    write_json(path, record)
    say(f"results: {path}")


@dataclass(frozen=True)
class LoadedRun:
    """A run, for looking into it.

    Attributes:
        model: the LightningModule with the checkpoint's weights, on the CPU, in evaluation mode.
        data: the DataModule, ready for validation; None if the model has loaders of its own.
        settings: all settings of the run, as in its config.yaml.
        metrics: the newest value of each, once the run is done, and those that `test` has written.
        checkpoint: the file that the weights are from, with the step and epoch at which it was written.
    """

    model: LightningModule
    data: LightningDataModule | None
    settings: dict[str, Any]
    metrics: dict[str, float]
    checkpoint: Found


def load(path: str | Path, root: Path = PROJECT) -> LoadedRun:
    """A finished or running run, for looking into it in a notebook or a program of one's own.

    Example:
        >>> from lightning_hpc import load
        >>> run = load("runs/wide/001-width=64-0123abcd")  # doctest: +SKIP
        >>> run.model(images).argmax(dim=1)  # doctest: +SKIP

    Args:
        path: a run's folder, of which the best checkpoint is taken (or the last, if none is known as the best), or one
            of its checkpoints. It counts from the working folder, or else from the project's.
        root: the project's folder.

    Raises:
        SettingsError, CheckpointError: path is no run or has no such checkpoint.
    """
    path = here_or_in_project(path, root)
    is_checkpoint = path.is_file() or path.suffix == ".ckpt"  # some are folders
    folder = path.parent.parent if is_checkpoint else path

    # One process looks into it, on whatever it was trained.
    run = read_command_line("validate", ["--run", str(folder), "--trainer.strategy=auto"], root)
    cli = CLI(run.command, run.settings)
    cli.config.trainer.logger = False  # looking into a run is not logged
    cli.make_model()
    checkpoint = str(path) if is_checkpoint else default_checkpoint(cli, folder / "checkpoints")
    found = find_checkpoint(folder / "checkpoints", checkpoint)
    warm_start(cli.model, found.path)

    use_own_loaders(cli, run)
    data = cli.datamodule
    if data is not None:
        data.prepare_data()
        data.setup("validate")

    metrics = dict(run.folder.status().get("metrics") or {})
    tested = read_json(folder / "test.json")
    metrics |= {name: value for name, value in tested.items() if isinstance(value, float)}
    return LoadedRun(cli.model.eval(), data, read_yaml(folder / "config.yaml"), metrics, found)
