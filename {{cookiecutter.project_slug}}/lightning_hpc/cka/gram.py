"""Gram matrices whose rounding errors CKA doesn't show: how they are multiplied, and which features are centred first.

A Gram matrix x xᵀ is what CKA knows of a layer. CKA looks at what is left of it after U-centring: the samples' common
part and the diagonal are taken off, and the rounding errors of the whole remain. So an error of 1e-7 of the whole is
one of 1e-3 of the rest where the features' mean is a hundred times as large as their deviation.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

CONSTANT = 1e-12  # a layer whose variance is below this share of its squared mean is constant up to float32's rounding

IN_CACHE = 2**18  # numbers that stay in a CPU's cache between conversion and product

BLOCK = 32  # rows: on a CPU a Gram matrix is computed up to its diagonal in blocks of these, as it is symmetric …

WORTH_BLOCKS = 2**16  # … for features of so many numbers; with less, more calls cost what they save


class CKAError(ValueError):
    """What was asked of CKA can't be computed; the message says why, for which layer, and what to do."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and float32 products in float32: a Gram matrix rounded to bfloat16 gives a CKA wrong by 0.3."""
    matmul = (torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn).matmul
    before = getattr(matmul, "fp32_precision", "ieee")  # torch < 2.9 has no such switch for a backend
    lower = before not in ("ieee", "none")
    autocast = torch.is_autocast_enabled(device.type)

    with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
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
    return u_center_and_means(grams)[0]


def u_center_and_means(grams: Tensor) -> tuple[Tensor, Tensor]:
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


