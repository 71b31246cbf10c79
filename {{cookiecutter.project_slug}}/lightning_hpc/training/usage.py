"""How busy a run's cores and GPU are: one that leaves them idle waits for its data, or is too small for them."""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..processes import descendants

EVERY = 1.0  # seconds between two looks at the GPU; it remembers about as much, so that none of its time is missed


class Usage:
    """Measures from `start` to `values`, which are means over that time."""

    def __init__(self) -> None:
        self.gpu: list[int] = []
        self.gpu_tells = True

    def start(self) -> None:
        """Begin to measure."""
        self.began, self.cpu_began = time.monotonic(), cpu_seconds()
        self.gpu, self.looked_at = [], 0.0

    def look(self, device: torch.device) -> None:
        """Ask the GPU how busy it is, if the last time was some while ago; to be called at each batch.

        Args:
            device: what the model is on.
        """
        if device.type != "cuda" or not self.gpu_tells:
            return
        now = time.monotonic()
        if now - self.looked_at < EVERY:
            return
        self.looked_at = now
        try:
            self.gpu.append(torch.cuda.utilization(device))
        except Exception:  # no nvidia-ml-py, a part of a GPU (MIG), a driver that says nothing: all different errors
            self.gpu_tells = False

    def values(self) -> dict[str, float]:
        """Per cent since `start`: of the cores that the run may use, and of the GPU where it tells.

        100 is all cores, by this process and those that it has started, such as DataLoader workers.
        """
        seconds = max(time.monotonic() - self.began, 1e-9)
        values = {"usage/cpu_percent": 100 * (cpu_seconds() - self.cpu_began) / seconds / cores()}
        if self.gpu:
            values["usage/gpu_percent"] = sum(self.gpu) / len(self.gpu)
        return values


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has started, also if they have ended by now."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # it has just ended
            # The name, in brackets, may hold anything; user, system, and those of its own ended children follow.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> float:
    """The most memory that this process has had so far, in GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts it in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def batch_size(batch: Any) -> int:
    """Samples in a batch: the first dimension of the first tensor in it; 1 if there is none."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple) and batch:
        return batch_size(batch[0])
    return 1
