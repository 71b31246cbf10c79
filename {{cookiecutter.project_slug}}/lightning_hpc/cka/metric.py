"""CKA as a torchmetrics.Metric on Gram matrices, streamed over minibatches and ranks. The maths is in functional.py."""

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from .functional import gram_products, normalise
from .gram import CKAError


class CKA(Metric):
    r"""CKA between all layers of one model, or of two, streamed over minibatches.

    .. math::
        \text{CKA}(A, B) = \frac{\sum_b n_b (n_b - 3)\, \text{HSIC}_1(K_b, L_b)}
        {\sqrt{\sum_b n_b (n_b - 3)\, \text{HSIC}_1(K_b, K_b) \; \sum_b n_b (n_b - 3)\, \text{HSIC}_1(L_b, L_b)}}

    with K_b and L_b the Gram matrices of the n_b samples of batch b in a layer of model A and in one of model B.

    Every ``update`` adds the three sums' terms of one batch, for all pairs of layers in one batched product. The
    states are float64 sums, added across ranks.

    Args:
        num_a: number of layers of model A.
        num_b: number of layers of model B; None compares the layers of A with each other.
        names_a: the layers' names, for messages only.
        names_b: likewise for model B.
        kwargs: as for every ``torchmetrics.Metric``.

    Shapes:
        ``update(grams_a, grams_b)``: (num_a, n, n) and (num_b, n, n) Gram matrices of the same n samples, in float32
        or float64, centred or not. n may change from call to call; a batch of fewer than 4 samples can't be used: it
        is counted in ``skipped``, and said once.
        ``compute()``: (num_a, num_b) in float64, or () for a single pair, as torchmetrics has it. Not clamped:
        independent layers scatter around 0. NaN, with a warning, for a layer whose output never varies.

    Raises:
        CKAError: in ``update`` for a wrong shape or precision; in ``compute`` if no batch had 4 samples, or if a
            layer's activations had NaN or infinite values.

    Example:
        >>> metric = CKA(num_a=2)
        >>> for _ in range(10):
        ...     x = torch.randn(32, 8)
        ...     layers = [x, x @ torch.randn(8, 4)]
        ...     metric.update(torch.stack([features @ features.T for features in layers]))
        >>> metric.compute().shape
        torch.Size([2, 2])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(
        self,
        num_a: int,
        num_b: int | None = None,
        names_a: Sequence[str] | None = None,
        names_b: Sequence[str] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.num_a, self.num_b = num_a, num_b
        self.names_a, self.names_b = names_a, names_a if num_b is None else names_b

        columns = num_a if num_b is None else num_b
        for name, shape in (("xy", (num_a, columns)), ("xx", num_a), ("yy", columns)):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("samples", "skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, grams_a: Tensor, grams_b: Tensor | None = None) -> None:
        """Add one batch: (num_a, n, n) and, with two models, (num_b, n, n) Gram matrices."""
        n = grams_a.shape[-1]
        if (grams_b is None) != (self.num_b is None):
            raise CKAError("CKA.update: give Gram matrices of both models exactly when CKA was made with num_b")
        check_grams(grams_a, (self.num_a, n, n), "A")
        if grams_b is not None:
            check_grams(grams_b, (self.num_b, n, n), "B")

        if n < 4:
            if not self.skipped:
                rank_zero_warn("CKA: batches of fewer than 4 samples are left out (unbiased HSIC divides by n - 3)")
            self.skipped += n
            return

        xy, xx, yy = gram_products(grams_a, grams_b)
        self.xy += xy
        self.xx += xx
        self.yy += yy
        self.samples += n

    def compute(self) -> Tensor:
        """The (num_a, num_b) matrix of all samples so far, on all ranks."""
        if not self.samples:
            raise CKAError(f"CKA: no batch with 4 or more samples ({int(self.skipped)} samples in smaller batches)")
        return normalise(self.xy, self.xx, self.yy, self.names_a, self.names_b)


def check_grams(grams: Tensor, shape: tuple[int, int, int], model: str) -> None:
    """Raise a CKAError for Gram matrices of another shape, or in too low a precision."""
    if grams.shape != shape:
        raise CKAError(
            f"CKA.update: Gram matrices of model {model} have shape {tuple(grams.shape)}, "
            f"expected {shape} (layers, samples, samples)"
        )
    if grams.dtype not in (torch.float32, torch.float64):
        raise CKAError(f"CKA.update: Gram matrices in {grams.dtype} lose CKA; make them in float32 or float64")
