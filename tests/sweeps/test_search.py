"""What a local sweep tries next, and what it stops."""

import statistics

import pytest

from package.launch.bayes import suggest
from package.launch.early_stop import bands, should_stop

LOGARITHMIC = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}}
TRIALS, SEEDS = 30, range(8)
BRANIN = {"x": {"min": -5.0, "max": 10.0}, "y": {"min": 0.0, "max": 15.0}}


def branin(x, y):
    """A known function for search: three equal minima of 0.3979 (Dixon and Szegő 1978)."""
    import math

    a, b, c = 1.0, 5.1 / (4 * math.pi**2), 5 / math.pi
    return a * (y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def search(create, method, offset):
    """The best value after some trials of a sweep whose first trial has number `offset`, which seeds the search."""
    local = create(method=method, parameters=BRANIN, run_cap=10_000)
    for index in range(offset, offset + TRIALS):
        trial = local.trial(index)
        assert trial.take(None, 1)
        overlay = local.parameters(trial)["overlay"]
        trial.end(state="done", value=branin(**overlay))
    return local.best()[1]["value"]


def test_bayes_beats_random_on_a_known_function(create):
    ours = [search(create, "bayes", 1000 * seed) for seed in SEEDS]
    theirs = [search(create, "random", 1000 * seed) for seed in SEEDS]
    regret = [statistics.median(values) - 0.3979 for values in (ours, theirs)]
    assert regret[0] < 0.7 * regret[1], regret


def test_bayes_follows_the_scale_of_a_distribution_and_knows_lists(create):
    local = create(
        method="bayes", parameters=LOGARITHMIC | {"kind": {"values": ["a", "b"]}, "fixed": {"value": [1, 2]}}
    )
    for index in range(25):
        trial = local.trial(index)
        assert trial.take(None, 1)
        overlay = local.parameters(trial)["overlay"]
        assert 1e-5 <= overlay["lr"] <= 1 and overlay["fixed"] == [1, 2]
        value = abs(overlay["lr"] - 1e-3) / 1e-3 + (overlay["kind"] == "a")
        trial.end(state="done", value=value)
    last = [local.trial(index).parameters["overlay"] for index in range(15, 25)]
    assert statistics.median(each["lr"] for each in last) == pytest.approx(1e-3, rel=5)
    assert sum(each["kind"] == "b" for each in last) > 5


def test_agents_that_ask_at_the_same_time_get_different_points(create):
    local = create(method="bayes", parameters=BRANIN)
    points = {tuple(suggest(local, index)["point"].values()) for index in range(8)}
    assert len(points) == 8


def test_bands_are_those_of_wandb():
    assert bands(dict(min_iter=3, eta=3), 30) == [3, 9, 27]
    assert bands(dict(max_iter=27, s=2, eta=3), 30) == [3, 9]


def test_the_runs_that_wandbs_own_example_stops_are_stopped():
    histories = dict(a=[10, 9], b=[10, 10], c=[10, 8, 8], d=[10, 7, 7], e=[10, 6, 6])
    settings = dict(type="hyperband", max_iter=5, eta=2, s=2)  # compared at 1 and 2
    stopped = [
        name
        for name in "bcd"
        if should_stop(
            histories[name], [h for other, h in histories.items() if other != name], settings, maximize=False
        )
    ]
    assert stopped == ["b", "c"]


def test_large_values_are_good_when_they_are_to_be_maximized():
    settings = dict(type="hyperband", min_iter=1, eta=2)
    assert should_stop([0.1, 0.1], [[0.5, 0.6], [0.4, 0.5]], settings, maximize=True)
    assert not should_stop([0.5, 0.6], [[0.1, 0.1], [0.4, 0.5]], settings, maximize=True)
    assert not should_stop([0.1], [[0.5, 0.6]], settings, maximize=True)  # no comparison yet
