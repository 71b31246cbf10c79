"""The maths of CKA as plain functions: from features in memory, and from Gram matrices.

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
from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from .gram import CKAError, full_precision, is_constant, u_center_and_means

KERNELS = ("linear", "rbf")


def check_kernel(kernel: str) -> None:
    """Raise a CKAError for a kernel that is not one of KERNELS."""
    if kernel not in KERNELS:
        raise CKAError(f"CKA: unknown kernel {kernel!r}; choose one of {', '.join(KERNELS)}")


# ---- features in memory ----


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
    layers_a, layers_b = as_layers(features_a), as_layers(features_b)
    check_samples(layers_a + layers_b)

    centred_a = [centred_features(features) for features in layers_a]
    centred_b = [centred_features(features) for features in layers_b] if layers_b else None

    # Without Gram matrices, where they would be larger than the features.
    narrow = all(features.shape[1] < len(features) for features in centred_a + (centred_b or []))
    if kernel == "linear" and narrow:
        products = feature_products(centred_a, centred_b)
    else:
        grams_a = kernel_matrices(centred_a, kernel, bandwidth)
        grams_b = kernel_matrices(centred_b, kernel, bandwidth) if centred_b else None
        products = gram_products(grams_a, grams_b)

    matrix = normalise(*products)
    single_pair = isinstance(features_a, Tensor) and isinstance(features_b, Tensor)
    return matrix[0, 0] if single_pair else matrix


def as_layers(features: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    """The features layer by layer: a tensor is one layer, None is no layer."""
    if features is None:
        return []
    return [features] if isinstance(features, Tensor) else list(features)


def check_samples(layers: Sequence[Tensor]) -> None:
    """Raise a CKAError unless all layers have the same number of samples, and at least 4."""
    counts = {len(features) for features in layers}
    if len(counts) != 1 or min(counts) < 4:
        shapes = ", ".join(str(tuple(features.shape)) for features in layers)
        raise CKAError(f"cka: needs the same 4 or more samples in every layer; got features of shapes {shapes}")


def centred_features(features: Tensor) -> Tensor:
    """Features as (n, d) in float64 without their mean; exactly zero for a constant layer."""
    features = features.detach().flatten(1).double()
    mean = features.mean(0)
    features = features - mean

    # What is left of a constant layer is rounding, and would pass for a representation.
    constant = is_constant(features.square().sum(), len(features), mean.square().sum())
    return features * ~constant


def kernel_matrices(layers: Sequence[Tensor], kernel: str, bandwidth: float) -> Tensor:
    """(L, n, n) kernel matrices of L layers' features (n, d)."""
    grams = torch.stack([features @ features.T / features.shape[1] for features in layers])
    return rbf(grams, bandwidth) if kernel == "rbf" else grams


