"""Compare two models, or one with itself, on a data loader: the matrix, the layers' names, and the picture."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from .functional import check_kernel, rbf
from .metric import CKA, CKAError
from .models import evaluating, original, recorded_module, same_randomness
from .plot import plot_cka
from .recorder import GramRecorder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        values = {}
        if self.row_label != self.column_label:
            pairs = {name: (i, self.columns.index(name)) for i, name in enumerate(self.rows) if name in self.columns}
            values = {name: float(self.matrix[pair]) for name, pair in pairs.items()}
        values = {name: value for name, value in values.items() if np.isfinite(value)}
        different = np.not_equal.outer(self.rows, self.columns) & np.isfinite(self.matrix)
        among = list(values.values()) or self.matrix[different]
        return values | ({"mean": float(np.mean(among))} if len(among) else {})

    def figure(self, path: str | Path | None = None) -> "Figure":
        """The heat map (see ``plot_cka``)."""
        title = f"CKA, {self.samples} samples"
        return plot_cka(self.matrix, self.rows, self.columns, title, self.row_label, self.column_label, path)

    def save(self, path: str | Path) -> "Figure":
        """Write the numbers to ``path`` with the ending .npz and the picture with .png; both appear complete or not.

        Read the numbers with ``numpy.load(path)``: arrays named as the attributes of this class.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path.with_suffix(".npz")) as part, part.open("wb") as file:
            np.savez(file, **vars(self))
        with replacing(path.with_suffix(".png")) as part, part.open("wb") as file:
            figure = self.figure()
            figure.savefig(file, format="png", pil_kwargs={"compress_level": 1})  # half the time, 20 KB more
        return figure


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, which takes its place when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class Comparison:
    """The recorders of one model or two, and the metric that adds up what they record.

    The metric is made after the first batch, because only then the recorders know their layers.
    """

    def __init__(self, a: GramRecorder, b: GramRecorder | None = None, kernel: str = "linear") -> None:
        check_kernel(kernel)
        self.a, self.b, self.kernel = a, b, kernel
        self.metric: CKA | None = None

    def update(self) -> None:
        """Add the batch that the recorded models just ran on."""
        grams = [recorder.grams() for recorder in (self.a, self.b) if recorder is not None]
        if self.kernel == "rbf":
            grams = [rbf(gram) for gram in grams]
        if grams[0].device.type == "mps":  # which has no float64
            grams = [gram.cpu() for gram in grams]
        if self.metric is None:
            names_b = self.b.names if self.b else None
            self.metric = CKA(len(self.a.names), names_b and len(names_b), self.a.names, names_b).to(grams[0].device)
        self.metric.update(*grams)

    def result(self, row_label: str = "model A", column_label: str = "model B") -> CKAMap:
        """The matrix so far, the same on all ranks. All ranks have to call it."""
        if self.metric is None:
            raise CKAError("CKA: no batch was run")
        columns = (self.b or self.a).names
        matrix = self.metric.compute().reshape(len(self.a.names), len(columns)).cpu().numpy()
        with self.metric.sync_context():
            samples = int(self.metric.samples)
        return CKAMap(matrix, self.a.names, columns, samples, row_label, column_label if self.b else row_label)


def compare(
    model_a: nn.Module,
    model_b: nn.Module | None,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
    layers_b: Sequence[str] | None = None,
    max_batches: int | None = None,
    kernel: str = "linear",
    batch_dim: int = 0,
    inputs: Callable[[Any], tuple[tuple, dict]] | None = None,
    labels: tuple[str, str] = ("model A", "model B"),
) -> CKAMap:
    """Run one model or two over the same batches and compare their layers.

    Both run in evaluation mode without gradients, on the device where model A is; afterwards their modes, their
    devices and the random generators are as before.

    Args:
        model_a: any module; of a LightningModule, the network in it (see ``CKACallback``).
        model_b: likewise, for the same batches; None compares the layers of model A with each other.
        batches: a data loader, or any iterable of batches.
        layers: of model A, see ``GramRecorder``.
        layers_b: of model B; default: ``layers``.
        max_batches: stop after so many; default: all.
        kernel: "linear" or "rbf".
        batch_dim: see ``GramRecorder``.
        inputs: what of a batch the models are called with, as positional and keyword arguments. Default: a mapping's
            items as keywords, the first element of a tuple or list, or the batch itself.
        labels: what the models are, for the picture.

    Raises:
        CKAError: see ``GramRecorder`` and ``CKA``.

    Example:
        >>> model_a, model_b = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(2))
        >>> result = compare(model_a, model_b, torch.randn(10, 32, 8))
        >>> result.matrix.shape, result.samples
        ((3, 3), 320)
    """
    model_a = original(recorded_module(model_a))
    model_b = None if model_b is None else original(recorded_module(model_b))
    device = next((p.device for p in model_a.parameters()), torch.device("cpu"))
    two = model_b is not None and model_b is not model_a
    home = next((p.device for p in model_b.parameters()), device) if two else device
    comparison = Comparison(
        GramRecorder(model_a, layers, batch_dim),
        GramRecorder(model_b, layers if layers_b is None else layers_b, batch_dim) if two else None,
        kernel,
    )
    runs = [(comparison.a, model_a)] + ([(comparison.b, model_b.to(device))] if two else [])
    try:
        with torch.no_grad(), evaluating(*(model for _, model in runs)), same_randomness(device):
            for batch in islice(batches, max_batches):
                args, kwargs = (inputs or model_inputs)(move_data_to_device(batch, device))
                for recorder, model in runs:
                    with recorder:
                        model(*args, **kwargs)
                comparison.update()
    finally:
        if two:
            model_b.to(home)
    return comparison.result(*labels)


def model_inputs(batch: Any) -> tuple[tuple, dict]:
    """The positional and keyword arguments that most models take from a batch."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return ((batch[0] if isinstance(batch, (tuple, list)) else batch),), {}
