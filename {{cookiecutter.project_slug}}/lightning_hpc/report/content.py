"""What the page of all runs is made of: columns of the table, curves, CKA maps, groups of repetitions.

A page of ten thousand runs must stay a file that can be mailed, so curves and maps share a budget: what is most looked
at comes first, and the page says what was left out.
"""

import datetime
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results.reading import AFTER, Results, Row, plain
from ..results.repetitions import SHORT_NAMES

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 5  # that count, of a number in the page
MOST_VALUES = 250_000  # of curves, about a megabyte
MOST_POINTS = 200  # of one curve: as many as a chart has room for
FIRST_RUNS = 200  # runs whose curves of every metric are in the page, if the budget lasts; others: of the monitored one
MOST_MAP_CELLS = 100_000
NOT_IN_PAGE = ("uncommitted_changes", "lightning_hpc", "slurm_job", "identity")
AXES = ("step", "epoch", "seconds")
BESIDE = ("train/", "time/", "memory/", "cka/")  # metrics that are looked for less often than those of evaluations


def page_content(results: Results, title: str, made: str) -> dict[str, Any]:
    """Everything that the page shows, as plain data for JSON.

    Args:
        results: the runs.
        title: the page's heading.
        made: a line for the foot of the page: when and how it was made.
    """
    table = results.table
    groups, group_names = repetitions(results)
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
    return row.settings.get(name, row.changes.get(name)) is None


