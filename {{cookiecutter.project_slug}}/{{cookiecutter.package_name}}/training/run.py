"""One run from its folder to its summary: what `fit`, `validate`, `test` and `predict` do around the Trainer."""

import contextlib
import json
import logging
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torchmetrics import Metric

from ..datasets.module import KeepSplit
from ..runs.code import version
from ..runs.folder import EXIT_CODES, RunFolder, now, write_atomically
from ..runs.request import Request, request
from ..runs.settings import SettingsError, dump
from . import signals
from .checkpoint_files import CheckpointError, Found, atomic_write, find
from .checkpoints import AtomicCheckpointIO, Checkpoints, load_weights
from .cli import CLI
from .length import set_length
from .logs import log_file, quiet_lightning
from .metrics_file import MetricsFile
from .objective import BestSoFar
from .reporting import Bar, Report, say, summary
from .resume import ExactResume
from .stopping import train_without_validation
from .trackers import finish_trackers, in_sweep, place_loggers, report_again

logger = logging.getLogger(__name__)


def run(wanted: Request) -> int:
    """Carry out a request; returns the exit code.

    Raises:
        SettingsError: something asked for is wrong or missing; nothing has been written.
    """
    quiet_lightning()
    signals.install()  # again, now that imported libraries have had their chance to install theirs
    cli = CLI(wanted)
    try:
        if wanted.command != "fit":
            return evaluate(cli, wanted)
        with wanted.folder.locked() if rank_zero_only.rank == 0 else contextlib.nullcontext():
            return fit(cli, wanted)
    except CheckpointError as error:
        raise SettingsError(str(error)) from None


def fit(cli: CLI, wanted: Request) -> int:
    """Train, or go on training; returns the exit code."""
    folder, config, leader = wanted.folder, cli.config.fit, rank_zero_only.rank == 0
    if folder.status().get("state") == "done" and config.resume in ("auto", "must"):
        print(
            "This run is done already; other settings or another --trial make a new one, --resume never starts it over."
        )
        print(summary(wanted))
        if in_sweep() and leader:
            make(cli, wanted)
            report_again(cli.trainer.loggers, cli.resolved, folder)
        return 0
    if reason := folder.stuck():
        print(f"error: {reason}", file=sys.stderr)
        if leader:
            folder.start(name=wanted.group, identity=wanted.identity, command=command_line(wanted))
            folder.end("failed", reason)
        return EXIT_CODES["failed"]
    found = find(folder.path / "checkpoints", config.resume)
    attempt = 1 if config.resume == "never" else folder.status().get("attempt", 0) + 1
    try:
        make(cli, wanted)
        set_length(config, cli.trainer, cli.datamodule)
        start = how_it_starts(cli, found, attempt)
    except (SettingsError, CheckpointError):
        raise  # a wrong setting leaves nothing behind
    except Exception as error:
        return failed(wanted, error)

    if config.resume == "never" and leader:
        folder.move_aside()
    if leader:
        folder.start(name=wanted.group, identity=wanted.identity, command=command_line(wanted))
        signals.install(at_once=lambda: folder.end("interrupted", "ended at once by a second Ctrl-C"))
        write_settings(cli, wanted)
    with log_file(folder.path, rank_zero_only.rank):
        for line in (*wanted.overrides, f"run folder: {folder.path}", *start):
            say(line)
        code = train(cli, wanted, found)
        finish_trackers(cli.trainer.loggers, code)
    return code


def train(cli: CLI, wanted: Request, found: Found | None) -> int:
    """Run the Trainer and note how it ended; returns the exit code."""
    trainer, folder = cli.trainer, wanted.folder
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=found and found.path, weights_only=True)
    except signals.Stopped as stopped:
        say(f"stopped: {stopped.reason}; the same command goes on from the checkpoint")
        return folder.end(stopped.reason) if rank_zero_only.rank == 0 else EXIT_CODES[stopped.reason]
    except Exception as error:
        return failed(wanted, error)
    if rank_zero_only.rank == 0:
        folder.end("done", step=trainer.global_step, epoch=trainer.current_epoch, metrics=last_metrics(trainer))
        print(summary(wanted, trainer.loggers))
    return 0


