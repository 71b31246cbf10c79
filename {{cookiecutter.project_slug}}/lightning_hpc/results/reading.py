"""Results of many runs: one table with a row for each run, and one with all their curves.

    results = read("runs/wide", "runs/deep")
    results.table                       # pandas: a row a run
    results.curves                      # pandas: run, step, epoch, seconds, metric, value
    read(where="`val/acc` > 0.9")       # the query language of pandas; names with / or . stand in backquotes

The folders are the truth: nothing is asked of SLURM or W&B, and runs may be going on meanwhile.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import Flat
from .curves import read_curves
from .run_files import (
    CONFIG,
    EVALUATIONS,
    METRICS,
    OVERLAY,
    STATUS,
    RunFiles,
    Signature,
    find_runs,
    read_runs,
    signatures,
)
from .similar_yaml import SimilarFiles

if TYPE_CHECKING:
    import pandas as pd

FILES = (STATUS, CONFIG, OVERLAY, *EVALUATIONS)

# Columns behind a run's settings and metrics, from status.json.
AFTER = (
    "step", "epoch", "monitor", "best", "seconds", "attempt", "host", "slurm_job", "started", "updated", "commit",
    "uncommitted_changes", "identity", "lightning_hpc", "command",
)  # fmt: skip

# Settings that differ between all runs without being a difference: the folder and the name say them already.
NOT_SHOWN = ("name", "runs_dir")

# What evaluations note about themselves.
NO_METRICS = ("checkpoint", "step", "epoch", "time")

# Folder → what was read of it, and when: a second look reads only what has changed.
_known: dict[Path, tuple[Signature, "Row"]] = {}
_yaml = {CONFIG: SimilarFiles(), OVERLAY: SimilarFiles()}


class Row:
    """What is known of one run.

    Attributes:
        status: fields of status.json.
        settings: all settings, resolved, as short keys.
        changes: those that were asked for.
        metrics: the newest values, and those of the evaluations.
        reason: why something of it can't be read; None if all can.
    """

    def __init__(self, files: RunFiles) -> None:
        self.reason = files.reason
        self.status = self._read_json(files, STATUS)
        self.settings = self._read_yaml(files, CONFIG)
        self.changes = self._read_yaml(files, OVERLAY)
        self.metrics: dict[str, Any] = {}

        newest = self.status.get("metrics")
        if isinstance(newest, Mapping):
            self.metrics |= newest
        for name in EVALUATIONS:
            evaluation = self._read_json(files, name)
            self.metrics |= {key: value for key, value in evaluation.items() if key not in NO_METRICS}

    def _read_json(self, files: RunFiles, name: str) -> dict[str, Any]:
        """A file that holds an object; {} with a reason if it does not."""
        text = files.texts.get(name)
        if text is None:
            return {}
        try:
            content = json.loads(text)
        except ValueError as error:
            self.reason = f"{name} can't be read: {error}"
            return {}
        if not isinstance(content, dict):
            self.reason = f"{name} can't be read: it holds no object"
            return {}
        return content

    def _read_yaml(self, files: RunFiles, name: str) -> Flat:
        """A file of settings; {} with a reason if it is none."""
        text = files.texts.get(name)
        if text is None:
            return {}
        try:
            return _yaml[name].read(text)
        except ValueError as error:
            self.reason = f"{name} can't be read: {error}"
            return {}

    def seed_is_trial(self) -> bool:
        """True if the seed says nothing that the trial does not say."""
        return self.settings.get("seed_everything", 0) == self.changes.get("trial", 0)

    def cells(self) -> dict[str, Any]:
        """Its columns that come from status.json. What can't be read is `unknown`, which is neither done nor failed."""
        status = self.status
        state = status.get("state") or ("unknown" if self.reason else "not started")
        reason = self.reason or status.get("reason")
        return dict(state=state, reason=reason) | {name: status.get(name) for name in AFTER}


