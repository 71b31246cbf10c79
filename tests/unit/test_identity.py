"""One run, one identity: it depends on what determines the result and on nothing else."""

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import flat_settings

from lightning_hpc.runs.identity import NOT_IDENTITY, canonical, fingerprint, identity, short_name
from lightning_hpc.settings.flat import flatten, unflatten
from lightning_hpc.settings.yaml_files import parse_value

SETTINGS = {"model.network": "my.Net", "model.network.width": 32, "model.optimizer.lr": 1e-3, "seed_everything": 0}


@given(flat_settings(), st.randoms())
def test_the_order_of_keys_does_not_matter(flat, random):
    shuffled = list(flat.items())
    random.shuffle(shuffled)
    assert identity(dict(shuffled)) == identity(flat)
    assert short_name(dict(shuffled)) == short_name(flat)


@given(flat_settings())
def test_the_form_of_writing_does_not_matter(flat):
    assert identity(flatten(unflatten(flat))) == identity(flat)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1 - 2**53, 2**53 - 1)))
def test_whole_numbers_are_the_same_with_and_without_a_point(settings):
    assert identity({key: float(value) for key, value in settings.items()}) == identity(settings)


@pytest.mark.parametrize("one, other", [("1e-3", "0.001"), ("1.0e-3", "1E-03"), ("3", "3.0"), ("[1, 2]", "[1.0, 2e0]")])
def test_the_format_of_numbers_does_not_matter(one, other):
    assert identity({"x": parse_value(one)}) == identity({"x": parse_value(other)})


def test_different_values_are_different_runs():
    values = [0, 1, True, False, None, "1", "", "None", 0.5, [1], [[1]], [], {}, float("inf"), float("nan"), "inf"]
    assert len({identity({"x": value}) for value in values}) == len(values)


@given(flat_settings(), flat_settings())
def test_different_settings_are_different_runs(one, other):
    assert (identity(one) == identity(other)) == (repr(canonical(one)) == repr(canonical(other)))


def test_where_and_how_often_a_run_writes_is_not_what_it_is():
    # One that is left out of the list would start every run anew, with another folder, when it is changed.
    assert set(NOT_IDENTITY) == {
        "name", "run", "runs_dir", "resume", "code", "config", "print_config", "trial", "canary", "checkpoints", "cka",
        "mirror", "data.num_workers", "data.data_dir", "data.test_on", "data.also_validate", "data.predict_dir", "then",
        "trainer.default_root_dir",
        "trainer.enable_model_summary", "trainer.enable_progress_bar", "trainer.logger", "ckpt_path", "weights_only",
        "verbose",
    }  # fmt: skip
    assert len(set(NOT_IDENTITY)) == len(NOT_IDENTITY)
    for key in NOT_IDENTITY:
        assert identity({**SETTINGS, key: "changed", f"{key}.below": 1}) == identity(SETTINGS), key
    for key in ("model.network.width", "seed_everything", "data.batch_size", "trainer.max_epochs", "names"):
        assert identity({**SETTINGS, key: 99}) != identity(SETTINGS), key


def test_a_version_of_the_code_makes_another_run():
    versions = [None, "1", "2"]
    assert len({identity(SETTINGS, version) for version in versions}) == 3


def test_dates_and_keys_of_any_type_have_an_identity():
    day = {"day": datetime.date(2026, 2, 3)}
    assert identity(day) == identity({"day": "2026-02-03"}) and fingerprint(day) == fingerprint({"day": "2026-02-03"})
    classes = {"data.classes": {1: "cat", "b": "dog", None: "mouse"}}
    assert identity(classes) == identity({"data.classes": {"b": "dog", None: "mouse", 1: "cat"}})
    assert short_name({"days": [datetime.date(2026, 2, 3)]}) == "days=_2026-02-03"


def test_large_floats_stay_floats():
    assert type(canonical(2.0**53 - 1)) is int and type(canonical(1 - 2.0**53)) is int
    assert type(canonical(2.0**53)) is float and type(canonical(-(2.0**53))) is float


def test_identities_never_change():
    # A release that changes this loses the connection to every run that exists: folders, W&B runs, checkpoints.
    assert identity(SETTINGS) == "916dbd17d19d083b"


@given(flat_settings(), st.text(), st.integers(1, 60))
def test_names_are_path_safe(flat, text, length):
    name = short_name({**flat, "text": text}, length)
    assert re.fullmatch(r"[A-Za-z0-9_=,+-][\w.=,+-]*", name, re.ASCII)
    assert len(name) <= max(length, 4) and name == short_name({**flat, "text": text}, length)


@pytest.mark.parametrize(
    "changes, name",
    [
        ({}, "base"),
        ({"name": "x", "runs_dir": "y", "trial": 3}, "base"),
        ({"model.optimizer.lr": 0.010, "data.batch_size": 64.0}, "batch_size=64,lr=0.01"),
        ({"model.network": "my.networks.Net", "model.network.hidden": [8, 16]}, "network=Net,hidden=_8,_16"),
        ({"model.network.width": 1, "data.width": 2}, "data.width=2,network.width=1"),
        ({"init_from": "../../etc/passwd"}, "init_from=.._.._etc_passwd"),
        ({"a": "..", "b": "ü/\\\n\0 '"}, "a=..,b"),
        ({"data": "..."}, "data"),
        ({"model.network": {"class_path": "my.Net", "init_args": {"width": 3}}}, "network=Net"),
        ({"callbacks": [{"class_path": "a.Timer"}, {"class_path": "b.c.Stop"}, "x"]}, "callbacks=Timer+Stop+x"),
        ({"model.a.b.width": 1, "data.width": 2}, "data.width=2,b.width=1"),
        ({"lr": 0.000123456}, "lr=0.0001235"),
        ({"text": "x" * 60}, "text=" + "x" * 43),
        ({"XX": "._-,X_"}, "XX=._-,X"),
    ],
)
def test_names(changes, name):
    assert short_name(changes) == name
