"""Curves of several runs as lines of text, for any terminal."""

import math
from collections.abc import Sequence

HEIGHT = 10  # lines
BOTH = "*"  # where several curves meet

Curve = Sequence[tuple[float, float]]


def chart(curves: dict[str, Curve], width: int) -> list[str]:
    """Draw curves over each other, each with a letter of its own.

    Args:
        curves: letter → (x, y) of each point, in any order; what is not finite is left out.
        width: characters of a line.

    Returns:
        the lines, axes included; a word where there is nothing to draw.
    """
    points = {}
    for letter, curve in curves.items():
        points[letter] = [(x, y) for x, y in curve if math.isfinite(x) and math.isfinite(y)]
    xs = [x for curve in points.values() for x, _ in curve]
    ys = [y for curve in points.values() for _, y in curve]
    if not ys:
        return ["no values"]

    low, high = min(ys), max(ys)
    labels = [f"{high:.4g}", *[""] * (HEIGHT - 2), f"{low:.4g}"]
    margin = max(map(len, labels))
    columns = max(width - margin - 2, 10)

    grid = [[" "] * columns for _ in range(HEIGHT)]
    for letter, curve in points.items():
        for x, y in between(curve, columns, min(xs), max(xs)):
            row = HEIGHT - 1 - round(share(y, low, high) * (HEIGHT - 1))
            taken = grid[row][x]
            grid[row][x] = letter if taken in (" ", letter) else BOTH

    lines = [f"{label:>{margin}} |{''.join(cells).rstrip()}" for label, cells in zip(labels, grid, strict=True)]
    first, last = f"{min(xs):g}", f"{max(xs):g}"
    lines.append(f"{'':>{margin}} +{'-' * columns}")
    between_them = " " * max(columns - len(first) - len(last), 1)
    lines.append(f"{'':>{margin}}  {first}{between_them}{last}")
    return lines


def between(curve: Curve, columns: int, first: float, last: float) -> list[tuple[int, float]]:
    """One value for each column from a curve's first point to its last: the mean of its points, or a straight line.

    Args:
        curve: its points.
        columns: number of columns of all curves.
        first, last: x of the first column and of the last one.
    """
    at: dict[int, list[float]] = {}
    for x, y in curve:
        at.setdefault(round(share(x, first, last) * (columns - 1)), []).append(y)
    known = sorted((column, sum(values) / len(values)) for column, values in at.items())

    drawn = known[:1]
    for (left, begin), (right, end) in zip(known, known[1:], strict=False):
        for column in range(left + 1, right + 1):
            drawn.append((column, begin + (end - begin) * (column - left) / (right - left)))
    return drawn


def share(value: float, low: float, high: float) -> float:
    """How far a value is from low to high, in [0, 1]; 0 where these are equal."""
    return (value - low) / (high - low) if high > low else 0.0
