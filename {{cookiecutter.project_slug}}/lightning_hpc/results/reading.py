"""Results of many runs: one table with a row for each run, and one with all their curves.

    results = read("runs/wide", "runs/deep")
    results.table                       # pandas: a row a run
    results.curves                      # pandas: run, step, epoch, seconds, metric, value
    read(where="`val/acc` > 0.9")       # the query language of pandas; names with / or . stand in backquotes

The folders are the truth: nothing is asked of SLURM or W&B, and runs may be going on meanwhile.
"""

import operator
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.errors import SettingsError, did_you_mean
from ..settings.places import here_or_in_project
from .curves import read_curves
from .rows import Row, rows_of
from .run_files import METRICS, find_runs, read_runs
from .summary import Summary

if TYPE_CHECKING:
    import pandas as pd

# What was read last: looked at again, and unchanged, it need not be put together anew.
_latest: Summary | None = None


class Results:
    """What runs have come to: `table` has one row a run, `curves` one row for each value that was logged.

    Args:
        folders: the run folders, in the order of the table.
        rows: what is known of each.
    """

    def __init__(self, folders: Sequence[Path], rows: Sequence[Row]) -> None:
        self.summary = Summary(folders, rows)

    def __len__(self) -> int:
        return len(self.folders)

    @property
    def folders(self) -> list[Path]:
        """The run folders, in the order of the table."""
        return self.summary.folders

    @property
    def rows(self) -> list[Row]:
        """What is known of each run."""
        return self.summary.rows

    @property
    def different(self) -> set[str]:
        """Short keys of the settings that have several values, or were asked for in some runs and are not in others."""
        return self.summary.different

    @property
    def settings(self) -> list[str]:
        """Short keys of the settings that differ between the runs or were asked for, in the order of the files."""
        return self.summary.settings

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics in the table, in the order in which the runs have them."""
        return self.summary.metrics

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a run, by its folder: experiment, state, reason, settings, metrics, and the rest of status.json.

        A setting is one that differs between the runs or that somebody has asked for, under its short key. A metric is
        its newest value, or the one of `test` and `validate`, under its own name. Where a metric is called like a
        setting, " (metric)" is added to it.
        """
        return self.summary.table.copy()  # the summary may serve again, and this one may be changed

    @property
    def curves(self) -> "pd.DataFrame":
        """All logged values: run (its folder), step, epoch, seconds, metric, value; none of broken files."""
        return self._curves[0]

    @property
    def without_curves(self) -> dict[str, str]:
        """Run (its folder) → why its metrics.csv can't be read."""
        return self._curves[1]

    @cached_property
    def _curves(self) -> tuple["pd.DataFrame", dict[str, str]]:
        texts = {}
        for files in read_runs(self.folders, [METRICS]):
            if METRICS in files.texts:
                texts[str(files.folder)] = files.texts[METRICS]
        return read_curves(texts)

    def where(self, query: str) -> "Results":
        """Only the runs for which a query of pandas is true, such as "state == 'done' and `val/acc` > 0.9".

        Raises:
            SettingsError: the query is none, or names a column that is not there.
        """
        for name in re.findall("`([^`]+)`", query):
            if name not in self.table.columns:
                near = did_you_mean(name, [str(column) for column in self.table.columns])
                raise SettingsError(f"--where {query!r}: there is no column {name}{near}")

        try:
            chosen = self.table.query(query).index
        except Exception as error:  # pandas raises whatever its parser and numpy raise
            raise SettingsError(f"--where {query!r}: {' '.join(str(error).split())}") from None
        return self._only(set(chosen))

    def last(self, count: int) -> "Results":
        """Only the `count` runs that were started last."""
        order = sorted(range(len(self)), key=lambda number: str(self.rows[number].status.get("started") or ""))
        return self._only({str(self.folders[number]) for number in order[max(0, len(order) - count) :]})

    def _only(self, chosen: set[str]) -> "Results":
        pairs = [pair for pair in zip(self.folders, self.rows, strict=True) if str(pair[0]) in chosen]
        return Results([folder for folder, _ in pairs], [row for _, row in pairs])


def read(
    *folders: str | Path, experiment: str | None = None, where: str | None = None, last: int | None = None
) -> Results:
    """Read the results of runs as `Results`, whose `table` and `curves` are tables of pandas.

    Args:
        folders: folders of experiments, an experiment's folder or a run's; without any, runs/. They count from the
            working folder, or else from the project's.
        experiment: only runs of the experiment with this name.
        where: only runs for which this query of pandas is true.
        last: only so many, those that were started last.

    Raises:
        SettingsError: a folder is not there, or the query is none.
    """
    places = [here_or_in_project(folder) for folder in folders or ("runs",)]
    for place in places:
        if not place.is_dir():
            raise SettingsError(f"there is no folder {place}: name the folder of your runs or of an experiment")

    found = find_runs(places)
    if experiment is not None:
        found = [folder for folder in found if folder.parent.name == experiment]

    results = results_of(found)
    if where is not None:
        results = results.where(where)
    if last is not None:
        results = results.last(last)
    return results


def results_of(folders: list[Path]) -> Results:
    """The results of these runs; those of the last look at them, if nothing has changed since then."""
    global _latest

    results = Results(folders, rows_of(folders))
    is_same = _latest is not None and _latest.folders == folders and all(map(operator.is_, results.rows, _latest.rows))
    if is_same:
        results.summary = _latest
    _latest = results.summary
    return results