def feature_products(
    layers_a: Sequence[Tensor], layers_b: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What ``gram_products`` gives, from centred float64 features (n, d) and without an n x n matrix."""
    layers_b = layers_a if layers_b is None else layers_b
    xx = torch.stack([feature_hsic(x, x) for x in layers_a])
    yy = torch.stack([feature_hsic(y, y) for y in layers_b])
    xy = torch.stack([torch.stack([feature_hsic(x, y) for y in layers_b]) for x in layers_a])
    return xy, xx, yy


def feature_hsic(x: Tensor, y: Tensor) -> Tensor:
    """n (n - 3) HSIC_1 of centred float64 features (n, d_x) and (n, d_y), with no n x n matrix.

    Song's formula with K = x xᵀ, whose rows sum to zero once x is centred, so that only the diagonals remain.
    """
    n = len(x)
    diagonal_x, diagonal_y = x.square().sum(1), y.square().sum(1)
    whole = (x.T @ y).square().sum()
    return whole - n / (n - 2) * (diagonal_x @ diagonal_y) + diagonal_x.sum() * diagonal_y.sum() / ((n - 1) * (n - 2))


# ---- Gram matrices ----


def rbf(grams: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Gaussian (RBF) kernel matrices from linear ones.

    k(x, y) = exp(-|x - y|² / (2 bandwidth² median)), with the median of |x - y|² over the pairs of this batch
    (Kornblith et al., ICML 2019). Smaller bandwidths look at nearer neighbours only.

    Args:
        grams: (..., n, n) linear Gram matrices.
        bandwidth: in units of the root of the median squared distance; 0.2 to 1 is usual.

    Returns:
        (..., n, n) kernel matrices, with entries from 0 to 1.

    Example:
        >>> features = torch.randn(64, 10)
        >>> metric = CKA(1)
        >>> metric.update(rbf((features @ features.T)[None], bandwidth=0.5))
    """
    squares = grams.diagonal(dim1=-2, dim2=-1)
    distances = (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * grams).clamp_(min=0)

    # The floor keeps a layer with the same output for every sample from dividing by zero.
    i, j = torch.triu_indices(*grams.shape[-2:], offset=1, device=grams.device)
    median = distances[..., i, j].median(-1).values.clamp_min(torch.finfo(grams.dtype).tiny)
    return torch.exp(-distances / (2 * bandwidth**2 * median[..., None, None]))


def gram_products(grams_a: Tensor, grams_b: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One batch's <K~, L~> for all pairs of layers, which is n (n - 3) HSIC_1(K, L).

    Args:
        grams_a: (L_A, n, n) Gram matrices, n at least 4.
        grams_b: (L_B, n, n) of the same samples; default: ``grams_a``.

    Returns:
        In float64: (L_A, L_B) products of A's layers with B's, and (L_A,) and (L_B,) of each layer with itself.
    """
    with full_precision(grams_a.device):
        a, sizes_a = scaled_u_center(grams_a)
        b, sizes_b = (a, sizes_a) if grams_b is None else scaled_u_center(grams_b)

        # <a, b> for all pairs of layers: products over one row of the Gram matrices in float32, sums over the rows in
        # float64. As one float32 product over all n² entries it would err by 3e-6 at n = 256.
        products = torch.bmm(a.transpose(0, 1), b.permute(1, 2, 0)).sum(0, dtype=torch.float64)

    xy = products * torch.outer(sizes_a, sizes_b)
    xx = squared_norms(a) * sizes_a.square()
    yy = squared_norms(b) * sizes_b.square()
    return xy, xx, yy


def scaled_u_center(grams: Tensor) -> tuple[Tensor, Tensor]:
    """U-centred Gram matrices with a largest entry of 1, so that no product over- or underflows.

    A layer with the same output for every sample becomes 0: what is left of it is rounding, and would pass for a
    representation.

    Returns:
        (L, n, n) scaled matrices, and (L,) in float64: what they were divided by.
    """
    grams, means = u_center_and_means(grams)
    entries = grams.flatten(1)
    sizes = torch.maximum(entries.amax(1), -entries.amin(1))

    varies = sizes > 16 * torch.finfo(grams.dtype).eps * means.abs().amax(1)
    grams *= torch.where(varies, 1 / sizes, 0)[:, None, None]
    return grams, sizes.double()


def squared_norms(grams: Tensor) -> Tensor:
    """(L,) squared Frobenius norms in float64: single rows in the precision of ``grams``, their sum in float64."""
    return torch.linalg.vector_norm(grams, dim=-1).double().square().sum(-1)


def normalise(
    xy: Tensor, xx: Tensor, yy: Tensor, names_a: Sequence[str] | None = None, names_b: Sequence[str] | None = None
) -> Tensor:
    """CKA from sums of products: xy / sqrt(xx yyᵀ), not clamped.

    Args:
        xy: (L_A, L_B) products of A's layers with B's.
        xx: (L_A,) products of A's layers with themselves.
        yy: (L_B,) likewise of B's.
        names_a: the layers' names, for messages only.
        names_b: likewise of B's.

    Returns:
        (L_A, L_B), NaN (after a warning) for layers with the same output for every sample.

    Raises:
        CKAError: a layer had NaN or infinite activations.
    """
    broken, constant = [], []
    for model, own_products, names in (("A", xx, names_a), ("B", yy, names_b)):
        for index, product in enumerate(own_products.tolist()):
            label = f"{names[index]!r} (model {model})" if names else f"layer {index} of model {model}"
            if not math.isfinite(product):
                broken.append(label)
            elif product <= 0:
                constant.append(label)

    if broken:
        raise CKAError(f"CKA: NaN or infinite activations in {', '.join(broken)}; look at the first of them")
    if constant:
        rank_zero_warn(f"CKA: the same output for every sample, so NaN in the matrix: {', '.join(constant)}")
    return xy / (xx.sqrt().unsqueeze(1) * yy.sqrt())
