"""What follows from the resources that a job gets: what it may cost, and on how many devices it trains."""

import math
from collections.abc import Mapping
from typing import Any

from ..printing import counted
from ..settings.errors import SettingsError
from .resources import Resources


def cost(count: int, resources: Resources) -> str:
    """What the runs may use at most: `108 runs × 2 GPUs × 12 h = 2,592 GPU-hours at most, 10 at a time`.

    In slices the time is an estimate, since a run goes on from one to the next until it is done.
    Runs that share a job are paid for once: `1000 runs, 4 runs per job: 250 jobs × 1 GPU × 12 h = …`.
    """
    runs = counted(count, "run")
    if resources.pack > 1:
        runs, count = in_packs(count, resources.pack), math.ceil(count / resources.pack)
    limited = resources.throttle and resources.throttle < count
    at_once = f", {resources.throttle} at a time" if limited else ""
    gpus = resources.gpus * resources.nodes
    if resources.seconds is None:
        return f"{runs} × {counted(gpus, 'GPU')}, as long as the partition allows{at_once}"

    hours = resources.seconds / 3600
    what, number = "GPU", gpus
    if not gpus:
        what, number = "CPU", resources.nodes * resources.tasks * (resources.cpus or 1)
    total = count * number * hours
    used = f"{rounded(total)} {what}-hour{'s' * (rounded(total) != '1')}"
    share = f"{counted(number, what)} × {rounded(hours)} h"
    if not resources.slice_seconds:
        return f"{runs} × {share} = {used} at most{at_once}"
    length, number = resources.slice_seconds / 3600, math.ceil(resources.seconds / resources.slice_seconds)
    slices = f"in slices of {rounded(length)} h, about {number} a run"
    return f"{runs} × {share} = {used} as estimated, {slices}{at_once}"


def in_packs(count: int, size: int) -> str:
    """How many jobs some runs share: `1000 runs, 4 runs per job: 250 jobs`."""
    jobs = math.ceil(count / size)
    return f"{counted(count, 'run')}, {size} runs per job: {counted(jobs, 'job')}"


def rounded(number: float) -> str:
    """A number of hours with three digits or more: 0.0167, 12.5, 11,520."""
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def trainer_settings(resources: Resources, settings: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """trainer.devices and trainer.num_nodes as the resources want them, where the settings say otherwise.

    Args:
        resources: what SLURM will give.
        settings: the experiment's own settings.
        asked: the resources as they were asked for, without the preset's defaults.

    Raises:
        SettingsError: the settings say another number than the resources; only one side may, or both the same.
    """
    changed = {}
    devices_and_nodes = (
        ("trainer.devices", resources.tasks, ("gpus", "tasks")),
        ("trainer.num_nodes", resources.nodes, ("nodes",)),
    )
    for key, number, names in devices_and_nodes:
        said = settings.get(key, 1)
        if resources.pack > 1 and isinstance(said, int) and said > 1:
            raise SettingsError(
                f"pack {resources.pack}: {key} is {said}, and a run that shares a job has one process: set it to 1 or "
                "leave pack out"
            )

        # 1 counts as nothing said: files for a single device say it, whatever the resources are.
        contradicts = isinstance(said, int) and said not in (1, number)
        if contradicts and any(name in asked for name in names):
            raise SettingsError(
                f"{key} is {said}, but the resources give {number} ({' or '.join(names)}): say one of them"
            )
        if said != number:
            changed[key] = number
    return changed
