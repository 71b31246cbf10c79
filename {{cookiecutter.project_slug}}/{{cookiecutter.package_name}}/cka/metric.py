"""Centred kernel alignment (CKA): the estimator, as a torchmetrics.Metric on Gram matrices.

With K and L the Gram matrices of the same n samples in two layers, CKA is the cosine between the two once the samples'
common part is taken out:

    CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

HSIC is estimated without bias (HSIC_1; Song et al., JMLR 2012), in the form of Székely & Rizzo (2014): centre K and L
so that every row sums to zero off the diagonal ("U-centring"); then HSIC_1(K, L) = <K~, L~> / (n (n - 3)). This is the
three-term formula of the papers without its cancellation: HSIC_1(K, K) is a sum of squares, so no square root of a
negative number, no clamp and no epsilon. Sums over minibatches follow Nguyen, Raghu & Kornblith (ICLR 2021), but add
<K~, L~> itself: the sum gives a batch of n samples the weight n (n - 3), so a short last batch adds little noise.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

CONSTANT = 1e-12  # a layer whose variance is below this share of its squared mean is constant up to float32's rounding


class CKAError(ValueError):
    """What was asked of CKA can't be computed; the message says why, for which layer, and what to do."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and float32 products in float32: a Gram matrix rounded to bfloat16 gives a CKA wrong by 0.3."""
    matmul = (torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn).matmul
    before = getattr(matmul, "fp32_precision", "ieee")  # torch < 2.9 has no such switch for a backend
    lower = before not in ("ieee", "none")
    with torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext():
        try:
            if lower:
                matmul.fp32_precision = "ieee"
            yield
        finally:
            if lower:
                matmul.fp32_precision = before


def u_center(grams: Tensor) -> Tensor:
    """U-centre Gram matrices: zero diagonal, and every row and column sums to zero.

    Args:
        grams: (..., n, n), symmetric, n at least 3.

    Returns:
        A new tensor of the same shape.
    """
    return _u_center(grams)[0]


def _u_center(grams: Tensor) -> tuple[Tensor, Tensor]:
    """U-centred Gram matrices, and what was taken off each row (..., n)."""
    n = grams.shape[-1]
    grams = grams.clone()
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    diagonal.zero_()
    means = grams.sum(-1) / (n - 2)
    means -= means.sum(-1, keepdim=True) / (2 * (n - 1))
    grams -= means.unsqueeze(-1)
    grams -= means.unsqueeze(-2)
    diagonal.zero_()
    return grams, means


def normalise(
    xy: Tensor, xx: Tensor, yy: Tensor, names_a: Sequence[str] | None = None, names_b: Sequence[str] | None = None
) -> Tensor:
    """xy / sqrt(xx yyᵀ), after a word on the layers for which that means nothing."""
    broken, constant = [], []
    for model, own, names in (("A", xx, names_a), ("B", yy, names_b)):
        for i, value in enumerate(own.tolist()):
            label = f"{names[i]!r} (model {model})" if names else f"layer {i} of model {model}"
            if not math.isfinite(value):
                broken.append(label)
            elif value <= 0:
                constant.append(label)
    if broken:
        raise CKAError(f"CKA: NaN or infinite activations in {', '.join(broken)}; look at the first of them")
    if constant:
        rank_zero_warn(f"CKA: the same output for every sample, so NaN in the matrix: {', '.join(constant)}")
    return xy / (xx.sqrt().unsqueeze(1) * yy.sqrt())


class CKA(Metric):
    """CKA between all layers of one model, or of two, streamed over minibatches.

    Every ``update`` adds, for all pairs of layers, the unnormalised HSIC_1 of one batch, in one batched product;
    ``compute`` gives HSIC(A, B) / sqrt(HSIC(A, A) HSIC(B, B)). The states are float64 sums, added across ranks.

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
        for name, shape in (("xy", (num_a, num_b or num_a)), ("xx", num_a), ("yy", num_b or num_a)):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("samples", "skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, grams_a: Tensor, grams_b: Tensor | None = None) -> None:
        """Add one batch: (num_a, n, n) and, with two models, (num_b, n, n) Gram matrices."""
        n = grams_a.shape[-1]
        if (grams_b is None) != (self.num_b is None):
            raise CKAError("CKA.update: give Gram matrices of both models exactly when CKA was made with num_b")
        for grams, layers, model in ((grams_a, self.num_a, "A"), (grams_b, self.num_b, "B")):
            if grams is not None and grams.shape != (layers, n, n):
                raise CKAError(
                    f"CKA.update: Gram matrices of model {model} have shape {tuple(grams.shape)}, "
                    f"expected {(layers, n, n)} (layers, samples, samples)"
                )
            if grams is not None and grams.dtype not in (torch.float32, torch.float64):
                raise CKAError(f"CKA.update: Gram matrices in {grams.dtype} lose CKA; make them in float32 or float64")
        if n < 4:
            if not self.skipped:
                rank_zero_warn("CKA: batches of fewer than 4 samples are left out (unbiased HSIC divides by n - 3)")
            self.skipped += n
            return
        with full_precision(grams_a.device):
            a, sizes_a = _unit(grams_a)
            b, sizes_b = (a, sizes_a) if grams_b is None else _unit(grams_b)
            # <a, b> for all pairs of layers: products over one row of the Gram matrices in float32, sums over the rows
            # in float64. As one float32 product over all n² entries it would err by 3e-6 at n = 256.
            products = torch.bmm(a.transpose(0, 1), b.permute(1, 2, 0)).sum(0, dtype=self.xy.dtype)
        self.xy += products * torch.outer(sizes_a, sizes_b)
        self.xx += _squared_norm(a) * sizes_a.square()
        self.yy += _squared_norm(b) * sizes_b.square()
        self.samples += n

    def compute(self) -> Tensor:
        """The (num_a, num_b) matrix of all samples so far, on all ranks."""
        if not self.samples:
            raise CKAError(f"CKA: no batch with 4 or more samples ({int(self.skipped)} samples in smaller batches)")
        return normalise(self.xy, self.xx, self.yy, self.names_a, self.names_b)


def _unit(grams: Tensor) -> tuple[Tensor, Tensor]:
    """U-centred Gram matrices with a largest entry of 1, so that none over- or underflows, and what they were divided
    by, (L,) in float64. A layer with the same output for every sample becomes 0: what is left of it is rounding, and
    would pass for a representation."""
    grams, means = _u_center(grams)
    entries = grams.flatten(1)
    sizes = torch.maximum(entries.amax(1), -entries.amin(1))
    varies = sizes > 16 * torch.finfo(grams.dtype).eps * means.abs().amax(1)
    grams *= torch.where(varies, 1 / sizes, 0)[:, None, None]
    return grams, sizes.double()


def _squared_norm(grams: Tensor) -> Tensor:
    return torch.linalg.vector_norm(grams, dim=-1).double().square().sum(-1)
