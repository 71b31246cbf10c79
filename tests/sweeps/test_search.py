"""What a local sweep tries next, and what it stops."""

import statistics

import pytest

from lightning_hpc.planning.specification import random_trials
from lightning_hpc.sweeps.search import bands, should_stop, suggest

LOGARITHMIC = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}}
TRIALS, SEEDS = 30, range(12)
MINIMUM = dict(w=0.2, x=0.3, y=0.7, z=0.5)
BOX = {name: {"min": 0.0, "max": 1.0} for name in MINIMUM}


def bowl(point):
    return sum((point[name] - best) ** 2 for name, best in MINIMUM.items())


def search(create, seed):
    """The best value after some trials of a Bayesian sweep; the numbers of its trials seed the search."""
    local = create(method="bayes", parameters=BOX)
    for index in range(1000 * seed, 1000 * seed + TRIALS):
        trial = local.trial(index)
        assert trial.take(None, 1)
        trial.end(state="done", value=bowl(local.choose(trial)["overlay"]))
    return local.best()[1]["value"]


def test_bayes_is_twice_as_near_as_random_on_a_known_function(create):
    bayes = [search(create, seed) for seed in SEEDS]
    chance = [min(bowl(point) for point in random_trials(BOX, TRIALS, seed)) for seed in SEEDS]
    assert statistics.median(bayes) < 0.5 * statistics.median(chance)


def test_bayes_follows_the_scale_of_a_distribution_and_knows_lists(create):
    local = create(
        method="bayes", parameters=LOGARITHMIC | {"kind": {"values": ["a", "b"]}, "fixed": {"value": [1, 2]}}
    )
    for index in range(25):
        trial = local.trial(index)
        assert trial.take(None, 1)
        overlay = local.choose(trial)["overlay"]
        assert 1e-5 <= overlay["lr"] <= 1 and overlay["fixed"] == [1, 2]
        value = abs(overlay["lr"] - 1e-3) / 1e-3 + (overlay["kind"] == "a")
        trial.end(state="done", value=value)
    last = [local.trial(index).parameters["overlay"] for index in range(15, 25)]
    assert statistics.median(each["lr"] for each in last) == pytest.approx(1e-3, rel=5)
    assert sum(each["kind"] == "b" for each in last) > 5


def test_agents_that_ask_at_the_same_time_get_different_points():
    points = {tuple(suggest(BOX, [], index, maximize=False)["point"].values()) for index in range(8)}
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
