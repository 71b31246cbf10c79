"""`fit`: one run from its folder to its summary, around the Trainer."""

import contextlib
import dataclasses
import inspect
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from .. import signals
from ..attempts.attempt import (
    command_line,
    ended_early,
    failed,
    last_checkpoint,
    start_attempt,
    watched_ranks,
    write_end,
)
from ..attempts.mirrored import Remembered, look_into_mirror
from ..attempts.warm_start import warm_start
from ..cka import CKACallback, CKAError
from ..code.compare import check_code, done_line, note_code
from ..files import read_json, write_atomically
from ..logs import log_file, note, say, show
from ..mirror.settings import Mirror
from ..modules.adapt import evaluation
from ..runs.folder import EXIT_CODES
from ..runs.run import Run
from ..settings.classes import import_class
from ..settings.errors import SettingsError
from ..settings.flat import Flat
from ..settings.parser import CLI
from ..settings.places import command, in_project, shown
from ..settings.yaml_files import dump
from ..survive.checkpoint_files import CheckpointError, Found, check_nothing_lost, find_checkpoint, is_own, read_meta
from ..survive.checkpoint_io import unusable
from ..trackers.chosen import finish_trackers
from ..trackers.tracker import Tracker
from ..trackers.wandb_runs import in_sweep, report_again
from .callbacks import is_of_one_layer, main_metrics
from .evaluate import ABOUT_TEST, damaged_status, evaluate, how_far, test_at_end
from .trainer import check_trains, make, result_path, set_length

logger = logging.getLogger(__name__)

# It would otherwise count as done, with the weights that it began with.
NO_BATCH = (
    "nothing was trained: the training data give no batch. Are there fewer samples than data.batch_size, with "
    "drop_last? Is trainer.limit_train_batches less than one batch?"
)


def fit(cli: CLI, run: Run, root: Path) -> int:
    """Train, or continue training; returns the exit code.

    Args:
        cli: the settings.
        run: the run.
        root: the folder of the code.

    Raises:
        SettingsError, CheckpointError: a setting is wrong; nothing has been written.
    """
    folder = run.folder
    resume = folder.resume_now(cli.config.resume)
    leader, check = rank_zero_only.rank == 0, Remembered(unusable)

    # Done, here or on another machine: there is nothing to train, unless --resume asks to start over, or from some
    # checkpoint.
    mirrored = look_into_mirror(run, Mirror(**vars(cli.config.mirror)), resume, check)
    resume = folder.resume_now(cli.config.resume)  # again, as it may know more of the run now
    before = folder.status()
    if before.get("state") == "done" and resume in ("auto", "must"):
        return already_done(cli, run, root)

    # Stuck: put back into the queue again and again without getting on, it would only burn hours.
    stuck = folder.stuck()
    if stuck:
        print(f"error: {stuck}", file=sys.stderr)
        if leader:
            start_attempt(run, resume)
            folder.end("failed", stuck)
        return EXIT_CODES["failed"]

    # New, or continued: make everything before anything is written, as a wrong setting must leave nothing behind.
    checkpoint = find_checkpoint(folder.path / "checkpoints", resume, check)
    if checkpoint is None and resume != "never":
        check_nothing_lost(folder)
    if checkpoint is None and cli.config.extend:
        checkpoint = last_checkpoint(shown(in_project(cli.config.extend)), check)
    code_lines = []
    if checkpoint is not None and is_own(checkpoint.path, folder.path):
        code_lines = check_code(*code_of(run, root), changed_is_fine=cli.config.code == "changed")
    attempt = 1 if resume == "never" else before.get("attempt", 0) + 1
    try:
        make(cli, run)
        set_length(cli.config, cli.trainer, cli.datamodule or cli.model)
        check_trains(cli.trainer)
        check_cka(cli.trainer, cli.model)
        check_asked_for(cli)
        start, details = how_it_starts(cli, checkpoint, attempt)
        lines = [*damaged_status(before), *mirrored.lines, *start, *code_lines]
    except (SettingsError, CheckpointError):
        raise
    except Exception as error:  # in the user's model or data
        return failed(run, error)

    # From here on it counts as an attempt.
    if leader:
        if resume == "never":
            folder.move_aside()
        start_attempt(run, resume, checkpoint)
        write_settings(cli, run, root)
    with log_file(folder.path, rank_zero_only.rank):
        for line in (*run.overrides, f"run folder: {folder.path}", *lines):
            say(line)
        for line in details:
            note(line)
        mirrored.start(cli.trainer, checkpoint)
        code = train(cli, run, checkpoint)
        mirrored.finish()
        with contextlib.suppress(signals.Stopped):  # the run has ended; only W&B goes without the rest
            finish_trackers(cli.trainer.loggers, code)
    return code


