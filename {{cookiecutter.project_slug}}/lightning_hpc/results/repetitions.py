"""Repetitions of the same run, over trials or folds, as one row: mean, standard deviation and number."""

from collections.abc import Sequence
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

    groups = repetitions(results, names)
    columns = {"n": groups.size()}
    for name in results.metrics:
        label = f"{name} (metric)" if f"{name} (metric)" in results.table else name
        if pd.api.types.is_numeric_dtype(results.table[label]):
            columns[label] = groups[label].mean()
            columns[f"{label}_sd"] = groups[label].std()
    return pd.DataFrame(columns).reset_index()


def repetitions(results: Results, names: Sequence[str]) -> "DataFrameGroupBy":
    """The table of the runs that are done, grouped by all settings but these.

    Args:
        results: the runs.
        names: trial, fold, or short keys of settings.

    Raises:
        SettingsError: there is no such setting.
    """
    for name in names:
        if not set(SHORT_NAMES.get(name, (name,))) & set(results.settings):
            near = did_you_mean(name, {*SHORT_NAMES, *results.settings})
            raise SettingsError(f"--over {name}: the runs don't differ in such a setting{near}")

    table = results.table[results.table["state"] == "done"]
    repeated = {key for name in names for key in SHORT_NAMES.get(name, (name,))}
    keys = ["experiment", *(key for key in results.settings if key not in repeated)]

    # A setting that some runs don't have is a combination of its own, not a reason to leave them out.
    return table.groupby(keys, dropna=False, sort=False)
