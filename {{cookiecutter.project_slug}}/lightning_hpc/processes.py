"""Other processes: programs that are started and told of signals, and who has started whom."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from . import signals
from .signals import REASONS

GRACE = 600.0  # seconds that a run has to save and leave; the scheduler usually gives less and has the last word

# Linux's prctl, looked up before a fork. Elsewhere a child simply continues when its parent is killed.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

# What tells a process that it is one of several tasks of a SLURM step. An agent is; its trial starts its own ranks, and
# Lightning must not wait for ranks that nobody starts.
TASKS = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP", "SLURM_TASKS_PER_NODE")

# What every ssh is told, beside the user's own configuration. Nothing of this machine's comes with it: no agent, no
# forwarding, no terminal. A host that says nothing for a minute has gone.
SSH_OPTIONS = (
    "-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no",
    "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
)  # fmt: skip

LOOK = 0.5  # seconds between two looks at whether a child's grace is over


class Child:
    """A program that this process starts and waits for. After `with Child(...) as child:` it is killed if still there.

    Args:
        command: the program and its arguments.
        environment: its environment; None: that of this process.
        own_group: start it in a process group of its own, which a terminal's Ctrl-C and keys do not reach. Ctrl-C that
            is handed on would otherwise reach it twice, and the second one means "at once, without saving".
        dies_with_parent: ask it to save and end when this process is killed.
        grace: seconds that it has after a signal was handed on; then it is killed.
        output: the file that gets what it prints; None: it prints where this process does.
        warm: a warm parent (warm/), which forks the program if it can; own_group is as the parent's then.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        own_group: bool = True,
        dies_with_parent: bool = True,
        grace: float = GRACE,
        output: IO[Any] | None = None,
        warm: Any = None,
    ) -> None:
        self.grace = grace
        self.reason: str | None = None  # of the first signal that was handed on
        self.deadline: float | None = None  # when its grace is over
        forked = None
        if warm is not None:
            forked = warm.fork(command, os.environ if environment is None else environment)
        self.process = forked or subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL if own_group else None,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            process_group=0 if own_group else None,
            preexec_fn=die_with_parent if dies_with_parent else None,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def hand_on(self, number: signal.Signals) -> None:
        """Hand on a signal that this process has received. The first one starts the grace."""
        if self.reason is None:
            self.reason, self.deadline = REASONS[number], time.monotonic() + self.grace
        self.send(number)

    def kill(self) -> None:
        """Kill it, with all that it has started."""
        for pid in descendants(self.pid):
            kill(pid)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended; once its grace is over, it is killed.

        Args:
            timeout: seconds to wait; None: to its end.

        Returns:
            its exit code, negative if a signal ended it; None if it is still running.
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(max(0.0, min(LOOK, end - time.monotonic())))

            # A handler may have set the deadline in the meantime.
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.kill()
            if time.monotonic() >= end:
                return None

    def exit_code(self, codes: Mapping[str, int]) -> int:
        """Return what this process ends with, after its child has ended.

        Args:
            codes: exit code for each reason: EXIT_CODES in runs/folder.py.
        """
        code = self.process.returncode
        if code >= 0:
            return code

        # It was ended before it could take notice of the signal.
        if self.reason is not None:
            return codes[self.reason]
        return 128 - code  # as a shell says that a signal has ended a program

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self.process.wait()


def wait_and_hand_on(child: Child) -> None:
    """Wait for a child that is in the process group of this process, and hand on the signal that is to stop both."""
    while child.wait(0.2) is None:
        reason = signals.received()
        # A terminal's Ctrl-C reaches all processes in it, so it is not handed on.
        if reason in (None, "interrupted") or child.reason is not None:
            continue
        child.hand_on(next(number for number in REASONS if REASONS[number] == reason))


def is_other_rank() -> bool:
    """True if a launcher has started several processes and this is not the first of them."""
    rank = os.environ.get("SLURM_PROCID") or os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0
    return int(rank) != 0


def trial_environment() -> dict[str, str]:
    """Return this process's environment for a trial: without SLURM's tasks, and with this Python first."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(TASKS)}
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return environment | {"PATH": os.pathsep.join(folders), "LIGHTNING_HPC_TRIAL": "1"}


def die_with_parent() -> None:
    """In a child, before it becomes another program: be asked to save and end when its parent is killed."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended, so that they can be waited for."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children that have not ended; none elsewhere than on Linux."""
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids += map(int, task.read_text().split())
    return [pid for pid in pids if has_not_ended(pid)]


def has_not_ended(pid: int) -> bool:
    """True if a process is there and is no zombie, which only waits for its parent to ask for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> Iterator[int]:
    """Yield children, their children and so on, the youngest first."""
    for child in children(pid):
        yield from descendants(child)
        yield child
