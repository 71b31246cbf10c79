"""Hyperband's early termination as W&B's sweeps have it: is a run among the better ones at the points of comparison?

A history is the list of the metric's values that a run has logged. With `min_iter: 3` and `eta: 3` runs are compared at
their values number 3, 9, 27, …: one whose best value so far is worse than the best third was there is stopped.
Source: Li et al., Hyperband, JMLR 2018; rules as in hyperband_stopping.py of W&B's `sweeps` package.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def bands(settings: Mapping[str, Any], most: int) -> list[int]:
    """The points of comparison up to `most` values, from the first on."""
    eta = settings.get("eta", 3)
    if "min_iter" in settings:
        found, band = [], settings["min_iter"]
        while band <= most:
            found.append(int(band))
            band *= eta
        return found
    back = [int(settings["max_iter"] / eta**step) for step in range(1, int(settings.get("s", 2)) + 1)]
    return sorted(band for band in back if 1 <= band <= most)


def should_stop(
    history: Sequence[float], others: Sequence[Sequence[float]], settings: Mapping[str, Any], maximize: bool
) -> bool:
    """Whether early termination ends a run.

    Args:
        history: its values so far.
        others: those of all other runs, ended or not.
        settings: `early_terminate` of the sweep's file.
        maximize: whether large values are good.
    """
    reached = [band for band in bands(settings, len(history)) if band < len(history)]
    if not reached:
        return False
    sign = -1 if maximize else 1
    there = sorted(sign * each[reached[-1]] for each in [history, *others] if len(each) > reached[-1])
    return min(sign * value for value in history) > there[int(len(there) / settings.get("eta", 3))]
