"""The picture of a CKA matrix. Matplotlib is imported when a picture is drawn, and its global state stays untouched."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 40  # on an axis; of more layers, every second, third, … is named
MOST_NUMBERS = 15  # layers on an axis up to which the values are written into the cells


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
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    width, height = (min(4 + 0.3 * len(names), 14) for names in (columns, rows))
    figure = Figure(figsize=(width + 1, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("0.8")  # where the matrix is NaN, nothing is painted over it
    image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="magma", aspect="auto")
    for axis, names in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = -(-len(names) // MOST_LABELS)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=8)
    axes.tick_params(axis="x", rotation=90)
    axes.set(title=title, ylabel=row_label, xlabel=column_label)
    figure.colorbar(image, label="CKA", extend="min" if np.nanmin(matrix, initial=0) < 0 else "neither")
    if max(matrix.shape) <= MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value < 0.7 else "k")
    if path is not None:
        figure.savefig(path)
    return figure
