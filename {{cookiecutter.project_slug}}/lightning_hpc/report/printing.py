"""Tables for a terminal, and for other programs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Metrics that are looked for less often than those of evaluations.
BESIDE = ("train/", "time/", "memory/", "usage/", "cka/")

GAP = "  "
WIDEST = 40  # characters of a cell in a terminal
TAIL = 9  # the last characters of a run's folder, which are its own: -HASH8


def text_of(value: Any) -> str:
    """A cell as text: numbers with four digits that count, nothing for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split())  # a line break would break the table


def shorten(text: str) -> str:
    """A long text with a gap in it; the end of a run's folder stays, since it tells it from the others."""
    if len(text) <= WIDEST:
        return text
    return f"{text[: WIDEST - TAIL - 1]}…{text[-TAIL:]}"


def as_text(table: "pd.DataFrame", width: int) -> str:
    """A table for a terminal.

    Args:
        table: its columns, the most important first.
        width: characters of a line. Columns that don't fit are left out, and named below the table.
    """
    lines: list[str] = ["" for _ in range(len(table) + 1)]
    left_out = []

    for number, (name, texts) in enumerate(texts_of(table).items()):
        cells = [shorten(text) for text in texts]
        column_width = max(len(name), *(len(cell) for cell in cells))
        is_text = any(isinstance(value, str) for value in table[name])
        if number and len(lines[0]) + len(GAP) + column_width > width:
            left_out.append(name)
            continue

        for row, cell in enumerate([name, *cells]):
            lines[row] += GAP if number else ""
            lines[row] += cell.ljust(column_width) if is_text else cell.rjust(column_width)

    text = "\n".join(line.rstrip() for line in lines)
    if left_out:
        text += f"\nnot shown: {', '.join(left_out)} (a wider terminal, --columns or --csv shows them)"
    return text


def texts_of(table: "pd.DataFrame") -> dict[str, list[str]]:
    """Name of a column → its cells as text; without the columns that say nothing."""
    texts = {name: [text_of(value) for value in table[name]] for name in table.columns}
    return {name: cells for name, cells in texts.items() if any(cells)}


def as_markdown(table: "pd.DataFrame") -> str:
    """A table for a README or an issue."""
    texts = texts_of(table)
    rows = [list(texts), ["---"] * len(texts), *zip(*texts.values(), strict=True)]

    lines = []
    for cells in rows:
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def plus_minus(table: "pd.DataFrame", metrics: Sequence[str]) -> "pd.DataFrame":
    """The same table with one column for each mean and its deviation: 0.912 ± 0.004."""
    short = table.copy()
    for name in metrics:
        means, deviations = table[name], table[f"{name}_sd"]
        cells = []
        for mean, deviation in zip(means, deviations, strict=True):
            text = text_of(mean)
            if text_of(deviation):
                text += f" ± {deviation:.2g}"
            cells.append(text)
        short[name] = cells
        del short[f"{name}_sd"]
    return short
