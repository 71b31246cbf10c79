"""A sweep's file: read, merged from a folder, completed with a command, and refused where it means nothing."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from yaml_values import as_text, yaml_values

from lightning_hpc.settings.command_line import parse_arguments
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.flat import flatten
from lightning_hpc.sweeps.sweep_file import ARGS, as_arguments, read_sweep

GRID = dict(method="grid", parameters={"model.network.width": {"values": [8, 16]}})
LOSS = {"name": "val/loss", "goal": "minimize"}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "configs" / "sweeps").mkdir(parents=True)
    (tmp_path / "configs" / "base.yaml").write_text("model:\n  network:\n    width: 4\n")
    return tmp_path


def read(root: Path, **config):
    (root / "configs" / "sweeps" / "mine.yaml").write_text(yaml.safe_dump(config))
    return read_sweep("mine", root)


def test_a_file_gets_the_name_and_the_command_that_it_does_not_give(root):
    sweep = read(root, **GRID)
    assert sweep.name == "mine" and sweep.metric is None
    assert sweep.config["command"] == ["${env}", "${interpreter}", "Train.py", "fit", "--name=mine", ARGS]
    assert sweep.arguments({"a.b": [1, 2], "c": None, "d": True}) == [
        "--name=mine",
        "--a.b=[1, 2]",
        "--c=null",
        "--d=True",
    ]


def test_settings_of_all_runs_stand_around_the_parameters(root):
    command = ["${env}", "python", "Train.py", "fit", "--name=n", ARGS, "--trainer.max_epochs=2"]
    sweep = read(root, **GRID, command=command)
    assert sweep.arguments({"x": 1}) == ["--name=n", "--x=1", "--trainer.max_epochs=2"]
    (first, run), (second, other) = sweep.runs_to_check(root)
    assert (first, second) == ("with model.network.width=8", "with model.network.width=16")
    assert run.folder.path.parent == root / "runs/n" and run.identity != other.identity


def test_a_cross_validation_can_be_swept(root):
    command = ["${env}", "python", "Train.py", "crossvalidate", "--folds=3", "--name=n", ARGS]
    sweep = read(root, **GRID, command=command)
    assert sweep.arguments({"x": 1}) == ["--name=n", "--x=1", "--data.mode=cross-validation", "--data.folds=3"]
    assert sweep.logged(["val/acc"]) == ["cross_validation_val/acc"]


def test_wandb_gets_dotted_names_and_null_as_text(root):
    nested = {"model": {"parameters": {"network": {"parameters": {"width": {"values": [8, None]}}}}}}
    sent = read(root, method="grid", parameters=nested).for_wandb()
    assert sent["parameters"] == {"model.network.width": {"values": [8, "null"]}}


@settings(deadline=None)
@given(yaml_values)
def test_what_is_tried_reaches_a_run_as_the_value_in_the_file(value):
    flat = flatten({"key": value})
    assert as_text(parse_arguments(as_arguments(flat))) == as_text(flat)


def test_a_folder_is_merged_and_a_parameter_in_two_files_is_an_error(root):
    folder = root / "configs" / "sweeps" / "big"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("method: grid\nname: big\nparameters: {a: {value: 1}}\n")
    (folder / "2-model.yaml").write_text("c: {values: [1, 2]}\n")
    (folder / "1-data.yaml").write_text("b: {values: [1e-3]}\n")
    sweep = read_sweep("big", root)
    assert list(sweep.parameters) == ["a", "b", "c"] and sweep.parameters["b"] == {"values": [0.001]}
    (folder / "3-more.yaml").write_text("b: {value: 2}\n")
    with pytest.raises(SettingsError, match="parameter b is in 1-data.yaml and in 3-more.yaml"):
        read_sweep("big", root)


@pytest.mark.parametrize("name", ["more.yml", "more"])
def test_what_a_folder_would_not_read_is_said(root, name):
    folder = root / "configs" / "sweeps" / "big"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("method: grid\nparameters: {a: {value: 1}}\n")
    (folder / "README.md").touch()
    assert list(read_sweep("big", root).parameters) == ["a"]
    (folder / "more.yml").touch() if name.endswith("yml") else (folder / "more").mkdir()
    with pytest.raises(SettingsError, match=f"{name} would not be read"):
        read_sweep("big", root)


def test_a_key_that_is_there_twice_in_a_file_is_an_error(root):
    (root / "configs" / "sweeps" / "mine.yaml").write_text(
        "method: grid\nparameters:\n  a: {value: 1}\n  a: {value: 2}\n"
    )
    with pytest.raises(SettingsError, match="mine.yaml: a is there twice"):
        read_sweep("mine", root)


@pytest.mark.parametrize(
    "change, problem",
    [
        (dict(method="hyperopt"), "method must be one of grid, random, bayes"),
        (dict(metod="grid"), "unknown key metod .did you mean method"),
        (dict(name="../x"), "can't name an experiment"),
        (dict(method="bayes"), "metric is needed"),
        (dict(metric={"name": "val/loss"}), "metric is needed"),
        (dict(run_cap=0), "run_cap must be a whole number from 1 on"),
        (dict(command=["python", "Train.py", ARGS]), "command must be a list with Train.py, fit"),
        (dict(early_terminate={"type": "envelope"}, metric=LOSS), "the only type is hyperband"),
        (dict(early_terminate={"type": "hyperband"}, metric=LOSS), "either min_iter or max_iter"),
        (dict(early_terminate={"type": "hyperband", "min_iter": 0}, metric=LOSS), "min_iter must be a number from 1"),
        (dict(parameters={"x": {"distribution": "normal"}}), "parameter x: method grid can't use normal"),
    ],
)
def test_what_means_nothing_is_refused(root, change, problem):
    with pytest.raises(SettingsError, match=problem) as error:
        read(root, **GRID | change)
    assert "mine.yaml: " in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_said_with_similar_ones(root):
    read(root, **GRID)
    with pytest.raises(SettingsError, match="no such sweep file.*did you mean mine.yaml"):
        read_sweep("mien.yaml", root)
