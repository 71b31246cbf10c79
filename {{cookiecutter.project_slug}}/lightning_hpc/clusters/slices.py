"""Slices: a run asks for short jobs and goes on from one to the next, so that SLURM can fit it into gaps.

`time` is then the whole time that a run takes, about; `slice` is the time limit of each of its jobs.
"""

import math
from collections.abc import Mapping
from typing import Any

from ..settings.errors import SettingsError
from .presets import seconds
from .resources import Resources

# SLURM counts in minutes, and may announce the end of a job up to a minute early; a start takes some of it too.
SHORTEST = 120


def cut_in_slices(given: dict[str, Any]) -> None:
    """Complete what is asked for where jobs are to be shorter than a run. One that fits into a slice is not cut.

    Args:
        given: keys of `Resources`, `seconds` among them where the time is known; changed in place.

    Raises:
        SettingsError: a slice is too short for anything, or the whole time is not known.
    """
    if "slice" not in given:
        return
    length = seconds(given["slice"])
    if length < SHORTEST:
        raise SettingsError(f"slice {given['slice']} is too short: ask for at least {SHORTEST // 60} minutes")
    if "seconds" not in given:
        raise SettingsError("slice: say the `time` too, which is then the whole time that a run takes, about")

    if length >= given["seconds"]:
        del given["slice"]
        return
    given["slice_seconds"] = length

    # A run may take as much time in all as if each of its jobs had the whole time.
    jobs = 1 + Resources.__dataclass_fields__["max_requeues"].default
    given.setdefault("max_requeues", jobs * math.ceil(given["seconds"] / length) - 1)


def job_limit(given: Mapping[str, Any]) -> tuple[str, int]:
    """The key that says how long one job may be, and how many seconds that is; 0 where nothing is said."""
    if "slice" in given:
        return "slice", given["slice_seconds"]
    return "time", given.get("seconds", 0)