def cell_of(value: Any) -> Any:
    """A cell as JSON has it: numbers with the digits that count, everything unknown as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return short(value)
    if hasattr(value, "item"):  # a scalar of NumPy
        return cell_of(value.item())
    return str(value)


def short(value: float) -> float | int:
    """A number with DIGITS digits that count; a whole number without its point."""
    if not math.isfinite(value):
        return value
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


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

    seconds = pd.to_numeric(table["seconds"], errors="coerce").sum()
    return f"{seconds / 3600:.1f} hours of training."


def same_settings(results: Results) -> dict[str, Any]:
    """Settings that have one value in all runs."""
    if not len(results):
        return {}
    first = results.rows[0].settings
    return {key: cell_of(plain(value)) for key, value in first.items() if key not in results.different}


def repetitions(results: Results) -> tuple[list[int], dict[int, str]]:
    """Which runs differ only in trial, fold or seed.

    Returns:
        for each run the number of its group, and for each group of several what they have in common, for a person.
    """
    repeated = {"seed_everything", *(key for keys in SHORT_NAMES.values() for key in keys)}
    keys = [key for key in results.settings if key not in repeated]
    shown = [key for key in keys if key in results.different]
    numbers: dict[tuple[str, ...], int] = {}
    groups: list[int] = []
    names: dict[int, str] = {}

    for folder, row in zip(results.folders, results.rows, strict=True):
        values = {key: row.settings.get(key, row.changes.get(key)) for key in keys}
        number = numbers.setdefault((folder.parent.name, *map(repr, values.values())), len(numbers))
        if number < len(numbers) - 1 or number in groups[-1:]:
            words = [f"{key.rpartition('.')[2]}={values[key]}" for key in shown]
            names[number] = " ".join([folder.parent.name, *words])
        groups.append(number)
    return groups, names


def by_interest(table: "pd.DataFrame") -> list[int]:
    """Rows in the order in which they are looked at: those with a best value before the others, newest first."""
    started = table["started"].fillna("").astype(str).tolist()
    has_result = table["best"].notna().tolist()
    return sorted(range(len(table)), key=lambda row: (has_result[row], started[row]), reverse=True)


def pick_curves(results: Results, order: Sequence[int]) -> dict[str, Any]:
    """The curves that fit into the page.

    Args:
        results: the runs.
        order: rows, the most interesting first.

    Returns:
        axes: arrays of step, epoch and seconds that curves share; curves: metric → [{run, axes, y}]; and a note for
        the reader if some were left out.
    """
    points, pieces = curves_by_metric(results)

    axes: list[dict[str, list[Any]]] = []
    known: dict[tuple[bytes, ...], int] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    left, wanted, kept = MOST_VALUES, 0, 0

    for number, metric in enumerate(in_order_of_interest(pieces, results)):
        limit = MOST_VALUES // 2 if number == 0 else left
        for rank, run in enumerate(order):
            piece = pieces[metric].get(run)
            if piece is None:
                continue

            wanted += 1
            size = min(piece.stop - piece.start, MOST_POINTS)
            is_too_much = size > min(limit, left) or (number > 0 and rank >= FIRST_RUNS and left < MOST_VALUES // 2)
            if is_too_much:
                continue
            limit -= size
            left -= size
            kept += 1
            arrays = {name: array[piece][thinned(piece.stop - piece.start)] for name, array in points.items()}
            curves.setdefault(metric, []).append(curve_of(arrays, run, axes, known))

    note = ""
    if kept < wanted:
        note = (
            f"This file has room for {kept} of {wanted} curves, those of the newest runs with a result first; "
            "name fewer folders, or use --where, to see others."
        )
    return dict(axes=axes, curves=curves, curves_note=note)


def curves_by_metric(results: Results) -> tuple[dict[str, np.ndarray], dict[str, dict[int, slice]]]:
    """All points, by curve, in the order of logging.

    Returns:
        (points,) arrays of step, epoch and value; and metric → row of the table → which of the points are its curve.
    """
    table = results.curves
    runs, metrics = (table[name].cat.codes.to_numpy() for name in ("run", "metric"))
    names = [str(name) for name in table["metric"].cat.categories]

    # Sorted once, each curve is a slice; pandas would make a table of each, and ten thousand runs have many.
    order = np.lexsort((runs, metrics))
    runs, metrics = runs[order], metrics[order]
    columns = {name: table[name].to_numpy()[order] for name in (*AXES, "value") if name in table}
    starts = np.flatnonzero(np.diff(runs, prepend=-1) | np.diff(metrics, prepend=-1))

    pieces: dict[str, dict[int, slice]] = {}
    ends = [*starts.tolist(), len(runs)][1:]
    for start, end, run, metric in zip(starts.tolist(), ends, runs[starts], metrics[starts], strict=True):
        pieces.setdefault(names[metric], {})[int(run)] = slice(start, end)
    return columns, pieces


def in_order_of_interest(metrics: Iterable[str], results: Results) -> list[str]:
    """Names of metrics: what is monitored, then validation, then training, then what is measured beside."""
    monitored = set(results.table["monitor"].dropna())

    def rank(name: str) -> tuple[int, str]:
        places = ["val", "test", "train", "", "lr", "time", "memory", "cka"]
        prefix = name.partition("/")[0]
        place = places.index(prefix) if prefix in places else places.index("")
        return (-1 if name in monitored else place, name)

    return sorted(metrics, key=rank)


def thinned(length: int) -> np.ndarray:
    """At most MOST_POINTS places of a curve, the first and the last among them."""
    if length <= MOST_POINTS:
        return np.arange(length)
    return np.unique(np.linspace(0, length - 1, MOST_POINTS).round().astype(int))


def curve_of(
    points: dict[str, np.ndarray], run: int, axes: list[dict[str, list[Any]]], known: dict[tuple[bytes, ...], int]
) -> dict[str, Any]:
    """One curve; the values of its axes are kept once for all curves that share them.

    Args:
        points: its arrays of step, epoch and value, (points,) each.
        run: its row in the table.
        axes: what is known so far; a new entry is added.
        known: the same, by content.
    """
    own = {name: array for name, array in points.items() if name != "value"}
    key = tuple(array.tobytes() for array in own.values())
    if key not in known:
        known[key] = len(axes)
        axes.append({name: [short(value) for value in array.tolist()] for name, array in own.items()})

    values = points["value"].tolist()
    return dict(run=run, axes=known[key], y=[short(value) if math.isfinite(value) else None for value in values])


def pick_maps(results: Results, order: Sequence[int]) -> list[dict[str, Any]]:
    """The CKA maps that fit into the page: [{run, maps: [{name, rows, columns, values, …}]}], by row."""
    entries, left = [], MOST_MAP_CELLS
    for run in order:
        if left <= 0:
            break
        maps = []
        for file in sorted((results.folders[run] / "cka").glob("*.npz")):
            read = read_map(file)
            if read is not None:
                maps.append(read)

        cells = sum(len(item["rows"]) * len(item["columns"]) for item in maps)
        if maps and cells <= left:
            left -= cells
            entries.append(dict(run=run, maps=maps))
    return sorted(entries, key=lambda entry: entry["run"])


def read_map(file: Path) -> dict[str, Any] | None:
    """One map as plain data; None if the file is no map, is damaged, or is being replaced."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            matrix = np.asarray(arrays["matrix"], dtype=float)
            rows, columns = ([str(name) for name in arrays[key]] for key in ("rows", "columns"))
            labels = {key: str(arrays[key]) for key in ("row_label", "column_label")}
            samples = int(arrays["samples"])
    except (OSError, ValueError, KeyError, EOFError):
        return None

    if matrix.shape != (len(rows), len(columns)):
        return None
    values = [[round(value, 3) if math.isfinite(value) else None for value in row] for row in matrix.tolist()]
    return dict(name=file.stem, rows=rows, columns=columns, values=values, samples=samples, **labels)


def now() -> str:
    """The time here, for the foot of the page."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
