"""Signals: why a run has been asked to stop. Programs that are started, and get them handed on: processes.py.

Handlers are installed here and nowhere else:

    Train.py fit, test, …       install: the signal is noted, and read between two batches; where none comes, it ends
    Train.py crossvalidate      install, and a Child for each fold
    a DataLoader worker         put_in_place: it ignores the signal, because its parent decides
    SweepAgent.py               on_signal: it ends at once; while it has a Child, it lets that save first
    CreateSweep.py --serve      on_signal: the server ends
"""

import _thread
import atexit
import contextlib
import multiprocessing.util  # before `install`, so that its exit handler runs after ours
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Schedulers preempt with SIGTERM and announce the time limit with SIGUSR1 (sbatch --signal=USR1@120); Ctrl-C is SIGINT.
# A terminal that is closed sends SIGHUP, which a program that nohup has started never gets.
REASONS = {
    signal.SIGTERM: "preempted",
    signal.SIGUSR1: "time limit",
    signal.SIGINT: "interrupted",
    signal.SIGHUP: "preempted",
}

PATIENCE = 60.0  # seconds after a signal without a batch: the run waits for something, and ends without saving

_received: str | None = None

_looked = False  # somebody looks for signals, between two batches
_acted = False  # … and has seen this one
_impatient = False  # nobody has looked for long
_busy = False  # a checkpoint is being written

_installed_by: int = 0  # the process that has called `install`

_at_once: Callable[[str, str], int] | None = None


class Stopped(BaseException):
    """The run was asked to end, and has saved if it could; `reason` is one of the values of REASONS.

    Like KeyboardInterrupt it is no Exception, so that code which is waiting, and tries again after errors, ends too.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def install(at_once: Callable[[str, str], int] | None = None) -> None:
    """Install the handlers; to be called in the main thread, and again wherever a library has put its own in place.

    Args:
        at_once: the program can be ended anywhere, by Stopped, while nobody looks for signals: before the first batch,
            or where the next one does not come. Where not even that helps, and at a second Ctrl-C, this is called with
            the reason and a text for people, writes down the state, and returns the exit code for the process to end.
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
    for number in handled():
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def installed() -> bool:
    """True if this process, or the one it was forked from, has the handlers."""
    return _installed_by != 0


def keep() -> None:
    """Take the signals back, if they were ours, from a library that has taken them without Python knowing.

    LLVM does so when Triton loads it, at the first compiled kernel or earlier, and then drops every SIGUSR1.
    """
    if installed():
        put_in_place()


def put_in_place() -> None:
    """Install the handlers alone: also for a DataLoader worker that was not forked and so has none."""
    for number in handled():
        signal.signal(number, _note)


def handled() -> list[signal.Signals]:
    """The signals in REASONS, without SIGHUP where it is ignored: nohup, or a shell, wants the program to continue."""
    numbers = list(REASONS)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    return numbers


def end_workers() -> None:
    """End the DataLoader workers that are left at exit; multiprocessing would send them SIGTERM and wait for ever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def received() -> str | None:
    """Return why the run has been asked to end, or None. The first signal counts. Who asks acts on the answer."""
    global _looked, _acted
    _looked = True
    _acted = _acted or _received is not None
    return _received


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let the block finish, however long it takes: a checkpoint that is being written is worth waiting for."""
    global _busy
    _busy = True
    try:
        yield
    finally:
        _busy = False


def stop(reason: str) -> None:
    """End the run at its next batch, as a signal would; `reason` is one of the values of REASONS."""
    global _received
    _received = _received or reason


def reset() -> None:
    """Forget what was received: for a program that trains several times in one process."""
    global _received, _looked, _acted, _impatient
    _received, _looked, _acted, _impatient = None, False, False, False


def _note(number: int, frame: FrameType | None) -> None:
    """The handler: note the reason; end the process at a second Ctrl-C, or if there is nothing to wait for."""
    global _received
    first, again = _received is None, _received == "interrupted"
    _received = _received or REASONS[signal.Signals(number)]

    # A DataLoader worker: its parent decides.
    if os.getpid() != _installed_by:
        return

    if number == signal.SIGINT and again and not _impatient:
        os._exit(130 if _at_once is None else _at_once(_received, "ended at once by a second Ctrl-C"))

    # Before the first batch there is nothing to save, and after a long wait for the next one nothing can be.
    if _at_once is not None and not _busy and (_impatient or not _looked):
        _stop_here()
        return

    message = f"{signal.Signals(number).name}: the run saves and stops at its next batch"
    if number == signal.SIGINT:
        message += "; Ctrl-C again ends it at once, without saving"
    # os.write: print() can't be used in a handler, which may have interrupted another print().
    try:
        os.write(2, f"{message}\n".encode())
    except OSError:
        _leave_terminal()
    if first and _at_once is not None:
        _thread.start_new_thread(_lose_patience, (number,))  # takes no lock, which the main thread might hold


def _stop_here() -> None:
    """Raise Stopped where the main thread is: once, since it may come here again while it ends."""
    global _acted
    if not _acted and _received is not None:
        _acted = True
        raise Stopped(_received)


def _lose_patience(number: int) -> None:
    """In a thread: let the handler raise Stopped if the run has not looked for long; if that does not help, end it."""
    global _impatient
    if _nobody_looks(PATIENCE):
        _impatient = True
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # a lock or a read that it waits in gives way

        # A library that waits, such as one that waits for other ranks, never gives the handler its turn.
        if _nobody_looks(PATIENCE / 6) and _received is not None and _at_once is not None:
            os._exit(_at_once(_received, f"ended without saving: no batch for {PATIENCE:.0f} s after the signal"))


def _nobody_looks(seconds: float) -> bool:
    """Wait; False as soon as the signal is acted on."""
    end = time.monotonic() + seconds
    while _busy or time.monotonic() < end:
        if _acted or _received is None:
            return False
        time.sleep(0.05)
    return not _acted


def _leave_terminal() -> None:
    """Let the output go nowhere: the terminal is closed, and each line would be an error."""
    terminal = os.fstat(2)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        status = os.fstat(descriptor)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == terminal.st_rdev:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def on_signal(callback: Callable[[signal.Signals], Any]) -> None:
    """Call a function, in the main thread, whenever one of the signals in REASONS arrives; the latest call counts."""
    for number in handled():
        signal.signal(number, lambda number, frame: callback(signal.Signals(number)))
