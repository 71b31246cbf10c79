"""The estimator against Song's formula in float64, and against what is known of CKA."""

import doctest
import importlib
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import lightning_hpc.cka
from lightning_hpc.cka import CKA, CKAError, cka, rbf
from lightning_hpc.cka.gram import u_center

from .conftest import hsic_1, song_cka


def gram(x):
    x = x.flatten(1)
    return x @ x.T / x.shape[1]


def layers(n, scale=0.0, depth=5, width=96):
    """Layers that share some of what they say, with means of `scale` standard deviations."""
    common = torch.randn(n, 6)
    return [
        common @ torch.randn(6, width) + torch.randn(n, width) + scale * 2.6 * torch.randn(width) for _ in range(depth)
    ]


@pytest.mark.parametrize("n", [4, 5, 16, 64, 256])
def test_float64_grams_equal_songs_formula(n):
    batches = [layers(n) for _ in range(3)]
    metric = CKA(5)
    for batch in batches:
        metric.update(torch.stack([gram(x.double()) for x in batch]))
    torch.testing.assert_close(metric.compute(), song_cka(batches), atol=1e-10, rtol=0)


def test_u_centring_is_songs_hsic():
    K, L = (gram(torch.randn(12, 7, dtype=torch.float64)) for _ in range(2))
    inner = (u_center(K) * u_center(L)).sum() / (12 * 9)
    assert inner.item() == pytest.approx(hsic_1(K, L).item(), rel=1e-9)
    torch.testing.assert_close(u_center(K).sum(0), torch.zeros(12, dtype=torch.float64), atol=1e-12, rtol=0)


def test_two_models_and_ragged_batches():
    sizes = (64, 64, 17, 4)
    batches_a, batches_b = [layers(n) for n in sizes], [layers(n, depth=3) for n in sizes]
    for a, b in zip(batches_a, batches_b, strict=True):
        b[1] = a[2] @ torch.randn(96, 20)
    metric = CKA(5, 3)
    for a, b in zip(batches_a, batches_b, strict=True):
        metric.update(torch.stack([gram(x) for x in a]), torch.stack([gram(x) for x in b]))
    torch.testing.assert_close(metric.compute(), song_cka(batches_a, batches_b), atol=1e-6, rtol=0)


def test_invariant_to_rotation_scale_and_shift_and_one_for_identical_layers():
    x = torch.randn(100, 30)
    rotation = torch.linalg.qr(torch.randn(30, 30)).Q
    assert cka(x, x).item() == pytest.approx(1, abs=1e-12)
    assert cka(x, -7 * x @ rotation + 3).item() == pytest.approx(1, abs=1e-6)
    y = torch.randn(100, 50) + x @ torch.randn(30, 50)
    assert cka(x @ rotation, y).item() == pytest.approx(cka(x, y).item(), abs=1e-6)
    assert cka(x, y) == pytest.approx(cka(y, x))


def test_independent_features_have_mean_zero():
    """The biased estimator is near 0.7 here, and one clamped to 0 to 1 would have a positive mean."""
    values = torch.stack([cka(torch.randn(32, 64), torch.randn(32, 64)) for _ in range(400)])
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item()) < 4 * error < 0.01
    assert values.min() < 0


def test_plain_sum_beats_equal_weights_on_a_short_last_batch():
    """Root mean square error against the population's CKA, batches of 64, 64, 64, 64 and 8."""
    mix = torch.randn(8, 8)
    whole = torch.randn(20000, 8)
    truth = cka(whole, whole @ mix + torch.randn(20000, 8))
    plain, equal = [], []
    for _ in range(300):
        metric = CKA(1, 1)
        sums = torch.zeros(3, dtype=torch.float64)
        for n in (64, 64, 64, 64, 8):
            x = torch.randn(n, 8)
            y = x @ mix + torch.randn(n, 8)
            K, L = gram(x), gram(y)
            metric.update(K[None], L[None])
            sums += torch.stack([hsic_1(K, L), hsic_1(K, K), hsic_1(L, L)])
        plain.append(metric.compute() - truth)
        equal.append(sums[0] / (sums[1] * sums[2]).sqrt() - truth)
    plain, equal = (torch.stack(errors).square().mean().sqrt().item() for errors in (plain, equal))
    assert plain < 0.6 * equal


