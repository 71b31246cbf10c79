"""The page's own arithmetic, beside that of SciPy and pandas."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats


@pytest.fixture(scope="module")
def js(browser, grid):
    """Evaluate JavaScript among the page's functions."""
    page = browser.new_page()
    page.goto(grid)
    page.wait_for_function("window.page")
    yield page.evaluate
    page.close()


def numbers(seed, ties):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=60)
    return np.round(values) if ties else values


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_spearmans(js, ties):
    xs, ys = numbers(0, ties), numbers(0, ties) + numbers(1, False)
    ours = js("([xs, ys]) => rankCorrelation(xs, ys)", [xs.tolist(), ys.tolist()])
    assert ours == pytest.approx(stats.spearmanr(xs, ys).statistic, abs=1e-12)


def test_explained_variance_follows_from_the_f_statistic(js):
    """omega² = (k − 1)(F − 1) / ((k − 1)(F − 1) + n)."""
    groups = [np.random.default_rng(seed).normal(seed, 1, size=12) for seed in range(3)]
    labels = [name for name in "abc" for _ in range(12)]
    ours = js("([groups, ys]) => explainedVariance(groups, ys)", [labels, np.concatenate(groups).tolist()])
    f = stats.f_oneway(*groups).statistic
    assert ours == pytest.approx(2 * (f - 1) / (2 * (f - 1) + 36), abs=1e-12)


def test_settings_that_do_nothing_explain_about_nothing(js):
    draw = np.random.default_rng(0)
    labels = [str(number) for number in draw.integers(0, 5, size=400)]
    assert js("([groups, ys]) => explainedVariance(groups, ys)", [labels, draw.normal(size=400).tolist()]) < 0.03


def test_smoothing_is_the_usual_moving_average(js):
    values = numbers(2, False)
    ours = js("values => smooth(values, 0.9)", values.tolist())
    assert np.allclose(ours, pd.Series(values).ewm(alpha=0.1, adjust=True).mean())


def test_means_over_curves_of_different_lengths(js):
    curves = [dict(x=[0, 1, 2], y=[1, 2, 3]), dict(x=[0, 1], y=[3, 4]), dict(x=[0, 1, 9], y=[5, 6, 7])]
    result = js("curves => average(curves)", curves)
    assert result["x"] == [0, 1] and result["y"] == [3, 4]
    assert result["high"][0] - result["y"][0] == pytest.approx(np.std([1, 3, 5], ddof=1))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3e-9, 5e-9), (0.05, 0.0501), (-1e12, 3e12), (7, 8)])
def test_linear_ticks_are_round_and_inside(js, low, high):
    ticks = js("([low, high]) => linearTicks(low, high, 5)", [low, high])
    assert 2 <= len(ticks) <= 8 and low - 1e-9 * (high - low) <= ticks[0] and ticks[-1] <= high + 1e-8 * (high - low)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1), (0.9, 1.1), (2, 700), (1e-300, 1e300)])
def test_logarithmic_ticks_are_inside(js, low, high):
    ticks = js("([low, high]) => logTicks(low, high)", [low, high])
    assert ticks and all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (1e-7, "1e-7"), (5, "5"), (math.nan, "nan"), (-math.inf, "-inf"), (None, ""), ("a", "a")],
)
def test_cells_are_short(js, value, text):
    assert js("value => show(value)", value) == text
