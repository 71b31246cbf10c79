"""Packed jobs: what a job asks for that several runs share, and which runs can't share one."""

from typing import Any

from ..settings.errors import SettingsError
from .presets import Preset


def complete_pack(preset: Preset, given: dict[str, Any]) -> None:
    """Complete what a job of several runs asks for: one process for each, and a CPU at least.

    Args:
        preset: the cluster.
        given: keys of `Resources` and options of sbatch; changed in place.

    Raises:
        SettingsError: such runs can't share a job.
    """
    size = given.get("pack", 1)
    if size == 1:
        return
    for key, what in (("nodes", "over several nodes"), ("tasks", "of several processes")):
        if given.get(key, 1) > 1:
            raise SettingsError(f"pack {size}: runs {what} can't share a job, set {key} to 1 or leave pack out")
    given["tasks"] = 1

    gpus = given.get("gpus", 0)
    if gpus and size % gpus:
        raise SettingsError(
            f"pack {size}: {size} runs can't be spread evenly over {gpus} GPUs, and a run has one: set gpus to 1, or "
            f"pack to a multiple of {gpus}"
        )

    come_with_gpus = gpus and (preset.cpus_per_gpu or preset.share_follows_gpus or "cpus-per-gpu" in given)
    if come_with_gpus:
        return
    if given.setdefault("cpus", size) < size:
        raise SettingsError(
            f"pack {size}: {given['cpus']} CPUs are fewer than runs, which share them: set cpus to {size} or more"
        )
