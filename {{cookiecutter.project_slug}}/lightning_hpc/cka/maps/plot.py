"""The figure of a map, drawn by matplotlib: to be changed, or saved as a vector graphic for a paper.

Matplotlib is imported when a figure is drawn, and its global state stays untouched.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .picture import MOST_LABELS, MOST_NUMBERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_cka(
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    row_label: str = "model A",
    column_label: str = "model B",
    path: str | Path | None = None,
) -> "Figure":
    """Draw a CKA matrix as a heat map: first layers at the lower left, colours from 0 to 1, NaN in grey.

    Args:
        matrix: (len(rows), len(columns)). Values below 0 (chance) get the colour of 0.
        rows: layers of model A.
        columns: layers of model B.
        title: above the map.
        row_label: what model A is.
        column_label: what model B is.
        path: where to save the picture; the ending gives the format.

    Returns:
        The matplotlib figure; it belongs to no window and no pyplot state.

    Example:
        >>> figure = plot_cka(np.eye(2), ["conv", "head"], ["conv", "head"], "CKA", path="cka.png")
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)

    # Margins by the length of the names, in inches; matplotlib's own layout engine would take longer than the drawing.
    left, bottom = (0.7 + 0.075 * max(map(len, names)) for names in (rows, columns))
    width, height = (min(max(0.33 * len(names), 2.5), 10) for names in (columns, rows))
    size = (left + width + 1, bottom + height + 0.5)

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]), facecolor="0.8")
    colors = figure.add_axes(((left + width + 0.15) / size[0], bottom / size[1], 0.2 / size[0], height / size[1]))

    image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="magma", aspect="auto")  # nothing where it is NaN
    for axis, names in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = math.ceil(len(names) / MOST_LABELS)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=8)
    axes.tick_params(axis="x", rotation=90)
    axes.set(title=title, ylabel=row_label, xlabel=column_label)
    below_zero = np.nanmin(matrix, initial=0) < 0
    figure.colorbar(image, colors, extend="min" if below_zero else "neither")

    if max(matrix.shape) <= MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(matrix):
            readable = "w" if value < 0.7 else "k"  # on that cell's colour
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=readable)

    if path is not None:
        figure.savefig(path)
    return figure
