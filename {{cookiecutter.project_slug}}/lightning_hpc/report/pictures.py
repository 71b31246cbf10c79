"""What of the curves and CKA maps of many runs fits into one page."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..results.reading import Results

DIGITS = 5  # that count, of a number in the page
MOST_VALUES = 200_000  # of curves, about a megabyte with their seconds
MOST_POINTS = 200  # of one curve: as many as a chart has room for
FIRST_RUNS = 200  # runs whose curves of every metric are in the page, if the budget lasts; others: of the monitored one
MOST_MAP_CELLS = 100_000
AXES = ("step", "epoch", "seconds")


def short(value: float) -> float | int:
    """A number with DIGITS digits that count; a whole number without its point."""
    if not math.isfinite(value):
        return value
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def pick_curves(results: Results, order: Sequence[int]) -> dict[str, Any]:
    """The curves that fit into the page.

    Args:
        results: the runs.
        order: rows, the most interesting first.

    Returns:
        axes: arrays of step, epoch and seconds that curves share; curves: metric → [{run, y, step, epoch, seconds}],
        the last three as places among the axes; and a note for the reader if some were left out.
    """
    points, pieces = curves_by_metric(results)

    axes = Axes()
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
            curves.setdefault(metric, []).append(curve_of(arrays, run, axes))

    note = ""
    if kept < wanted:
        note = (
            f"This file has room for {kept} of {wanted} curves, those of the newest runs with a result first; "
            "name fewer folders, or use --where, to see others."
        )
    return dict(axes=axes.arrays, curves=curves, curves_note=note)


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


def curve_of(points: dict[str, np.ndarray], run: int, axes: "Axes") -> dict[str, Any]:
    """One curve: its run, its values, and where those of its axes are.

    Args:
        points: its arrays of step, epoch, seconds and value, (points,) each.
        run: its row in the table.
        axes: the axes of all curves.
    """
    curve = dict(run=run, y=plain_numbers(points["value"]))
    curve |= {name: axes.place(points[name]) for name in AXES if name in points}
    return curve


class Axes:
    """The arrays of step, epoch and seconds, of which many curves share some: each is kept once.

    Attributes:
        arrays: lists of numbers.
    """

    def __init__(self) -> None:
        self.arrays: list[list[float | None]] = []
        self._places: dict[bytes, int] = {}

    def place(self, array: np.ndarray) -> int:
        """Where an array is among all; it is added if it is new."""
        numbers = plain_numbers(array)
        key = repr(numbers).encode()
        if key not in self._places:
            self._places[key] = len(self.arrays)
            self.arrays.append(numbers)
        return self._places[key]


def plain_numbers(array: np.ndarray) -> list[float | None]:
    """Numbers with the digits that count; None for what JSON has no word for."""
    return [short(value) if math.isfinite(value) else None for value in array.tolist()]


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