def check_cka(trainer: Trainer, model: LightningModule) -> None:
    """Check the settings of CKA against the model, as far as it has its layers by now.

    Raises:
        SettingsError: a setting can't work, such as a layer that is not there.
    """
    # What is made in these hooks is not there yet; then CKA itself looks when training starts.
    if any(is_overridden(hook, model) for hook in ("setup", "configure_model", "configure_sharded_model")):
        return
    for callback in trainer.callbacks:
        if not isinstance(callback, CKACallback):
            continue
        try:
            callback.prepare(trainer, model)
        except CKAError as error:
            raise SettingsError(str(error)) from None


def check_asked_for(cli: CLI) -> None:
    """Check that a run can be tested at its end, and validate on several sets, where that is asked for.

    Raises:
        SettingsError: the model or the data can't do that.
    """
    for thing, hook in ((cli.model, "test_step"), (cli.datamodule or cli.model, "test_dataloader")):
        if cli.config.then is not None and not is_overridden(hook, thing):
            raise SettingsError(f"--then test: {type(thing).__name__} has no {hook}")

    takes = inspect.signature(cli.model.validation_step).parameters
    if getattr(cli.datamodule, "also_validate", None) and "dataloader_idx" not in takes:
        raise SettingsError(
            f"data.also_validate: {type(cli.model).__name__}.validation_step must take dataloader_idx=0 after batch_idx"
        )


def already_done(cli: CLI, run: Run, root: Path) -> int:
    """Say that a run is done already, and where its results are; returns the exit code."""
    print(done_line(*code_of(run, root)))
    print(summary(run, import_class(cli.config.model.class_path)))
    if in_sweep() and rank_zero_only.rank == 0:
        make(cli, run)  # for its trackers: the sweep has to hear the result
        report_again(cli.trainer.loggers, cli.resolved, run.folder)
    if cli.config.then == "test" and not result_path(cli.config, run, "test.json").exists():
        return evaluate(CLI("test", run.settings), dataclasses.replace(run, command="test"), root)
    return 0


def code_of(run: Run, root: Path) -> tuple[dict[str, Any], Path, Path, Flat]:
    """What the room `code` asks about a run: its status, the folders of its code and of all runs, its settings."""
    return run.folder.status(), root, run.folder.path.parent.parent, run.settings.flat


def how_it_starts(cli: CLI, checkpoint: Found | None, attempt: int) -> tuple[list[str], list[str]]:
    """Load the weights that a new run asks for.

    Returns:
        lines that say what the run starts from, and lines for the log file alone, which may be long.
    """
    config = cli.config
    if checkpoint is not None:
        lines = [f"warning: {line}; an earlier one is used" for line in checkpoint.damaged]
        lines.append(f"attempt {attempt}: resuming from {checkpoint.path} ({how_far(checkpoint)})")
        if config.extend:
            lines.append(f"extends {config.extend}")
        return lines, []
    if config.init_from:  # not with a checkpoint: a continued run has weights of its own
        line, left_out = warm_start(cli.model, shown(in_project(config.init_from)), strict=config.init_strict)
        return [line], left_out
    return [], []


