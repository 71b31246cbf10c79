"""Tables for a terminal, and for other programs."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    Table = pd.DataFrame | Mapping[str, Sequence[Any]]  # name of a column → its cells

# Metrics that are looked for less often than those of evaluations.
BESIDE = ("train/", "time/", "memory/", "usage/", "cka/")

GAP = "  "
WIDEST = 40  # characters of a cell in a terminal
WIDE = 100_000  # characters of a line that may be as long as it likes
TAIL = 9  # the last characters of a run's folder, which are its own: -HASH8


def counted(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def text_of(value: Any) -> str:
    """A cell as text: numbers with four digits that count, nothing for what is not there.

    What is no letter, such as a line break or what a terminal takes for a command, is a space.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"

    text = str(value)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())


def shorten(text: str) -> str:
    """A long text with a gap in it; the end of a run's folder stays, since it tells it from the others."""
    if len(text) <= WIDEST:
        return text
    return f"{text[: WIDEST - TAIL - 1]}…{text[-TAIL:]}"


def as_text(table: "Table", width: int, free: str | None = None, hint: str = "a wider terminal shows them") -> str:
    """A table for a terminal.

    Args:
        table: its columns, the most important first.
        width: characters of a line. Columns that don't fit are left out, and named below the table.
        free: the last column, if its texts may be as long as they like; they are cut where the line ends.
        hint: how to see the columns that are left out.
    """
    columns = texts_of(table)
    count = max(map(len, columns.values()), default=0)
    lines: list[str] = ["" for _ in range(count + 1)]
    left_out = []

    for number, (name, texts) in enumerate(columns.items()):
        if name == free:
            lines = [f"{line}{GAP}{cell}"[:width] for line, cell in zip(lines, [name, *texts], strict=True)]
            continue

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
        text += f"\nnot shown: {', '.join(left_out)} ({hint})"
    return text


def texts_of(table: "Table") -> dict[str, list[str]]:
    """Name of a column → its cells as text; without the columns that say nothing."""
    texts = {name: [text_of(value) for value in values] for name, values in table.items()}
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
