"""A finished comparison: its numbers, the layers' names, and the picture.

Matplotlib is imported when a picture is drawn, and its global state stays untouched.
"""

import io
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 40  # on an axis; of more layers, every second, third, … is named

BUFFER = 2**20  # bytes that are written at once

MOST_NUMBERS = 12  # layers on an axis up to which the values are written into the cells


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

    def figure(self, path: str | Path | None = None) -> "Figure":
        """The heat map (see ``plot_cka``)."""
        title = f"CKA, {self.samples} samples"
        return plot_cka(self.matrix, self.rows, self.columns, title, self.row_label, self.column_label, path)

    def save(self, path: str | Path) -> "Figure":
        """Write the numbers to ``path`` with the ending .npz and the picture with .png; both appear complete or not.

        Read the numbers with ``numpy.load(path)``: arrays named as the attributes of this class.

        Returns:
            The figure, for other uses.
        """
        return write(self, Path(path))[0]


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


def write(cka_map: CKAMap, path: Path) -> tuple["Figure", bytes]:
    """Write a map to files, as ``CKAMap.save``; returns the figure, and what is in the picture's file."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)

    numbers = io.BytesIO()  # a zip file is written back and forth
    np.savez(numbers, **vars(cka_map))
    with replacing(path.with_suffix(".npz")) as file:
        file.write(numbers.getvalue())

    figure, picture = cka_map.figure(), io.BytesIO()
    figure.savefig(picture, format="png", pil_kwargs={"compress_level": 1})  # half the time, 20 KB more
    with replacing(path.with_suffix(".png")) as file:
        file.write(picture.getvalue())
    return figure, picture.getvalue()


def send_picture(loggers: Iterable[Any], key: str, path: Path, figure: "Figure", picture: bytes, step: int) -> None:
    """Log a picture with those of the loggers that take pictures: W&B, MLflow, Comet and TensorBoard.

    Args:
        loggers: as in ``trainer.loggers``.
        key: the name it gets there.
        path: the picture's file.
        figure: the same picture, drawn.
        picture: the file's content.
        step: the training step that it shows.
    """
    for logger in loggers:
        # What they really have: some answer to any name, and do nothing.
        if "log_png" in dir(logger):  # this package's tracker for W&B, which need not read the file then
            logger.log_png(key, picture, step=step)
        elif "log_image" in dir(logger):  # W&B, MLflow, Comet
            logger.log_image(key, [str(path)], step=step)
        elif "add_image" in dir(getattr(logger, "experiment", None)):  # TensorBoard
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
            logger.experiment.add_image(key, pixels, step, dataformats="HWC")


def publish(cka_map: CKAMap, path: Path, loggers: Iterable[Any], key: str, step: int) -> bool:
    """Write a map to files, and its picture to the trackers; False, with a warning, if that could not be done.

    Args:
        cka_map: the map.
        path: the picture's file.
        loggers, key, step: as for ``send_picture``.
    """
    try:
        figure, picture = write(cka_map, path)
        send_picture(loggers, key, path, figure, picture, step)
    except Exception as error:  # a full disk, a tracker that is gone: no picture is worth a run
        warnings.warn(f"CKA: no picture {path}: {error}", stacklevel=2)
        return False
    return True


def names_of(trainer: Any) -> tuple[str, str]:
    """What a validation's map is called: its files, and the model in it; with the step where an epoch has several.

    Args:
        trainer: Lightning's Trainer, in a validation of ``fit``.
    """
    epoch, step = trainer.current_epoch + 1, trainer.global_step  # counted from 1, as in all that a person reads
    every = trainer.val_check_batch  # None: by the clock
    once = trainer.check_val_every_n_epoch is not None and every is not None and every >= trainer.num_training_batches
    if once:
        return f"epoch-{epoch:03d}", f"model, epoch {epoch}"
    return f"epoch-{epoch:03d}-step-{step:08d}", f"model, epoch {epoch}, step {step}"


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
