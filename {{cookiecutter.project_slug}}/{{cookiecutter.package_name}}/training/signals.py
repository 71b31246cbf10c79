"""Signals that end a run early: noted at once, acted on at the start of the next batch.

    from .training import signals; signals.install()   first thing in the program, before torch is imported
    trainer.fit(...)                                   Checkpoints (checkpoints.py) saves and raises Stopped(reason)

A handler that saved the checkpoint itself would do so in the middle of anything, an optimizer step or an all-reduce
(Lightning #21406), and a signal that comes before there is a handler kills Python; both lose runs on busy clusters.
DataLoader workers inherit the handlers: a batch system sends its signals to them as well, and they must not die of it.
"""

import atexit
import multiprocessing.util  # before `install`, so that its exit handler runs after ours
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

# Schedulers preempt with SIGTERM and announce the time limit with SIGUSR1 (sbatch --signal=USR1@120); Ctrl-C is SIGINT.
REASONS = {signal.SIGTERM: "preempted", signal.SIGUSR1: "time limit", signal.SIGINT: "interrupted"}

_received: str | None = None
_installed_by: int = 0
_at_once: Callable[[], Any] | None = None


class Stopped(Exception):
    """The run was asked to end and has saved a checkpoint; `reason` is one of the values of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def install(at_once: Callable[[], Any] | None = None) -> None:
    """Install the handlers; to be called in the main thread, and again wherever a library has put its own in place.

    Args:
        at_once: called when a second Ctrl-C ends the process without a checkpoint, to write down the state.
    """
    global _installed_by, _at_once
    if not installed():
        atexit.register(end_workers)
    _installed_by = os.getpid()
    _at_once = at_once or _at_once
    put_in_place()


def uninstall() -> None:
    """Give the signals back their usual effect: for programs with nothing to save."""
    global _installed_by
    _installed_by = 0
    for number in REASONS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def installed() -> bool:
    """Whether this process, or the one it was forked from, has the handlers."""
    return _installed_by != 0


def keep() -> None:
    """Take the signals back, if they were ours, from a library that has taken them without Python knowing.

    LLVM does so when Triton loads it, at the first compiled kernel or earlier, and then drops every SIGUSR1.
    """
    if installed():
        put_in_place()


def put_in_place() -> None:
    """Install the handlers alone: also for a DataLoader worker that was not forked and so has none."""
    for number in REASONS:
        signal.signal(number, _note)


def end_workers() -> None:
    """End the DataLoader workers that are left at exit; multiprocessing would send them SIGTERM and wait for ever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def received() -> str | None:
    """Why the run has been asked to end, or None. The first signal counts."""
    return _received


def stop(reason: str) -> None:
    """End the run at its next batch, as a signal would; `reason` is one of the values of REASONS."""
    global _received
    _received = _received or reason


def reset() -> None:
    """Forget what was received: for a program that trains several times in one process."""
    global _received
    _received = None


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    again = _received == "interrupted"
    _received = _received or REASONS[signal.Signals(number)]
    if os.getpid() != _installed_by:
        return  # a DataLoader worker: its parent decides
    if number == signal.SIGINT and again:
        if _at_once is not None:
            _at_once()
        os._exit(130)
    hint = "; Ctrl-C again ends it at once, without saving" if number == signal.SIGINT else ""
    # os.write: print() can't be used in a handler, which may have interrupted another print().
    os.write(2, f"{signal.Signals(number).name}: the run saves and stops at its next batch{hint}\n".encode())