def train(cli: CLI, run: Run, checkpoint: Found | None) -> int:
    """Run the Trainer and write down how it has ended; returns the exit code."""
    trainer, folder = cli.trainer, run.folder
    leader = rank_zero_only.rank == 0
    path = None if checkpoint is None else checkpoint.path
    try:
        with watched_ranks(run):
            trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
            problem = nothing_trained(cli, run, checkpoint)
            reached = dict(step=trainer.global_step, epoch=trainer.current_epoch, metrics=last_metrics(trainer))

            # Before the run is done: one that is stopped during its test is tested when it is started again.
            if problem is None and cli.config.then == "test":
                test_at_end(cli, run)
    except signals.Stopped as stopped:
        return ended_early(run, stopped.reason)
    except Exception as error:
        return failed(run, error)

    if problem is not None:
        say(f"error: {problem}")
        return write_end(run, "failed", problem)
    if leader:
        folder.end("done", **reached)
        show(summary(run, type(cli.model), trainer.loggers))
    return EXIT_CODES["done"]


def nothing_trained(cli: CLI, run: Run, checkpoint: Found | None) -> str | None:
    """Why the Trainer had nothing to do; None if it has trained, or all of the run was done before."""
    if cli.trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0:
        return NO_BATCH
    if checkpoint is None or is_own(checkpoint.path, run.folder.path) or cli.trainer.global_step != checkpoint.step:
        return None
    return f"nothing was trained: {checkpoint.path} is at the end already; give a longer --trainer.max_epochs"


def last_metrics(trainer: Trainer) -> dict[str, float]:
    """The newest value of each metric; those of single layers, such as cka/init/head, are left to metrics.csv."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if not is_of_one_layer(name)}


def write_settings(cli: CLI, run: Run, root: Path) -> None:
    """Write config.yaml, overlay.yaml, and which code runs: the git commit, and what is changed since."""
    folder = run.folder.path
    use = command("Train.py", "test", "--run", folder)
    head = f"# Resolved settings of: {command_line(run)}\n# To use them: {use}\n"
    write_atomically(folder / "config.yaml", head + dump(cli.resolved), lasting=False)
    write_atomically(folder / "overlay.yaml", dump(run.changes), lasting=False)

    status, _, runs, _ = code_of(run, root)
    fields, diff = note_code(status, root, runs)
    run.folder.update(**fields)
    if diff:
        write_atomically(folder / "logs" / "uncommitted.diff", diff)


def summary(run: Run, model_class: Any, trackers: Sequence[Logger] = ()) -> str:
    """Where everything of a finished run is and what to type next, one thing a line."""
    folder, status = run.folder.path, run.folder.status()
    lines = [("run folder", f"{folder}")]

    meta = read_meta(folder / "checkpoints")
    for name in ("best", "last"):
        entry = meta.get(name)
        if not entry:
            continue
        what = f"step {entry['step']}"
        if entry.get("monitor"):
            what += f", {main_metrics({entry['monitor']: entry['value']})}"
        lines.append((f"{name} checkpoint", f"{folder}/checkpoints/{name}.ckpt ({what})"))

    lines.append(("metrics", f"{main_metrics(status.get('metrics') or {})}; all in {folder}/metrics.csv"))
    lines.append(("time", f"{status.get('seconds', 0):.0f} s in {status.get('attempt', 1)} attempt(s)"))
    pictures = sorted((folder / "cka").glob("*.png"))
    if pictures:
        lines.append(("CKA", f"{pictures[-1]}"))
    verb = evaluation(model_class, run)
    tested = {name: value for name, value in read_json(folder / "test.json").items() if name not in ABOUT_TEST}
    if tested:
        lines.append(("test", f"{main_metrics(tested)}; in {folder}/test.json"))
    elif verb is not None:
        lines.append((f"{verb} it", command("Train.py", verb, "--run", folder)))

    for tracker in trackers:
        where = tracker.where() if isinstance(tracker, Tracker) else None
        if where:
            lines.append((f"see it in {tracker.title}", where))
    return "\n".join(f"{name:<16} {text}" for name, text in lines)