def make(cli: CLI, wanted: Request) -> None:
    """Make model, data and trainer, with the callbacks, files and trackers that every run has."""
    config, folder, training = cli.config[wanted.command], wanted.folder.path, wanted.command == "fit"
    checkpoints = Checkpoints(**config.checkpoints, config=wanted.identity)
    if rank_zero_only.rank == 0:
        checkpoints.on_save = lambda entry: wanted.folder.update(
            step=entry["step"], epoch=entry["epoch"], monitor=checkpoints.monitor, best=checkpoints.best_value
        )
    callbacks = [ExactResume(config.seed_everything), checkpoints]
    if training:
        callbacks += [BestSoFar(checkpoints), Report(), RecordSettings(cli.resolved), KeepSplit()]
    bar = config.trainer.enable_progress_bar is not False and sys.stderr.isatty()
    if bar:
        callbacks.append(Bar())
    plugins = config.trainer.plugins or []
    # The test set's metrics alone are the run's: another one's would take their place.
    tracked = training or wanted.command == "test" and data_setting(config, "test_on") in (None, "test")
    config.trainer.logger = place_loggers(config.trainer.logger, wanted) if tracked else False
    cli.make(
        callbacks,
        default_root_dir=str(folder),
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
        enable_progress_bar=bar,
        enable_checkpointing=False,  # that would add Lightning's ModelCheckpoint
        use_distributed_sampler=False,  # ExactResume shares the samples among the ranks
    )
    if data_setting(config, "mode") == "final":
        train_without_validation(cli.trainer)
    if training and cli.config_init.fit.cka is not None:
        cli.trainer.callbacks.append(cli.config_init.fit.cka)
    if training:
        cli.trainer.loggers = [MetricsFile(folder), *cli.trainer.loggers]
    if training and config.canary:
        cli.trainer.callbacks.append(Canary(wanted.folder))
    if config.compile:
        for child in cli.model.children():
            if not isinstance(child, Metric):
                child.compile()  # in place, so the names of the weights stay as they are


def data_setting(config: Namespace, name: str) -> Any:
    """A setting of the data; None if the DataModule has no such setting."""
    return (config.data.get("init_args") or Namespace()).get(name)


