"""A finished comparison: its numbers and the layers' names, to be saved and drawn."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .picture import draw
from .plot import plot_cka

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

BUFFER = 2**20  # bytes that are written at once


@dataclass
class CKAMap:
    """A finished comparison.

    Attributes:
        matrix: (len(rows), len(columns)) CKA values, float64, not clamped, NaN for constant layers.
        rows: layers of model A.
        columns: layers of model B.
        samples: how many samples it rests on.
        row_label: what model A is.
        column_label: what model B is.

    Example:
        >>> result = CKAMap(np.array([[0.9, 0.2], [0.1, 0.7]]), ["conv", "head"], ["conv", "head"], samples=512)
        >>> print({name: round(value, 2) for name, value in result.summary().items()})
        {'conv': 0.9, 'head': 0.7, 'mean': 0.8}
    """

    matrix: np.ndarray
    rows: list[str]
    columns: list[str]
    samples: int
    row_label: str = "model A"
    column_label: str = "model B"

    def summary(self) -> dict[str, float]:
        """CKA of each layer with the layer of the same name in the other model, by name, and their "mean".

        For a model with itself, or where no name is in both: only the mean over all pairs of different layers. NaN is
        left out.
        """
        values: dict[str, float] = {}
        if self.row_label != self.column_label:
            for row, name in enumerate(self.rows):
                if name in self.columns:
                    value = float(self.matrix[row, self.columns.index(name)])
                    if np.isfinite(value):
                        values[name] = value

        to_average = list(values.values())
        if not to_average:
            different = np.not_equal.outer(self.rows, self.columns) & np.isfinite(self.matrix)
            to_average = self.matrix[different]
        if len(to_average):
            values["mean"] = float(np.mean(to_average))
        return values

    @property
    def title(self) -> str:
        """What stands above its picture."""
        return f"CKA, {self.samples} samples"

    def figure(self, path: str | Path | None = None) -> "Figure":
        """The heat map as a figure of matplotlib's (see ``plot_cka``)."""
        return plot_cka(self.matrix, self.rows, self.columns, self.title, self.row_label, self.column_label, path)

    def picture(self) -> "Image":
        """The heat map as a picture of Pillow's, which is what ``save`` writes and a notebook shows."""
        return draw(self.matrix, self.rows, self.columns, self.title, self.row_label, self.column_label)

    def save(self, path: str | Path) -> "Image":
        """Write the numbers to ``path`` with the ending .npz and the picture with .png; both appear complete or not.

        Read the numbers with ``numpy.load(path)``: arrays named as the attributes of this class.

        Returns:
            The picture, for other uses.
        """
        return write(self, Path(path))[0]


def write(cka_map: CKAMap, path: Path) -> tuple["Image", bytes]:
    """Write a map to files, as ``CKAMap.save``; returns the picture, and what is in its file."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)

    numbers = io.BytesIO()  # a zip file is written back and forth
    np.savez(numbers, **vars(cka_map))
    with replacing(path.with_suffix(".npz")) as file:
        file.write(numbers.getvalue())

    picture, content = cka_map.picture(), io.BytesIO()
    picture.save(content, format="png", compress_level=1)  # half the time of the usual level, 5 KB more
    with replacing(path.with_suffix(".png")) as file:
        file.write(content.getvalue())
    return picture, content.getvalue()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path``, open to be written, which takes its place when it is complete.

    It is written in large pieces, since each one is a message to another machine where the file system is shared.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("xb", BUFFER)
    except FileExistsError:  # of a process that had the same number
        part.unlink()
        file = part.open("xb", BUFFER)
    try:
        with file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
