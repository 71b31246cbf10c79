"""What the page of all runs is made of: columns of the table, curves, CKA maps, groups of repetitions.

A page of ten thousand runs must stay a file that can be mailed, so curves and maps share a budget: what is most looked
at comes first, and the page says what was left out.
"""

import datetime
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..printing import BESIDE
from ..results.reading import Results
from ..results.repetitions import SHORT_NAMES, other_settings, repetitions
from ..results.rows import AFTER, Row
from ..results.summary import plain
from .pictures import pick_curves, pick_maps, short

if TYPE_CHECKING:
    import pandas as pd

NOT_IN_PAGE = ("uncommitted_changes", "lightning_hpc", "slurm_job", "identity")


def page_content(results: Results, title: str, made: str) -> dict[str, Any]:
    """Everything that the page shows, as plain data for JSON.

    Args:
        results: the runs.
        title: the page's heading.
        made: a line for the foot of the page: when and how it was made.
    """
    table = results.table
    groups, group_names = groups_of_runs(results)
    order = by_interest(table)
    curves = pick_curves(results, order)

    monitored = table["monitor"].dropna()
    return dict(
        title=title,
        made=made,
        hours=hours_used(table),
        several_experiments=table["experiment"].nunique() > 1,
        columns=[column_of(table, name, results) for name in table.columns if name not in NOT_IN_PAGE],
        shown=first_shown(results),
        monitor=None if monitored.empty else str(monitored.mode()[0]),
        same=same_settings(results),
        groups=groups,
        group_names=group_names,
        maps=pick_maps(results, order),
        **curves,
    )


def column_of(table: "pd.DataFrame", name: str, results: Results) -> dict[str, Any]:
    """One column: name, group (status, setting or metric) and cells; texts that repeat are kept once."""
    values = [cell_of(value) for value in table[name].tolist()]
    column: dict[str, Any] = dict(name=name, group=group_of(name, results))

    # JSON has no word for NaN and infinity, and pandas has none for a missing cell but NaN.
    special: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            values[place] = None
            if not (math.isnan(value) and is_missing(results.rows[place], name)):
                special.setdefault(str(value), []).append(place)
    if special:
        column["special"] = special

    texts = {value: None for value in values if isinstance(value, str)}
    if texts and len(texts) * 2 < len(values) and all(value is None or isinstance(value, str) for value in values):
        codes = {text: code for code, text in enumerate(texts)}
        column["texts"] = list(texts)
        values = [None if value is None else codes[value] for value in values]
    column["values"] = values
    return column


def group_of(name: str, results: Results) -> str:
    """What a column is: a setting, a metric, or something else that status.json says."""
    if name in results.settings:
        return "setting"
    if name.removesuffix(" (metric)") in results.metrics and name not in AFTER:
        return "metric"
    return "status"


def is_missing(row: Row, name: str) -> bool:
    """True if a run has no value in a column, as opposed to one that is NaN, for which status.json has null."""
    if name.removesuffix(" (metric)") in row.metrics:
        return False
    return row.setting(name) is None


def cell_of(value: Any) -> Any:
    """A cell as JSON has it: numbers with the digits that count, everything unknown as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return short(value)
    if hasattr(value, "item"):  # a scalar of NumPy
        return cell_of(value.item())
    return str(value)


def first_shown(results: Results) -> list[str]:
    """Columns that the table shows at first: which run, how it stands, what differs, and its results."""
    table = results.table
    names = ["run", "state"]
    if table["experiment"].nunique() > 1:
        names.insert(1, "experiment")
    if table["reason"].notna().any():
        names.append("reason")

    names += [name for name in results.settings if name in results.different or len(results) == 1]
    metrics = [name for name in table.columns if group_of(name, results) == "metric"]
    names += [name for name in metrics if not name.startswith(BESIDE)] or metrics[:4]
    return names


def hours_used(table: "pd.DataFrame") -> str:
    """How long the runs have trained, all together."""
    import pandas as pd

    minutes = pd.to_numeric(table["seconds"], errors="coerce").sum() / 60
    if minutes < 100:
        return f"{minutes:.1f} minutes of training."
    return f"{minutes / 60:.1f} hours of training."


def same_settings(results: Results) -> dict[str, Any]:
    """Settings that have one value in all runs."""
    if not len(results):
        return {}
    first = results.rows[0].settings
    return {key: cell_of(plain(value)) for key, value in first.items() if key not in results.different}


def groups_of_runs(results: Results) -> tuple[list[int], dict[int, str]]:
    """Which runs differ only in trial, fold or seed.

    Returns:
        for each run the number of its group, and for each group of several what they have in common, for a person.
    """
    groups = repetitions(results, SHORT_NAMES).ngroup().tolist()
    shown = [key for key in other_settings(results, SHORT_NAMES) if key in results.different]

    names: dict[int, str] = {}
    sizes = Counter(groups)
    for number, folder, row in zip(groups, results.folders, results.rows, strict=True):
        if sizes[number] > 1 and number not in names:
            words = [f"{key.rpartition('.')[2]}={row.setting(key)}" for key in shown]
            names[number] = " ".join([folder.parent.name, *words])
    return groups, names


def by_interest(table: "pd.DataFrame") -> list[int]:
    """Rows in the order in which they are looked at: those with a best value before the others, newest first."""
    started = table["started"].fillna("").astype(str).tolist()
    has_result = table["best"].notna().tolist()
    return sorted(range(len(table)), key=lambda row: (has_result[row], started[row]), reverse=True)


def now() -> str:
    """The time here, for the foot of the page."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
