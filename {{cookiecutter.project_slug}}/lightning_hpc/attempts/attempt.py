"""How an attempt of a run begins and ends, in status.json and on the terminal, and why all ranks of it end."""

import contextlib
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from .. import signals
from ..code.compare import NEW_RUN, START_OVER
from ..failures import Cause, RankWatch, cause_of, first_cause, forget_notes, leave_note, noted_cause
from ..logs import say, show
from ..runs.folder import EXIT_CODES
from ..runs.run import Run
from ..settings.errors import SettingsError
from ..survive.checkpoint_files import CheckpointError, Found, find_checkpoint, is_own
from ..survive.checkpoint_io import does_not_fit

logger = logging.getLogger(__name__)


def start_attempt(run: Run, resume: str = "auto", checkpoint: Found | None = None) -> None:
    """Write into status.json that an attempt has begun.

    Args:
        run: the run.
        resume: the setting; the checkpoint that was asked for by name is noted.
        checkpoint: what the run resumes from. It may be an earlier one than the last that was noted.
    """
    before = run.folder.status()
    if "updated" in before:
        forget_notes(run.folder.path, before["updated"])

    place = {}
    if checkpoint is not None and is_own(checkpoint.path, run.folder.path) and checkpoint.step is not None:
        place = dict(step=checkpoint.step, epoch=checkpoint.epoch)
    wish = None if resume in ("auto", "must", "never") else resume
    extends = run.settings.flat.get("extend")
    known = dict(name=run.group, identity=run.identity, command=command_line(run))
    run.folder.start(**known, **place, resume=wish, extends=extends, start_seconds=None)


def command_line(run: Run) -> str:
    """The command that starts this run again."""
    return shlex.join(["python", "Train.py", run.command, *run.typed])


@contextlib.contextmanager
def watched_ranks(run: Run) -> Iterator[None]:
    """Watch the ranks that Lightning starts by itself; see RankWatch."""

    def leave() -> None:
        cause = first_cause(run.folder.path, Cause("", lost=True), wait=0.0)
        os._exit(write_end(run, "preempted" if cause.killed else "failed", cause.reason))

    watch = RankWatch(leave)
    observer = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = watch.start
    try:
        yield
    finally:
        watch.ended.set()
        subprocess_script._launch_process_observer = observer


def ended_early(run: Run, reason: str) -> int:
    """Write down and say that the run was asked to end, unless another rank has failed; returns the exit code."""
    noted = noted_cause(run.folder.path)
    if noted is not None:
        return write_end(run, "preempted" if noted.killed else "failed", noted.reason)

    say(f"stopped: {reason}; the same command resumes from the checkpoint")
    return write_end(run, reason, None)


def failed(run: Run, error: BaseException) -> int:
    """Write down a crash in status.json and say it: one line first, then the traceback; returns the exit code."""
    cause = cause_of(error)
    misfit = does_not_fit(error)
    if misfit:
        cause = Cause(f"{misfit}. Undo the change of the model, or add {NEW_RUN}, {START_OVER}")
    if rank_zero_only.rank != 0:
        leave_note(run.folder.path, rank_zero_only.rank, cause)
    else:
        cause = first_cause(run.folder.path, cause)

    # What has ended it from outside, such as a lack of memory, is no fault of the code: it may be started again.
    state = "failed"
    if cause.killed:
        state = signals.received() or "preempted"
    code = write_end(run, state, cause.reason)

    logger.error(cause.reason, exc_info=error, extra=dict(file_only=True))
    if cause.killed:
        say(f"stopped: {cause.reason}; the same command resumes from the checkpoint")
        return code
    if isinstance(error, SettingsError | CheckpointError):
        show(f"error: {cause.reason.removeprefix(f'{type(error).__name__}: ')}", sys.stderr)  # it says all there is
        return code
    show(f"error: {cause.reason}", sys.stderr)
    if not misfit:
        show("".join(traceback.format_exception(error)).rstrip(), sys.stderr)
    return code


def write_end(run: Run, state: str, reason: str | None) -> int:
    """Write into status.json, on rank 0, how the attempt has ended; returns the exit code."""
    if rank_zero_only.rank == 0 and not run.folder.is_lost():
        if not run.folder.started:
            start_attempt(run)
        run.folder.end(state, reason)
    return EXIT_CODES[state]


def last_checkpoint(extended: Path, check: Callable[[Path], str | None]) -> Found:
    """The checkpoint at the end of a run that another one extends.

    Raises:
        CheckpointError: there is none.
    """
    found = find_checkpoint(extended / "checkpoints", check=check)
    if found is None:
        raise CheckpointError(f"--extend {extended}: that run has no checkpoint")
    return found
