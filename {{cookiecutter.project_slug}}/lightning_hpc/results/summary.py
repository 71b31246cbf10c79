"""What is worth a column in a table of runs, and the table."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .rows import AFTER, Row

if TYPE_CHECKING:
    import pandas as pd

# Settings, and sections of them, that differ between runs without being a difference: the folder and the name say
# them, or where a copy is.
NOT_SHOWN = ("name", "runs_dir", "mirror")


class Summary:
    """Some runs, put together.

    Args:
        folders: the run folders, in the order of the table.
        rows: what is known of each.
    """

    def __init__(self, folders: Sequence[Path], rows: Sequence[Row]) -> None:
        self.folders = list(folders)
        self.rows = list(rows)

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
        return different | {key for key in asked_for if runs_with[key] < len(self.rows)}

    @cached_property
    def settings(self) -> list[str]:
        """Short keys of the settings that differ between the runs or were asked for, in the order of the files."""
        known = {key: None for row in self.rows for key in row.settings}
        asked_for = {key: None for row in self.rows for key in row.changes}
        columns = {key: None for key in known if key in self.different or key in asked_for} | asked_for

        hidden = set(NOT_SHOWN)
        if "trial" in columns and all(row.seed_is_trial() for row in self.rows):
            hidden.add("seed_everything")
        return [key for key in columns if key.partition(".")[0] not in hidden]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics in the table, in the order in which the runs have them."""
        return list({name: None for row in self.rows for name in row.metrics})

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a run, as `Results.table` describes it."""
        import pandas as pd

        columns: dict[str, list[Any]] = {"run": [folder.name for folder in self.folders]}
        columns["experiment"] = [folder.parent.name for folder in self.folders]
        cells = [row.cells() for row in self.rows]
        for name in ("state", "reason"):
            columns[name] = [cell[name] for cell in cells]

        for key in self.settings:
            columns[key] = [plain(row.setting(key)) for row in self.rows]
        for name in self.metrics:
            label = f"{name} (metric)" if name in columns or name in AFTER else name
            columns[label] = [row.metrics.get(name) for row in self.rows]
        for name in AFTER:
            label = f"{name} (status)" if name in columns else name
            columns[label] = [cell[name] for cell in cells]

        index = pd.Index([str(folder) for folder in self.folders], name="folder")
        return pd.DataFrame(columns, index=index)


def plain(value: Any) -> Any:
    """A setting as one cell: lists and mappings as text, since pandas can't compare or group them."""
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return value
