"""The search space of a sweep file: what is drawn, counted and refused."""

import datetime
import math
import random
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpc.planning.space import corners, grid, read_parameters, sample
from lightning_hpc.settings.errors import SettingsError

DRAWS = 4000


def draws(**entry):
    rng = random.Random(0)
    return [sample({"x": entry}, rng)["x"] for _ in range(DRAWS)]


def test_a_grid_is_in_the_order_of_wandb_names_sorted_and_the_last_fastest():
    parameters = {"b": {"values": ["u", "v"]}, "a": {"values": [2, 1]}, "c": {"value": [1, 2]}}
    expected = [(2, "u"), (2, "v"), (1, "u"), (1, "v")]
    assert grid(parameters) == [{"a": a, "b": b, "c": [1, 2]} for a, b in expected]


def test_a_grid_counts_whole_numbers_and_rounded_ranges_as_wandb_does():
    assert [run["n"] for run in grid({"n": {"min": 2, "max": 4}})] == [2, 3, 4]
    rounded = {"x": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25}}
    assert [run["x"] for run in grid(rounded)] == [0.0, 0.25, 0.5, 0.75]


def test_repeated_values_and_lists_are_tried_once():
    assert grid({"x": {"values": [1, [1, 2], 1, [1, 2], {"a": 1}]}}) == [{"x": 1}, {"x": [1, 2]}, {"x.a": 1}]


def test_values_of_any_type_are_told_apart():
    day = datetime.date(2026, 2, 3)
    assert [run["x"] for run in grid({"x": {"values": [day, day, None, True, 1]}})] == [day, None, True, 1]
    assert len(grid({"x": {"values": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}})) == 1


def test_nested_parameters_and_classes_become_short_keys():
    parameters = {
        "model": {"parameters": {"network": {"parameters": {"width": {"values": [8]}}}}},
        "model.optimizer": {"value": {"class_path": "SGD", "init_args": {"momentum": 0.9}}},
        "model.init_args.label_smoothing": {"value": 0.1},
    }
    assert grid(parameters) == [
        {
            "model.network.width": 8,
            "model.optimizer": "SGD",
            "model.optimizer.momentum": 0.9,
            "model.label_smoothing": 0.1,
        }
    ]


@pytest.mark.parametrize(
    "entry, low, high, middle",
    [
        (dict(min=0.0, max=4.0), 0, 4, 2),
        (dict(distribution="log_uniform", min=-4.0, max=0.0), math.exp(-4), 1, math.exp(-2)),
        (dict(distribution="log_uniform_values", min=1e-4, max=1.0), 1e-4, 1, 1e-2),
        (dict(distribution="inv_log_uniform", min=0.0, max=4.0), math.exp(-4), 1, math.exp(-2)),
        (dict(distribution="inv_log_uniform_values", min=0.25, max=4.0), 0.25, 4, 1),
        (dict(distribution="beta", a=2, b=2), 0, 1, 0.5),
        (dict(distribution="normal", mu=3.0, sigma=1.0), -math.inf, math.inf, 3),
        (dict(distribution="log_normal", mu=1.0, sigma=0.5), 0, math.inf, math.e),
    ],
)
def test_distributions_have_their_ends_and_their_median(entry, low, high, middle):
    values = draws(**entry)
    assert low <= min(values) and max(values) <= high
    assert sum(value < middle for value in values) == pytest.approx(DRAWS / 2, rel=0.06)


def test_a_normal_distribution_has_its_mean_and_deviation():
    values = draws(distribution="normal", mu=-2.0, sigma=3.0)
    assert mean(values) == pytest.approx(-2, abs=0.15) and stdev(values) == pytest.approx(3, rel=0.05)


def test_whole_numbers_are_equally_likely_ends_included():
    values = draws(min=1, max=5)
    assert {type(value) for value in values} == {int}
    assert all(values.count(value) == pytest.approx(DRAWS / 5, rel=0.12) for value in range(1, 6))


def test_rounded_values_are_multiples_and_whole_where_q_is():
    assert set(draws(distribution="q_uniform", min=8, max=32, q=8)) == {8, 16, 24, 32}
    assert all(isinstance(value, int) for value in draws(distribution="q_log_uniform_values", min=1, max=100, q=2))
    assert {round(value / 0.1, 6) % 1 for value in draws(distribution="q_normal", q=0.1)} == {0}


def test_values_are_rounded_to_whole_numbers_if_q_is_not_given():
    assert set(draws(distribution="q_uniform", min=0, max=3)) == {0, 1, 2, 3}


def test_one_end_with_a_point_makes_fractions():
    assert type(draws(min=1, max=5.0)[0]) is float and type(draws(min=1.0, max=5)[0]) is float


def test_probabilities_are_kept():
    values = draws(values=["a", "b", "c"], probabilities=[0.7, 0.3, 0.0])
    assert values.count("a") == pytest.approx(0.7 * DRAWS, rel=0.05) and "c" not in values


