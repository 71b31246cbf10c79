"""Repetitions of the same run, over trials or folds, as one row: mean, standard deviation and number."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..settings.errors import SettingsError, did_you_mean
from .reading import Results

if TYPE_CHECKING:
    import pandas as pd
    from pandas.core.groupby import DataFrameGroupBy

# A trial is known by its number and sets the seed; a fold also stands in the run's settings for the data.
SHORT_NAMES = {"trial": ("trial", "seed_everything"), "fold": ("data.fold",)}


def over(results: Results, names: Sequence[str]) -> "pd.DataFrame":
    """Mean and sample standard deviation (of n − 1) of each metric over runs that differ only in these settings.

    Args:
        results: the runs. Only those that are done count: the others have not come to a result.
        names: trial, fold, or short keys of settings.

    Returns:
        one row for each combination of the other settings: experiment, settings, `n`, and for each metric METRIC and
        METRIC_sd; the deviation of a single run is NaN.

    Raises:
        SettingsError: there is no such setting.
    """
    import pandas as pd

    for name in names:
        if not set(SHORT_NAMES.get(name, (name,))) & set(results.settings):
            near = did_you_mean(name, {*SHORT_NAMES, *results.settings})
            raise SettingsError(f"--over {name}: the runs don't differ in such a setting{near}")

    groups = repetitions(results, names, "done")
    columns = {"n": groups.size()}
    for name in results.metrics:
        label = f"{name} (metric)" if f"{name} (metric)" in results.table else name
        if pd.api.types.is_numeric_dtype(results.table[label]):
            columns[label] = groups[label].mean()
            columns[f"{label}_sd"] = groups[label].std()
    return pd.DataFrame(columns).reset_index()


def repetitions(results: Results, names: Iterable[str], state: str | None = None) -> "DataFrameGroupBy":
    """The table of the runs, grouped by all settings but these.

    Args:
        results: the runs.
        names: trial, fold, or short keys of settings.
        state: only the runs in this state.
    """
    table = results.table
    if state is not None:
        table = table[table["state"] == state]

    # A setting that some runs don't have is a combination of its own, not a reason to leave them out.
    return table.groupby(["experiment", *other_settings(results, names)], dropna=False, sort=False)


def other_settings(results: Results, names: Iterable[str]) -> list[str]:
    """Short keys of all settings in the table but these, for which `trial` and `fold` may stand."""
    repeated = {key for name in names for key in SHORT_NAMES.get(name, (name,))}
    return [key for key in results.settings if key not in repeated]