def is_constant(variance, n, squared_mean):
    """True for a layer that gives the same output for every sample, but for rounding; for numbers or tensors.

    Args:
        variance: sum of the squares of the centred features, which is the trace of their Gram matrix.
        n: number of samples.
        squared_mean: squared length of the features' mean.
    """
    return variance <= CONSTANT * n * squared_mean


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision to multiply features (n, d) in: float64 where float32's rounding would show in CKA.

    Nearly orthogonal samples leave about 1/√d of the diagonal beside it, and rounding errors average out over the n²
    entries like 1/n. In small batches of wide features (n² ≤ 4√d) neither helps; but these products are cheap.
    """
    if x.dtype == torch.float64:
        return torch.float64

    n, d = x.shape
    small_batch = n**4 <= 16 * d
    has_float64 = x.device.type != "mps"
    return torch.float64 if small_batch and has_float64 else torch.float32


def gram_matrix(x: Tensor, mean: Tensor | None, out: Tensor) -> Tensor:
    """Multiply features with themselves: x xᵀ, in the precision of ``out``.

    Args:
        x: features (n, d).
        mean: (d,), taken off the features first; None multiplies them as they are.
        out: (n, n), where the result goes; also returned.
    """
    n, d = x.shape
    on_cpu = x.device.type == "cpu"
    in_blocks = on_cpu and n >= 2 * BLOCK and x.numel() >= WORTH_BLOCKS

    if mean is None and x.dtype == out.dtype and not in_blocks:
        return torch.mm(x, x.T, out=out)

    # Half precision on a GPU: tensor cores, whose products are exact.
    if mean is None and x.is_cuda and out.dtype == torch.float32:
        return torch.mm(x, x.T, out_dtype=out.dtype)

    # On a CPU a few columns at a time: converted and centred, they are still in the cache when they are multiplied.
    width = max(IN_CACHE // n if on_cpu else d, 1)
    for start in range(0, d, width):
        columns = x[:, start : start + width]
        if mean is not None:
            columns = columns - mean[start : start + width]
        add_product(columns.to(out.dtype), out, first=start == 0, rows=BLOCK if in_blocks else n)
    if in_blocks:
        copy_below_above(out)
    return out


def add_product(x: Tensor, out: Tensor, first: bool, rows: int) -> None:
    """Add x xᵀ to ``out``, as many rows at a time, and only what is in or below these rows' block of the diagonal.

    Args:
        x: features (n, d).
        out: (n, n); the ``first`` product overwrites what was in it.
        rows: number of rows in a block; n for all of x xᵀ.
    """
    for start in range(0, len(x), rows):
        end = start + rows
        out[start:end, :end].addmm_(x[start:end], x[:end].T, beta=0 if first else 1)


def copy_below_above(gram: Tensor) -> None:
    """Make a matrix (n, n) symmetric that has been computed in and below its blocks of the diagonal only."""
    for start in range(0, len(gram) - BLOCK, BLOCK):
        end = start + BLOCK
        gram[start:end, end:] = gram[end:, start:end].T


class Centring:
    """Decides, once, which layers' features have to be centred before they are multiplied.

    Centring is the only cost of an exact CKA: it reads and writes each activation once more. Most layers don't need
    it, and their first batch shows which. Every layer is in one of four states:

    - *undecided*: until the first batch of at least 4 samples. Features are centred, and their mean is noted.
    - *as they are*: the mean is small enough for U-centring to take it off later. No mean is computed any more.
    - *centred*: the mean would bring too much rounding. The mean of each batch is taken off.
    - *constant*: centred as well, and each batch is looked at: where it is constant, its Gram matrix becomes zero.

    The decision is for good: a layer's ratio of mean and deviation changes little from batch to batch.
    """

    def __init__(self) -> None:
        self.decided = False
        self._as_they_are: set[str] = set()
        self._constant: set[str] = set()

        # Of the first batch, by layer
        self._squared_means: dict[str, Tensor] = {}
        self._half_precision: set[str] = set()

    def needs_mean(self, layer: str) -> bool:
        """True if the layer's features are to be centred (or are still to be looked at)."""
        return layer not in self._as_they_are

    def look_at(self, layer: str, x: Tensor, mean: Tensor | None, gram: Tensor) -> None:
        """Before the decision, note what it needs; after it, make a constant layer's Gram matrix zero.

        Args:
            layer: its name.
            x: its features (n, d).
            mean: (d,), of these features; only None for a layer that needs none.
            gram: (n, n), of the centred features; changed in place.
        """
        if not self.decided:
            self._squared_means[layer] = mean.dot(mean).float()
            if x.is_cuda and x.dtype.itemsize == 2:
                self._half_precision.add(layer)
        elif layer in self._constant:
            gram *= ~is_constant(gram.trace(), len(x), mean.dot(mean))

    def decide(self, layers: Sequence[str], grams: Sequence[Tensor]) -> None:
        """Give each layer its state, from the (n, n) Gram matrices of a batch of n >= 4 centred samples.

        What counts is the size of the whole Gram matrix, as it would be without centring, against what U-centring
        leaves of it. Rounding errors of random sign average out over n² entries like 1 / n: up to a ratio of n / 4,
        CKA errs by less than 1e-6. Tensor cores add up half precision less exactly, so for them it is n / 16.

        Constant layers are set to zero in ``grams``.
        """
        stack = torch.stack(list(grams))
        n = stack.shape[-1]
        diagonals = stack.diagonal(dim1=1, dim2=2)

        left = torch.linalg.matrix_norm(u_center(stack)).tolist()
        off_diagonal = torch.linalg.matrix_norm(stack - diagonals.diag_embed()).tolist()
        squared_means = torch.stack([self._squared_means[layer] for layer in layers]).tolist()
        traces = diagonals.sum(1).tolist()

        for index, layer in enumerate(layers):
            # The mean adds its squared length to every entry of the Gram matrix.
            whole = math.hypot(off_diagonal[index], n * squared_means[index])
            bearable = n / 16 if layer in self._half_precision else n / 4

            if is_constant(traces[index], n, squared_means[index]):
                self._constant.add(layer)
                grams[index].zero_()
            elif whole <= bearable * left[index]:
                self._as_they_are.add(layer)
        self.decided = True