@given(seed=st.integers(0, 10**6), low=st.floats(-100, 100), width=st.floats(0, 100))
def test_draws_depend_on_the_seed_alone_and_lie_between_the_ends(seed, low, width):
    parameters = {"x": {"distribution": "uniform", "min": low, "max": low + width}, "n": {"min": 0, "max": 9}}
    one, two = (sample(parameters, random.Random(seed)) for _ in range(2))
    assert one == two and list(one) == ["n", "x"]
    assert low <= one["x"] <= low + width and 0 <= one["n"] <= 9


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_grid_has_every_combination_once_and_the_corners_every_value(counts):
    parameters = {f"p{place}": {"values": list(range(count))} for place, count in enumerate(counts)}
    runs = {tuple(run.items()) for run in grid(parameters)}
    assert len(runs) == len(grid(parameters)) == math.prod(counts)
    tried = corners(parameters)
    assert len(tried) == 1 + sum(count - 1 for count in counts)
    for place, count in enumerate(counts):
        assert {run[f"p{place}"] for run in tried} == set(range(count))


def test_corners_hold_both_ends():
    parameters = {"lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, "w": {"values": [1, 2]}}
    ends = corners({"x": {"distribution": "uniform", "min": -2.0, "max": 3.0}})
    assert ends == [{"x": -2.0}, {"x": 3.0}]
    assert corners(parameters) == [{"lr": 1e-4, "w": 1}, {"lr": 0.1, "w": 1}, {"lr": 1e-4, "w": 2}]


def test_a_normal_distribution_is_cut_where_one_draw_of_a_thousand_lies_on_either_side():
    ends = [run["x"] for run in corners({"x": {"distribution": "normal", "mu": 1.0, "sigma": 2.0}})]
    assert ends == pytest.approx([1 - 2 * 3.0902, 1 + 2 * 3.0902], abs=1e-3)
    assert {run["x"] for run in corners({"x": {"distribution": "normal", "mu": 1.0, "sigma": 0}})} == {1.0}


@pytest.mark.parametrize(
    "entry, problem",
    [
        (3, "parameter x: write `value: 3` below it"),
        ({}, "give it `value`, `values`, or `min` and `max`"),
        ({"values": []}, "must be a list with something in it"),
        ({"values": "abc"}, "must be a list"),
        ({"values": [1], "min": 0}, "min has no meaning beside `values`"),
        ({"values": [1, 2], "probabilities": [1.0]}, "must be a list of 2 numbers"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "add up to 1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "must not be negative"),
        ({"values": [1, 2], "probabilities": ["0.5", 0.5]}, "must not be negative"),
        ({"distribution": "log_unifrom", "min": 1, "max": 2}, "did you mean log_uniform"),
        ({"distribution": "cauchy"}, "there is no distribution cauchy; there are beta"),
        ({"distribution": "uniform", "min": 0}, "uniform needs max"),
        ({"distribution": "uniform", "min": 1, "max": 0}, "min 1 is more than max 0"),
        ({"distribution": "uniform", "min": "1e-4", "max": 0.1}, "min must be a number, got '1e-4'"),
        ({"distribution": "int_uniform", "min": 1.5, "max": 3}, "must be a whole number"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "min must be more than 0"),
        ({"distribution": "normal", "mean": 0}, "normal has no mean"),
        ({"distribution": "normal", "sigma": -1}, "sigma must not be negative"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q must be more than 0"),
        ({"distribution": "categorical"}, "needs `values`"),
        ({"distribution": "constant"}, "needs `value`"),
        ({"distribution": "beta", "a": 0}, "a must be more than 0"),
        ({"distribution": "beta", "b": -1}, "b must be more than 0"),
        ({"distribution": "normal", "sigmma": 1}, "normal has no sigmma (did you mean sigma?); it has mu, sigma"),
    ],
)
def test_what_the_schema_does_not_have_is_refused_by_name(entry, problem):
    with pytest.raises(SettingsError) as error:
        read_parameters({"x": entry})
    assert str(error.value).startswith("parameter x: ") and problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry, kind",
    [
        ({"distribution": "normal"}, "normal"),
        ({"distribution": "uniform", "min": 0, "max": 1}, "uniform"),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 9}, "log_uniform_values"),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, "probabilities"),
    ],
)
def test_a_grid_of_what_cannot_be_counted_is_refused(entry, kind):
    with pytest.raises(SettingsError, match=f"parameter x: method grid can't use {kind};"):
        grid({"x": entry})


def test_a_parameter_given_twice_or_none_at_all_is_refused():
    with pytest.raises(SettingsError, match="parameter a.b is there twice"):
        read_parameters({"a": {"parameters": {"b": {"value": 1}}}, "a.b": {"value": 2}})
    with pytest.raises(SettingsError, match="there are none"):
        read_parameters({})