def evaluate(cli: CLI, wanted: Request) -> int:
    """Validate, test or predict with a checkpoint of a run, the best one unless --ckpt_path says otherwise."""
    command, folder = wanted.command, wanted.folder.path
    if not folder.is_dir():
        runs = sorted(folder.parent.parent.glob("*/*/status.json"), key=lambda file: file.stat().st_mtime)
        newest = f"; the newest run: --run {runs[-1].parent}" if runs else ""
        raise SettingsError(f"there is no run with these settings ({folder}): train it with `fit`, or name one{newest}")
    config = cli.config[command]
    final = data_setting(config, "mode") == "final"
    if final and command == "validate":
        raise SettingsError("with data.mode final there is no validation data: all of it was trained on; use `test`")
    found = find(folder / "checkpoints", config.ckpt_path or ("last" if final else "best"))
    test_on = data_setting(config, "test_on") or "test"
    name = command if test_on == "test" or command == "validate" else f"{command}-{test_on}"
    make(cli, wanted)
    say(f"checkpoint: {found.path} (step {found.step}, epoch {found.epoch})")
    try:
        method = getattr(cli.trainer, command)
        results = method(cli.model, datamodule=cli.datamodule, ckpt_path=found.path, weights_only=True)
    except signals.Stopped as stopped:
        return EXIT_CODES[stopped.reason]
    finish_trackers(cli.trainer.loggers, 0)
    if not cli.trainer.is_global_zero:
        return 0
    if command == "predict":
        tensors = all(isinstance(batch, torch.Tensor) for batch in results)
        path = folder / f"{name.replace('predict', 'predictions')}.pt"
        with atomic_write(path) as file:
            torch.save(torch.cat(results) if tensors else results, file)
        say(f"predictions: {path}")
        return 0
    measured = {name: value for loader in results for name, value in loader.items()}
    record = dict(
        checkpoint=str(found.path.relative_to(folder)), step=found.step, epoch=found.epoch, time=now(), **measured
    )
    write_atomically(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")
    say(f"results: {folder / f'{name}.json'}")
    return 0


def load_run(path: Path, root: Path) -> tuple[LightningModule, LightningDataModule]:
    """Model and data of a finished or running run, for looking into them.

    Args:
        path: a run's folder, of which the best checkpoint is taken, or one of its checkpoints.
        root: the project's folder.

    Returns:
        the LightningModule with the checkpoint's weights, on the CPU, in evaluation mode, and the DataModule, ready for
        validation.

    Raises:
        SettingsError, CheckpointError: path is no run or has no such checkpoint.
    """
    folder = path if path.is_dir() else path.parent.parent
    one_process = [
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.num_nodes=1",
        "--trainer.strategy=auto",
    ]
    cli = CLI(request("validate", ["--run", str(folder), *one_process], root))
    cli.make([], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    found = find(folder / "checkpoints", "best" if path.is_dir() else str(path))
    load_weights(cli.model, found.path)
    cli.datamodule.prepare_data()
    cli.datamodule.setup("validate")
    return cli.model.eval(), cli.datamodule


def how_it_starts(cli: CLI, found: Found | None, attempt: int) -> list[str]:
    """Which checkpoint the run goes on from, and which could not be used; a new run gets the weights it asks for."""
    config = cli.config.fit
    if found:
        damaged = [f"warning: {line}; an earlier one is used" for line in found.damaged]
        return [*damaged, f"attempt {attempt}: resuming from {found.path} (step {found.step}, epoch {found.epoch})"]
    if config.init_from:  # on the first attempt only: a restart has weights of its own
        return [load_weights(cli.model, config.init_from, strict=config.init_strict)]
    return []


def failed(wanted: Request, error: BaseException) -> int:
    """Note a crash in status.json and say it: one line first, then the traceback; returns the exit code."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(f"error: {reason}", file=sys.stderr)
    logger.error(reason, exc_info=error, extra=dict(file_only=True))
    traceback.print_exception(error)
    if rank_zero_only.rank != 0:
        return 1
    if not wanted.folder.started:
        wanted.folder.start(name=wanted.group, identity=wanted.identity, command=command_line(wanted))
    return wanted.folder.end("failed", reason)


def last_metrics(trainer: Trainer) -> dict[str, float]:
    """The newest value of each metric; those of single layers, such as cka/init/head, are left to metrics.csv."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.count("/") < 2}


def write_settings(cli: CLI, wanted: Request) -> None:
    """Write config.yaml, overlay.yaml, and which code runs: the git commit, and what is changed since."""
    folder = wanted.folder.path
    head = f"# Resolved settings of: {command_line(wanted)}\n# To use them: python Train.py test --run {folder}\n"
    write_atomically(folder / "config.yaml", head + dump(cli.resolved))
    write_atomically(folder / "overlay.yaml", dump(wanted.changes))
    commit, diff = version(Path(__file__).resolve().parents[2])
    wanted.folder.update(commit=commit, uncommitted_changes=bool(diff))
    if diff:
        write_atomically(folder / "logs" / "uncommitted.diff", diff)


def command_line(wanted: Request) -> str:
    """The command that starts this run again."""
    return shlex.join(["python", "Train.py", wanted.command, *wanted.typed])


class Canary(Callback):
    """Stops the run after its first validation; the same run goes on from there when it is started without it."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            if trainer.is_global_zero:
                self.folder.update(canary="passed")
            say("the canary is through its first validation; the run goes on when it is started without --canary")
            signals.stop("interrupted")  # saved at the next batch, if there is one


class RecordSettings(Callback):
    """Sends the resolved settings to every tracker when training starts."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for each in trainer.loggers:
            each.log_hyperparams(self.settings)
