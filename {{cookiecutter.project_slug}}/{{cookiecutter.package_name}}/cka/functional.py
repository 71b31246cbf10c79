"""CKA of features in memory, the RBF kernel, and mutual nearest neighbours: plain functions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .metric import CKA, CONSTANT, CKAError, normalise

KERNELS = ("linear", "rbf")


def check_kernel(kernel: str) -> None:
    if kernel not in KERNELS:
        raise CKAError(f"CKA: unknown kernel {kernel!r}; choose one of {', '.join(KERNELS)}")


def cka(
    features_a: Tensor | Sequence[Tensor],
    features_b: Tensor | Sequence[Tensor] | None = None,
    kernel: str = "linear",
    bandwidth: float = 1.0,
) -> Tensor:
    """CKA between features in memory, computed in float64. For data that does not fit, stream batches through ``CKA``.

    Args:
        features_a: (n, ...) features of n samples in one layer, or a sequence of such tensors, one for each layer.
        features_b: the same samples in the other model; default: every layer of ``features_a`` with every other.
        kernel: "linear" or "rbf". Linear with fewer features than samples takes memory for the features only; all
            else takes 8 n² bytes for each layer.
        bandwidth: of the RBF kernel, see ``rbf``.

    Returns:
        A number for two tensors, else the (L_A, L_B) matrix. About 0 for independent features (below 0 as often as
        above), 1 for features that differ by a rotation, a shift and a scale only; NaN for a constant layer.

    Raises:
        CKAError: fewer than 4 samples, or not the same number in every layer.

    Example:
        >>> x = torch.randn(1000, 20)
        >>> rotation = torch.linalg.qr(torch.randn(20, 20)).Q
        >>> print(f"{cka(x, 3 * x @ rotation + 1):.4f}")
        1.0000
    """
    check_kernel(kernel)
    layers_a = [features_a] if isinstance(features_a, Tensor) else list(features_a)
    layers_b = [features_b] if isinstance(features_b, Tensor) else list(features_b or [])
    if len(counts := {len(x) for x in layers_a + layers_b}) != 1 or min(counts) < 4:
        shapes = ", ".join(str(tuple(x.shape)) for x in layers_a + layers_b)
        raise CKAError(f"cka: needs the same 4 or more samples in every layer; got features of shapes {shapes}")
    n = counts.pop()

    def centred(x: Tensor) -> Tensor:
        x = x.detach().flatten(1).double()
        mean = x.mean(0)
        x = x - mean
        return x * (x.square().sum() > CONSTANT * n * mean.square().sum())

    xs, ys = [centred(x) for x in layers_a], [centred(y) for y in layers_b]
    if kernel == "linear" and all(x.shape[1] < n for x in xs + ys):
        xx, yy = (torch.stack([_feature_hsic(z, z) for z in zs]) for zs in (xs, ys or xs))
        xy = torch.stack([torch.stack([_feature_hsic(x, y) for y in ys or xs]) for x in xs])
        matrix = normalise(xy, xx, yy)
    else:
        metric = CKA(len(xs), len(ys) or None).to(xs[0].device)
        grams = [torch.stack([z @ z.T / z.shape[1] for z in zs]) for zs in (xs, ys) if zs]
        metric.update(*(rbf(g, bandwidth) if kernel == "rbf" else g for g in grams))
        matrix = metric.compute().reshape(len(xs), len(ys or xs))
    return matrix[0, 0] if isinstance(features_a, Tensor) and isinstance(features_b, Tensor) else matrix


def _feature_hsic(x: Tensor, y: Tensor) -> Tensor:
    """n (n - 3) HSIC_1 of centred float64 features (n, d_x) and (n, d_y), with no n x n matrix.

    Song's formula with K = x xᵀ, whose rows sum to zero once x is centred, so that only the diagonals remain.
    """
    n, k, m = len(x), x.square().sum(1), y.square().sum(1)
    return (x.T @ y).square().sum() - n / (n - 2) * (k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2))


def squared_distances(grams: Tensor) -> Tensor:
    """Squared Euclidean distances between samples, (..., n, n), from linear Gram matrices of the same shape."""
    squares = grams.diagonal(dim1=-2, dim2=-1)
    return (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * grams).clamp_(min=0)


def rbf(grams: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Gaussian (RBF) kernel matrices from linear ones.

    k(x, y) = exp(-|x - y|² / (2 bandwidth² median)), with the median of |x - y|² over the pairs of this batch
    (Kornblith et al., ICML 2019). Smaller bandwidths look at nearer neighbours only.

    Args:
        grams: (..., n, n) linear Gram matrices.
        bandwidth: in units of the root of the median squared distance; 0.2 to 1 is usual.

    Example:
        >>> features = torch.randn(64, 10)
        >>> metric = CKA(1)
        >>> metric.update(rbf((features @ features.T)[None], bandwidth=0.5))
    """
    distances = squared_distances(grams)
    i, j = torch.triu_indices(*grams.shape[-2:], offset=1, device=grams.device)
    median = distances[..., i, j].median(-1).values.clamp_min(torch.finfo(grams.dtype).tiny)
    return torch.exp(-distances / (2 * bandwidth**2 * median[..., None, None]))


def mutual_knn(grams_a: Tensor, grams_b: Tensor | None = None, k: int = 10) -> Tensor:
    """Mutual k-nearest-neighbour alignment: the share of a sample's k nearest neighbours that two layers agree on.

    A local companion of CKA, deaf to outliers (Huh et al., ICML 2024; here with Euclidean distances). Chance level is
    k / (n - 1).

    Args:
        grams_a: (L_A, n, n) linear Gram matrices.
        grams_b: (L_B, n, n) of the same samples; default: ``grams_a``.
        k: number of neighbours, 1 to n - 2.

    Returns:
        (L_A, L_B), in 0 to 1, float32.

    Example:
        >>> features = torch.randn(64, 10)
        >>> gram = (features @ features.T)[None]
        >>> mutual_knn(gram, k=5)
        tensor([[1.]])
    """
    n = grams_a.shape[-1]
    if not 1 <= k <= n - 2:
        raise CKAError(f"mutual_knn: k = {k} neighbours of {n} samples; choose k from 1 to {n - 2}")

    def neighbours(grams: Tensor) -> Tensor:
        distances = squared_distances(grams)
        distances.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
        nearest = distances.topk(k, dim=-1, largest=False).indices
        return torch.zeros_like(grams, dtype=torch.float32).scatter_(-1, nearest, 1).flatten(1)

    a = neighbours(grams_a)
    return a @ (a if grams_b is None else neighbours(grams_b)).T / (n * k)
