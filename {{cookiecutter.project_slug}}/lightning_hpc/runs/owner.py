"""Whose attempt at a run a process is: of which job, and how often that job has been started."""

import os
import socket
from typing import Any


def restarts() -> int:
    """How often this job has been put back into the queue by itself: 0 for a job that somebody has submitted."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("RESUBMITTED") or 0)


def first_job() -> str | None:
    """The job that somebody has submitted, also in a job that was submitted anew because requeue is forbidden."""
    return os.environ.get("RESUBMITTED_FROM") or os.environ.get("SLURM_JOB_ID")


def owner() -> dict[str, Any]:
    """Whose attempt this process is, as status.json notes it: a job and its restart, or a host and a process."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "restarts": restarts(),
    }


class TakenOver(RuntimeError):
    """Another attempt has begun in this one's folder, so this one may write there no more."""
