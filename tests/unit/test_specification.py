"""From a specification to overlays: counts, order, no duplicates, values of every type, and what is refused."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpc.planning.specification import (
    check_specification,
    expand,
    product,
    read_axes,
    read_specification,
    read_values,
)
from lightning_hpc.runs.identity import fingerprint
from lightning_hpc.settings.errors import SettingsError

FOUR = {
    "LIST_OF_MODELS": [
        {"model": ["a", "b"], "pretrained": [False]},
        {"model": ["c"], "pretrained": [False, True]},
    ]
}
HUNDRED_AND_EIGHT = {
    "data.batch_size": [8, 16, 32, 64, 128, 256],
    "LIST_OF_OPTIMIZERS": [
        {"momentum": [0.0], "lr": {"logspace": {"start": -5, "stop": -1, "num": 9}}},
        {"momentum": [0.9], "lr": {"logspace": {"start": -5, "stop": -1, "num": 9}}},
    ],
}


def overlays_of(specification):
    return expand(read_axes(specification))


def grid(parameters):
    return overlays_of({"name": "x", "parameters": parameters})


def test_sub_grids_may_have_different_keys_and_are_concatenated():
    assert grid(FOUR) == [
        {"model": "a", "pretrained": False},
        {"model": "b", "pretrained": False},
        {"model": "c", "pretrained": False},
        {"model": "c", "pretrained": True},
    ]
    assert grid({"LIST_A": [{"x": [1]}, {"y": [2, 3]}]}) == [{"x": 1}, {"y": 2}, {"y": 3}]


def test_six_batch_sizes_and_two_optimizers_with_nine_rates():
    runs = grid(HUNDRED_AND_EIGHT)
    assert len(runs) == 6 * (9 + 9) == 108
    # The list is the slowest axis although it was written last, the plain key the fastest.
    assert [run["data.batch_size"] for run in runs[:7]] == [8, 16, 32, 64, 128, 256, 8]
    assert [run["momentum"] for run in runs] == [0.0] * 54 + [0.9] * 54
    assert runs[0]["lr"] == 1e-5 and runs[-1]["lr"] == 0.1


def test_lists_of_lists_are_expanded_too():
    parameters = {"LIST": [{"a": [1], "LIST_INNER": [{"b": [1, 2]}, {"c": [3]}]}, {"a": [2]}]}
    assert grid(parameters) == [{"b": 1, "a": 1}, {"b": 2, "a": 1}, {"c": 3, "a": 1}, {"a": 2}]


def test_bundles_override_plain_keys_and_what_then_repeats_is_left_out():
    runs = grid({"lr": [1, 2], "LIST": [{"lr": [9], "model": ["a"]}, {"model": ["b"]}]})
    assert runs == [{"lr": 9, "model": "a"}, {"model": "b", "lr": 1}, {"model": "b", "lr": 2}]


def test_values_may_be_of_any_type():
    values = [1, 2.5, "text", True, None, [8, 16], {"depth": 3}, {"class_path": "my.Net", "init_args": {"width": 4}}]
    assert grid({"key": values}) == [
        {"key": 1}, {"key": 2.5}, {"key": "text"}, {"key": True}, {"key": None}, {"key": [8, 16]}, {"key.depth": 3},
        {"key": "my.Net", "key.width": 4},
    ]  # fmt: skip
    assert grid({"flag": True, "none": None, "text": "a", "map": {"depth": 3}}) == [
        {"flag": True, "none": None, "text": "a", "map.depth": 3}
    ]


def test_true_is_not_one_and_one_is_one_point_zero():
    assert grid({"a": [1, 1.0, True]}) == [{"a": 1}, {"a": True}]


@pytest.mark.parametrize(
    "axis, values",
    [
        ({"linspace": {"start": 0, "stop": 1, "num": 5}}, [0, 0.25, 0.5, 0.75, 1]),
        ({"linspace": {"start": 0.1, "stop": 0.3, "num": 3}}, [0.1, 0.2, 0.3]),
        ({"linspace": {"start": 3, "stop": 9, "num": 1}}, [3]),
        ({"logspace": {"start": -3, "stop": -1, "num": 3}}, [0.001, 0.01, 0.1]),
        ({"logspace": {"start": 0, "stop": 4, "num": 5, "base": 2}}, [1, 2, 4, 8, 16]),
        ({"range": {"start": 2, "stop": 5}}, [2, 3, 4]),
        ({"range": {"start": 5, "stop": 0, "step": -2}}, [5, 3, 1]),
        ({"range": {"start": 0.1, "stop": 0.45, "step": 0.1}}, [0.1, 0.2, 0.3, 0.4]),
        ({"repeat": 3}, [0, 1, 2]),
    ],
)
def test_generated_axes(axis, values):
    found = [run["key"] for run in grid({"key": axis})]
    assert found == values
    if "range" in axis and isinstance(values[0], int):
        assert all(isinstance(value, int) for value in found)


def test_explicit_lists_trials_and_folds_are_axes_like_the_others():
    spec = {
        "name": "x",
        "search_space": [{"lr": 1}, {"lr": 2, "wd": 3}],
        "parameters": {"trial": {"repeat": 2}},
        "folds": 2,
    }
    runs = overlays_of(spec)
    assert len(runs) == 2 * 2 * 2
    fold = {"data.mode": "cross-validation", "data.folds": 2}
    assert runs[0] == {"lr": 1, "trial": 0, **fold, "data.fold": 0}
    assert runs[1] == {"lr": 1, "trial": 0, **fold, "data.fold": 1}
    assert runs[-1] == {"lr": 2, "wd": 3, "trial": 1, **fold, "data.fold": 1}


def test_random_trials_are_seeded_different_and_stay_when_more_are_asked_for():
    space = {"lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}, "width": {"values": [1, 2]}}

    def ask(trials, seed=0):
        return overlays_of({"name": "x", "space": space, "trials": trials, "seed": seed})

    assert ask(10) == ask(10) == ask(20)[:10] != ask(10, seed=1)
    assert len({fingerprint(run) for run in ask(20)}) == 20
    state = random.getstate()
    ask(3)
    assert random.getstate() == state  # nobody else's generator is touched


def test_a_space_with_fewer_points_than_trials_is_exhausted_not_waited_for():
    runs = overlays_of({"name": "x", "space": {"a": {"values": [1, 2, 3]}, "b": {"values": [1, 2]}}, "trials": 50})
    assert sorted((run["a"], run["b"]) for run in runs) == [(a, b) for a in (1, 2, 3) for b in (1, 2)]


def test_sweep_files_of_method_grid_and_random():
    parameters = {"a": {"values": [1, 2]}, "b": {"value": 5}, "data": {"parameters": {"c": {"values": [3, 4]}}}}
    runs = overlays_of({"method": "grid", "parameters": parameters})
    assert len(runs) == 4 and {tuple(sorted(run.items())) for run in runs} == {
        (("a", a), ("b", 5), ("data.c", c)) for a in (1, 2) for c in (3, 4)
    }
    assert len(overlays_of({"method": "random", "run_cap": 3, "parameters": parameters})) == 3


SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False, width=16) | st.text(max_size=3)
VALUES = st.lists(SCALARS, min_size=1, max_size=3, unique_by=lambda value: fingerprint({"k": value}))
AXES = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=2)


@settings(max_examples=150)
@given(plain=AXES, lists=st.lists(st.lists(AXES, min_size=1, max_size=2), max_size=2))
def test_a_grid_has_the_product_of_its_axes_without_duplicates(plain, lists):
    """Keys of different axes are made different here, so nothing is overridden and nothing can repeat."""
    parameters = dict(plain)
    for number, grids in enumerate(lists):
        parameters[f"LIST{number}"] = [
            {f"L{number}.{index}.{key}": values for key, values in axes.items()} for index, axes in enumerate(grids)
        ]
    # Two grids without keys make the same empty bundle; one of them is left out.
    sizes = [
        sum(math.prod(map(len, axes.values())) for axes in grids if axes) + any(not axes for axes in grids)
        for grids in lists
    ]
    runs = grid(parameters)
    assert len(runs) == math.prod(map(len, plain.values())) * math.prod(sizes)
    assert len({fingerprint(run) for run in runs}) == len(runs)
    assert runs == grid(parameters)
    # The last plain key is the fastest.
    if plain:
        last = list(plain)[-1]
        assert [fingerprint({"k": run[last]}) for run in runs[: len(plain[last])]] == [
            fingerprint({"k": value}) for value in plain[last]
        ]


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"parameter": {}}, r"unknown key parameter \(did you mean parameters\?\)"),
        ({"parameters": [1]}, r"parameters must be a mapping, got \[1\]"),
        ({"trials": 3}, "space and trials belong together"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"folds": True}, "folds must be a whole number"),
        ({"name": 3}, "name must be text"),
        ({"codeversion": 1.10}, "codeversion must be text in quotes, got 1.1"),
    ],
)
def test_a_wrong_specification_is_refused(spec, message):
    with pytest.raises(SettingsError, match=message):
        check_specification(spec)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"lr": []}, "parameters.lr has no values"),
        ({"LIST": {"a": [1]}}, "parameters.LIST must be a list of grids"),
        ({"LIST": [3]}, "parameters.LIST must be a list of mappings"),
        ({3: [1]}, "a key must be text"),
        ({"lr": {"linspace": {"start": 0}}}, "parameters.lr: linspace: missing a required argument: 'stop'"),
        ({"lr": {"range": {"begin": 0}}}, "parameters.lr: range: "),
        ({"lr": {"linspace": {"start": 0, "stop": "1", "num": 2}}}, "linspace's stop must be a number"),
        ({"lr": {"linspace": {"start": 0, "stop": 1, "num": 0}}}, "num must be a whole number from 1"),
        ({"lr": {"range": {"start": 0, "stop": 1, "step": 0}}}, "step must not be 0"),
        ({"lr": {"range": {"start": 1, "stop": 0}}}, "the range is empty"),
        ({"lr": {"range": {"start": 0, "stop": 1e12}}}, "too many"),
        ({"a": {"repeat": 1000}, "b": {"repeat": 1000}}, "the specification makes 1,000,000 runs"),
        ({"lr": {"logspace": {"start": 0, "stop": 1e6, "num": 2}}}, "parameters.lr: "),
    ],
)
def test_a_wrong_axis_is_refused_by_name(parameters, message):
    with pytest.raises(SettingsError, match=message):
        grid(parameters)


def test_a_hundred_thousand_runs_are_the_most():
    thousand = {"repeat": 1000}
    assert next(product(read_axes({"parameters": {"a": thousand, "b": {"repeat": 100}}}))) == {"a": 0, "b": 0}
    with pytest.raises(SettingsError, match="makes 101,000 runs; at most 100,000"):
        grid({"a": thousand, "b": {"repeat": 101}})

    assert len(read_values({"repeat": 100_000}, "a")) == 100_000
    assert len(read_values({"range": {"start": 0, "stop": 100_000}}, "a")) == 100_000
    for axis in ({"repeat": 100_001}, {"range": {"start": 0, "stop": 100_001}}):
        with pytest.raises(SettingsError, match="100,0"):
            read_values(axis, "a")

    space = {"a": {"min": 0.0, "max": 1.0}}
    for trials, message in ((100_001, "at most 100,000"), (0, "at least 1")):
        with pytest.raises(SettingsError, match=message):
            overlays_of({"space": space, "trials": trials})


def test_a_space_of_exactly_as_many_points_is_found_whole():
    space = {"a": {"values": list(range(40))}, "b": {"values": [1, 2, 3]}}
    assert len(overlays_of({"space": space, "trials": 120})) == 120


def test_the_first_of_equal_runs_keeps_its_place():
    assert overlays_of({"search_space": [{"a": 1}, {"a": 2}, {"a": 1.0}]}) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "sweep, message",
    [
        ({"method": "bayes", "parameters": {"a": {"values": [1]}}}, "CreateSweep.py"),
        ({"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}, "run_cap"),
    ],
)
def test_sweeps_that_cannot_be_planned_say_what_to_do(sweep, message):
    with pytest.raises(SettingsError, match=message):
        overlays_of(sweep)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "can't be read"),
        ("a: [", "not valid YAML"),
        ("- a", "must hold a mapping"),
        ("parametres: {}", "did you mean"),
    ],
)
def test_a_file_that_is_no_specification_is_refused(tmp_path, text, message):
    file = tmp_path / "spec.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_specification(file)
    assert str(file) in str(caught.value)


def test_a_sweep_file_is_left_to_its_own_schema(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("method: grid\nparameters: {lr: {values: [1, 2]}}\nearly_terminate: {type: hyperband}\n")
    assert read_specification(file)["early_terminate"] == {"type": "hyperband"}


@pytest.mark.parametrize("key", [{"space": {"lr": {"values": [1]}}}, {"trials": 3}])
def test_space_and_trials_belong_together(key):
    with pytest.raises(SettingsError, match="^space and trials belong together"):
        check_specification(key)


def test_two_folds_are_the_fewest():
    check_specification({"folds": 2})
    assert len(overlays_of({"folds": 2})) == 2
    with pytest.raises(SettingsError, match="folds must be at least 2, got 1"):
        check_specification({"folds": 1})


def test_axes_have_the_names_of_what_makes_them():
    specification = {"search_space": [{"a": 1}], "space": {"b": {"values": [1]}}, "trials": 1, "folds": 2}
    assert [name for name, _ in read_axes(specification)] == ["search_space", "trials", "folds"]
    for method in ("grid", "random"):
        sweep = {"method": method, "run_cap": 1, "parameters": {"lr": {"values": [1]}}}
        assert read_axes(sweep)[0][0] == {"grid": "grid", "random": "trials"}[method]


@pytest.mark.parametrize("form", ["specification", "sweep"])
def test_the_seed_chooses_the_trials_and_is_0_by_default(form):
    space = {"lr": {"min": 0.0, "max": 1.0}}
    base = {"space": space, "trials": 3}
    if form == "sweep":
        base = {"method": "random", "parameters": space, "run_cap": 3}
    drawn = [overlays_of({**base, **seed}) for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_single_trial_is_enough():
    assert len(overlays_of({"space": {"lr": {"min": 0.0, "max": 1.0}}, "trials": 1})) == 1


def test_an_entry_that_is_no_mapping_is_named():
    with pytest.raises(SettingsError, match="search_space"):
        read_axes({"search_space": [3]})