def test_constant_and_dead_layers_are_nan_with_a_warning():
    x = torch.randn(32, 10)
    dead = [torch.full((32, 10), 3.7), torch.zeros(32, 10), torch.full((32, 10), 1e4)]
    metric = CKA(4, names_a=["alive", "constant", "zero", "large"])
    metric.update(torch.stack([gram(features) for features in [x, *dead]]))
    with pytest.warns(UserWarning, match="'constant' .*'zero' .*'large'"):
        matrix = metric.compute()
    assert matrix[0, 0].item() == pytest.approx(1, abs=1e-6)
    assert matrix[1:].isnan().all() and matrix[:, 1:].isnan().all()
    with pytest.warns(UserWarning, match="layer 0 of model B"):
        assert cka(x, dead[2]).isnan()
    with pytest.warns(UserWarning, match="layer 0 of model B"):
        assert cka(torch.randn(32, 100), torch.full((32, 100), 0.1)).isnan()


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1e8, 1e15])
def test_no_scale_over_or_underflows(scale):
    batch = layers(32)
    metric = CKA(5)
    metric.update(torch.stack([gram(x * scale) for x in batch]))
    torch.testing.assert_close(metric.compute(), song_cka([batch]), atol=1e-6, rtol=0)


def test_features_in_memory_by_either_way():
    """Fewer features than samples goes by the features, else by the Gram matrices."""
    x, y, z = torch.randn(60, 3, 4), torch.randn(60, 20) + 5, torch.randn(60, 200)
    y[:, :12] += x.flatten(1)
    expected = song_cka([[x, y, z]])
    torch.testing.assert_close(cka([x, y]), expected[:2, :2], atol=1e-10, rtol=0)
    torch.testing.assert_close(cka([x, y, z]), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(cka([x], [y]), expected[:1, 1:2], atol=1e-10, rtol=0)
    assert cka(x, y).shape == ()


def test_small_batches_are_counted_and_said_once():
    metric = CKA(1)
    with pytest.warns(UserWarning, match="fewer than 4"):
        metric.update(torch.eye(3)[None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(torch.eye(2)[None])
    assert metric.skipped == 5
    with pytest.raises(CKAError, match="no batch with 4 or more samples .5 samples"):
        metric.compute()
    metric.update(gram(torch.randn(4, 3))[None])
    assert metric.compute().item() == pytest.approx(1)
    assert metric.samples == 4


def test_errors_say_what_is_wrong():
    metric = CKA(2, names_a=["first", "second"])
    with pytest.raises(CKAError, match=r"shape \(3, 8, 8\), expected \(2, 8, 8\)"):
        metric.update(torch.zeros(3, 8, 8))
    with pytest.raises(CKAError, match="bfloat16"):
        metric.update(torch.zeros(2, 8, 8, dtype=torch.bfloat16))
    with pytest.raises(CKAError, match="num_b"):
        metric.update(torch.zeros(2, 8, 8), torch.zeros(2, 8, 8))
    x = torch.randn(8, 3)
    x[2] = torch.nan
    metric.update(torch.stack([gram(torch.randn(8, 3)), gram(x)]))
    with pytest.raises(CKAError, match="NaN or infinite activations in 'second'"):
        metric.compute()
    with pytest.raises(CKAError, match=r"\(8, 3\), \(9, 3\)"):
        cka(torch.randn(8, 3), torch.randn(9, 3))
    with pytest.raises(CKAError, match="kernel 'cosine'"):
        cka(x, x, kernel="cosine")


def test_reset_and_a_second_use_give_the_same():
    grams = torch.stack([gram(x) for x in layers(20)])
    metric = CKA(5)
    metric.update(grams)
    first = metric.compute()
    metric.reset()
    metric.update(grams)
    assert torch.equal(first, metric.compute())


def test_update_leaves_its_arguments_alone_and_ignores_autocast_and_the_users_precision():
    grams = torch.stack([gram(x) for x in layers(64)])
    kept, metric, plain = grams.clone(), CKA(5), CKA(5)
    plain.update(grams)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            metric.update(grams)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(grams, kept)
    assert torch.equal(metric.compute(), plain.compute())


def test_rbf_is_the_gaussian_kernel_of_the_median_distance():
    x = torch.randn(30, 5, dtype=torch.float64)
    distances = torch.cdist(x, x).square()
    i, j = torch.triu_indices(30, 30, offset=1)
    expected = torch.exp(-distances / (2 * 0.5**2 * distances[i, j].median()))
    torch.testing.assert_close(rbf(gram(x), bandwidth=0.5), expected)
    y = x[:, :2].sin()
    expected = song_kernel(rbf(gram(x)), rbf(gram(y)))
    assert cka(x, y, kernel="rbf").item() == pytest.approx(expected, abs=1e-9)


def song_kernel(K, L):
    return (hsic_1(K, L) / (hsic_1(K, K) * hsic_1(L, L)).sqrt()).item()


@pytest.mark.parametrize("name", ["functional", "metric", "recorder", "compare", "maps.map", "maps.plot", "callback"])
def test_the_examples_in_the_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    public = {name: getattr(lightning_hpc.cka, name) for name in lightning_hpc.cka.__all__}
    module = importlib.import_module(f"lightning_hpc.cka.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch, "nn": nn, "np": np, **public})
    assert result.attempted > 0 and result.failed == 0