class Results:
    """What runs have come to: `table` has one row a run, `curves` one row for each value that was logged.

    Args:
        folders: the run folders, in the order of the table.
        rows: what is known of each.
    """

    def __init__(self, folders: Sequence[Path], rows: Sequence[Row]) -> None:
        self.folders = list(folders)
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.folders)

    @cached_property
    def different(self) -> set[str]:
        """Short keys of the settings that have several values, or were asked for in some runs and are not in others."""
        first: dict[str, Any] = {}
        runs_with: Counter[str] = Counter()
        different, asked_for = set(), set()

        for row in self.rows:
            asked_for.update(row.changes)
            settings = row.changes | row.settings
            runs_with.update(settings.keys())
            for key, value in settings.items():
                if key not in first:
                    first[key] = value
                elif value is not first[key] and value != first[key]:
                    different.add(key)

        # Another class has other settings. That is no difference to look at, unless somebody has asked for it.
        return different | {key for key in asked_for if runs_with[key] < len(self)}

    @cached_property
    def settings(self) -> list[str]:
        """Short keys of the settings that differ between the runs or were asked for, in the order of the files."""
        known = {key: None for row in self.rows for key in row.settings}
        asked_for = {key: None for row in self.rows for key in row.changes}
        columns = {key: None for key in known if key in self.different or key in asked_for} | asked_for

        hidden = set(NOT_SHOWN)
        if "trial" in columns and all(row.seed_is_trial() for row in self.rows):
            hidden.add("seed_everything")
        return [key for key in columns if key not in hidden]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics in the table, in the order in which the runs have them."""
        return list({name: None for row in self.rows for name in row.metrics})

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a run, by its folder: experiment, state, reason, settings, metrics, and the rest of status.json.

        A setting is one that differs between the runs or that somebody has asked for, under its short key. A metric is
        its newest value, or the one of `test` and `validate`, under its own name. Where a metric is called like a
        setting, " (metric)" is added to it.
        """
        import pandas as pd

        columns: dict[str, list[Any]] = {"run": [folder.name for folder in self.folders]}
        columns["experiment"] = [folder.parent.name for folder in self.folders]
        cells = [row.cells() for row in self.rows]
        for name in ("state", "reason"):
            columns[name] = [cell[name] for cell in cells]

        for key in self.settings:
            columns[key] = [plain(row.settings.get(key, row.changes.get(key))) for row in self.rows]
        for name in self.metrics:
            label = f"{name} (metric)" if name in columns or name in AFTER else name
            columns[label] = [row.metrics.get(name) for row in self.rows]
        for name in AFTER:
            label = f"{name} (status)" if name in columns else name
            columns[label] = [cell[name] for cell in cells]

        index = pd.Index([str(folder) for folder in self.folders], name="folder")
        return pd.DataFrame(columns, index=index)

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
        folders: folders of experiments, an experiment's folder or a run's; without any, runs/ here.
        experiment: only runs of the experiment with this name.
        where: only runs for which this query of pandas is true.
        last: only so many, those that were started last.

    Raises:
        SettingsError: a folder is not there, or the query is none.
    """
    places = [Path(folder) for folder in folders or ("runs",)]
    for place in places:
        if not place.is_dir():
            raise SettingsError(f"there is no folder {place}: name the folder of your runs or of an experiment")

    found = find_runs(places)
    if experiment is not None:
        found = [folder for folder in found if folder.parent.name == experiment]

    results = Results(found, rows_of(found))
    if where is not None:
        results = results.where(where)
    if last is not None:
        results = results.last(last)
    return results


def rows_of(folders: Sequence[Path]) -> list[Row]:
    """What is known of each folder; those whose files are as they were are not read again."""
    marks = signatures(folders, FILES)
    changed = []
    for folder, mark in zip(folders, marks, strict=True):
        known = _known.get(folder)
        if known is None or known[0] != mark:
            changed.append(folder)

    # The signature was taken before reading: what changes in between is read again at the next look.
    marks_of = dict(zip(folders, marks, strict=True))
    for files in read_runs(changed, FILES):
        _known[files.folder] = (marks_of[files.folder], Row(files))
    return [_known[folder][1] for folder in folders]


def plain(value: Any) -> Any:
    """A setting as one cell: lists and mappings as text, since pandas can't compare or group them."""
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return value
