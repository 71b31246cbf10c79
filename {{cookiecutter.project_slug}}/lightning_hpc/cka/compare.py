"""Compare two models, or one with itself, on a data loader."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from .functional import check_kernel, rbf
from .gram import CKAError
from .maps.map import CKAMap
from .metric import CKA
from .models import call_on_copy, device_of, evaluating, original, recorded_module, same_randomness
from .recorder import GramRecorder


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
            self.metric = self._new_metric().to(grams[0].device)
        self.metric.update(*grams)

    def _new_metric(self) -> CKA:
        names_a = self.a.names
        if self.b is None:
            return CKA(len(names_a), names_a=names_a)
        return CKA(len(names_a), len(self.b.names), names_a, self.b.names)

    def result(self, row_label: str = "model A", column_label: str = "model B") -> CKAMap:
        """The matrix so far, the same on all ranks. All ranks have to call it."""
        if self.metric is None:
            raise CKAError("CKA: no batch was run")
        rows, columns = self.a.names, self.a.names
        if self.b is None:
            column_label = row_label
        else:
            columns = self.b.names

        # torchmetrics gives a single pair without dimensions.
        matrix = self.metric.compute().reshape(len(rows), len(columns)).cpu().numpy()
        with self.metric.sync_context():
            samples = int(self.metric.samples)
        return CKAMap(matrix, rows, columns, samples, row_label, column_label)


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

    Returns:
        The matrix with the layers' names, which can be saved and drawn.

    Raises:
        CKAError: see ``GramRecorder`` and ``CKA``.

    Example:
        >>> model_a, model_b = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(2))
        >>> result = compare(model_a, model_b, torch.randn(10, 32, 8))
        >>> result.matrix.shape, result.samples
        ((3, 3), 320)
    """
    model_a = original(recorded_module(model_a))
    device = device_of(model_a)
    recorder_a = GramRecorder(model_a, layers, batch_dim)
    runs = [(recorder_a, model_a)]

    recorder_b = home_b = None
    if model_b is not None:
        model_b = original(recorded_module(model_b))
    if model_b is not None and model_b is not model_a:
        recorder_b = GramRecorder(model_b, layers if layers_b is None else layers_b, batch_dim)
        home_b = device_of(model_b, device)
        runs.append((recorder_b, model_b))

    comparison = Comparison(recorder_a, recorder_b, kernel)
    read_inputs = model_inputs if inputs is None else inputs
    models = [model for _, model in runs]
    try:
        if recorder_b is not None:
            model_b.to(device)
        with torch.no_grad(), evaluating(*models), same_randomness(device):
            for batch in islice(batches, max_batches):
                args, kwargs = read_inputs(move_data_to_device(batch, device))
                for recorder, model in runs:
                    with recorder:
                        call_on_copy(model, args, kwargs)
                comparison.update()
    finally:
        if recorder_b is not None:
            model_b.to(home_b)
    return comparison.result(*labels)


def model_inputs(batch: Any) -> tuple[tuple, dict]:
    """The positional and keyword arguments that most models take from a batch."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)):
        return (batch[0],), {}
    return (batch,), {}
