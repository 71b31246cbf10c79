"""metrics.csv of many runs as one long table: files with the same header are joined and parsed at once."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .run_files import METRICS, read_run

if TYPE_CHECKING:
    import pandas as pd

INDEX = ("step", "epoch", "seconds")  # columns that say where a value belongs; all others are metrics


class Block(NamedTuple):
    """Rows of files that have the same header.

    Attributes:
        runs: the names of the runs, one a file.
        run: (rows,) for each row the number of its run in `runs`.
        columns: name of a column → (rows,) float64; NaN where its cell is empty.
        nan: name of a column → the rows whose cell is not empty and holds NaN.
    """

    runs: list[str]
    run: np.ndarray
    columns: dict[str, np.ndarray]
    nan: dict[str, np.ndarray]


def read_curves(texts: Mapping[str, bytes]) -> tuple["pd.DataFrame", dict[str, str]]:
    """All values that runs have logged.

    Args:
        texts: run → content of its metrics.csv. A last line without an end is left out: it is being written.

    Returns:
        a table with the columns run, step, epoch, seconds, metric, value, one row a value: those of one run and metric
        are in the order in which they were logged; and run → reason for those whose file can't be read.
    """
    blocks, reasons = [], {}
    for header, bodies in by_header(texts).items():
        try:
            blocks.append(parse_together(header, bodies))
        except ValueError:
            # One of them is broken or holds NaN, which the quick way can't tell from an empty cell.
            for run, body in bodies.items():
                try:
                    blocks.append(parse_alone(header, run, body))
                except ValueError as error:
                    reasons[run] = f"metrics.csv can't be read: {' '.join(str(error).split())}"

    return long_table(blocks, list(texts)), reasons


def logged(folder: Path, metric: str) -> list[float]:
    """All finite values of one metric that a run has logged so far, in order; none while there is no file.

    Raises:
        ValueError: a cell is no number, or a row has more or fewer cells than the header.
    """
    for header, bodies in by_header(read_run(folder, [METRICS]).texts).items():
        values = parse_alone(header, folder.name, bodies[METRICS]).columns.get(metric, np.array([]))
        return values[np.isfinite(values)].tolist()
    return []


def by_header(texts: Mapping[str, bytes]) -> dict[bytes, dict[str, bytes]]:
    """Header line → run → the whole lines that follow it."""
    groups: dict[bytes, dict[str, bytes]] = {}
    for run, text in texts.items():
        header, _, body = text.partition(b"\n")
        whole_lines = body[: body.rfind(b"\n") + 1]
        if whole_lines:
            groups.setdefault(header.rstrip(b"\r"), {})[run] = whole_lines
    return groups


def parse_together(header: bytes, bodies: Mapping[str, bytes]) -> Block:
    """Parse files of one header as if they were one.

    Raises:
        ValueError: a cell is no number or NaN, or a row has too many cells.
    """
    import pandas as pd

    joined = b"".join(bodies.values())
    if b"nan" in joined:
        raise ValueError("NaN has to be told from an empty cell")

    # A number that is quoted must be the one in the file; pandas reads it exactly by itself from version 3 on.
    exact: dict[str, Any] = {}
    if int(pd.__version__.partition(".")[0]) < 3:
        exact["float_precision"] = "round_trip"
    table = pd.read_csv(io.BytesIO(header + b"\n" + joined), skip_blank_lines=False, **exact)
    columns = {name: table[name].to_numpy(dtype=float) for name in table.columns}

    rows = [body.count(b"\n") for body in bodies.values()]
    if sum(rows) != len(table):
        raise ValueError("a line is no row")
    return Block(list(bodies), np.repeat(np.arange(len(rows), dtype=np.int32), rows), columns, {})


def parse_alone(header: bytes, run: str, body: bytes) -> Block:
    """Parse one file cell by cell.

    Raises:
        ValueError: a cell is no number, or a row has more or fewer cells than the header.
    """
    (names,) = csv.reader([header.decode()])
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    for cells in rows:
        if len(cells) != len(names):
            raise ValueError(f"a row has {len(cells)} cells under {len(names)} names")

    columns, nan = {}, {}
    for name, cells in zip(names, zip(*rows, strict=True), strict=True):
        columns[name] = np.array([float(cell or "nan") for cell in cells])
        nan[name] = np.flatnonzero(np.isnan(columns[name]) & (np.array(cells) != ""))
    return Block([run], np.zeros(len(rows), dtype=np.int32), columns, nan)


def long_table(blocks: list[Block], runs: list[str]) -> "pd.DataFrame":
    """One row for each value of a metric.

    Args:
        blocks: the rows of all files, in any order.
        runs: all runs, also those without a value: the categories of the column `run`.
    """
    import pandas as pd

    place = {run: number for number, run in enumerate(runs)}
    metrics: dict[str, int] = {}
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in ("run", "step", "epoch", "seconds", "metric", "value")}

    for block in blocks:
        run = np.array([place[name] for name in block.runs], dtype=np.int32)[block.run]
        step = whole_numbers(block, "step")
        epoch = whole_numbers(block, "epoch")
        seconds = block.columns.get("seconds", np.full(len(block.run), np.nan))  # files of earlier versions have none

        # Column by column, without the empty cells: most rows hold a few of the metrics.
        for name, values in block.columns.items():
            if name in INDEX:
                continue
            rows = np.flatnonzero(~np.isnan(values))
            if name in block.nan:
                rows = np.union1d(rows, block.nan[name])

            pieces["run"].append(run[rows])
            pieces["step"].append(step[rows])
            pieces["epoch"].append(epoch[rows])
            pieces["seconds"].append(seconds[rows])
            pieces["metric"].append(np.full(len(rows), metrics.setdefault(name, len(metrics)), dtype=np.int32))
            pieces["value"].append(values[rows])

    joined = {}
    for name, arrays in pieces.items():
        joined[name] = np.concatenate(arrays) if arrays else np.array([], dtype=int)

    run_names = pd.Categorical.from_codes(joined["run"], categories=runs)
    metric_names = pd.Categorical.from_codes(joined["metric"], categories=list(metrics))
    columns = {"run": run_names, "step": joined["step"], "epoch": joined["epoch"], "seconds": joined["seconds"]}
    return pd.DataFrame(columns | {"metric": metric_names, "value": joined["value"]}, copy=False)


def whole_numbers(block: Block, name: str) -> np.ndarray:
    """A column of whole numbers, (rows,) int64; −1 where there is none."""
    if name not in block.columns:
        return np.full(len(block.run), -1)
    return np.nan_to_num(block.columns[name], nan=-1.0).astype(np.int64)
