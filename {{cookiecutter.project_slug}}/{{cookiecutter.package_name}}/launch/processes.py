"""What agents need to know of processes: what a trial inherits, and what becomes of it when its agent is killed."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

GRACE = 600.0  # seconds that a run has to save and leave; the scheduler usually gives less and has the last word

# What tells a process that it is one of several tasks of a SLURM step. An agent is; its trial starts its own ranks, and
# Lightning must not wait for ranks that nobody starts.
TASKS = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP", "SLURM_TASKS_PER_NODE")

# Of Linux's prctl. Elsewhere a trial simply goes on when its agent is killed.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def trial_environment() -> dict[str, str]:
    """This process's environment for a trial: without SLURM's tasks, and with this Python first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(TASKS)}
    return kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def die_with_parent() -> None:
    """In a child, before it becomes another program: be asked to save and end when its parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended, so that they can be waited for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Process ids of a process's children that have not ended; none elsewhere than on Linux."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return [child for child in found if has_not_ended(child)]


def has_not_ended(pid: int) -> bool:
    """Whether a process is there and is no zombie, which only waits for its parent to ask for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> Iterator[int]:
    """Children, their children and so on, the youngest first."""
    for child in children(pid):
        yield from descendants(child)
        yield child
