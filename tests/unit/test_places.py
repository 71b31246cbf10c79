"""Where paths count from: settings from the project, wherever a command is typed; what is typed from there."""

import json
import shutil
from pathlib import Path

import pytest

import lightning_hpc
from lightning_hpc.code.snapshot import take_snapshot
from lightning_hpc.planning.plan import plan
from lightning_hpc.runs.run import read_command_line
from lightning_hpc.settings import places

BASE = """
name: default
runs_dir: runs
data: {class_path: my.Data, init_args: {data_dir: data}}
trainer: {max_epochs: 2}
"""


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "base.yaml").write_text(BASE)
    (root / "notebooks").mkdir()
    return root


def ask(root, *arguments):
    return read_command_line("fit", list(arguments), root)


@pytest.mark.parametrize("here", [".", "notebooks", ".."])
def test_runs_are_the_projects_wherever_the_command_is_typed(project, monkeypatch, here):
    monkeypatch.chdir(project / here)
    folder = ask(project).folder.path
    assert folder.absolute().parent == project / "runs" / "default"
    assert folder.is_absolute() == (here == "notebooks")  # elsewhere it is below, and shown as one would type it
    assert plan({"name": "wide", "parameters": {"trial": [0, 1]}}, project).folder.absolute() == project / "runs/wide"


def test_a_path_in_a_notebook_counts_from_its_folder_or_else_from_the_project(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    (project / "runs").mkdir()
    assert places.here_or_in_project("runs", project) == project / "runs"
    assert places.here_or_in_project("nowhere", project) == Path("nowhere")  # as it was written, for the message
    (project / "notebooks" / "runs").mkdir()
    assert places.here_or_in_project("runs", project) == Path("runs")
    assert places.PROJECT == Path(lightning_hpc.__file__).parents[1]


def test_a_typed_path_counts_from_where_it_is_typed_and_one_in_a_file_from_the_project(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    (project / "scratch.yaml").write_text("runs_dir: ../scratch\ndata.data_dir: sets\n")

    typed = ask(project, "--runs_dir=mine", "--data.data_dir", "../data")
    assert typed.folder.path.parent == Path("mine/default")
    assert (typed.settings.flat["runs_dir"], typed.settings.flat["data.data_dir"]) == ("notebooks/mine", "data")
    assert typed.overrides == ["runs_dir = notebooks/mine (instead of runs in configs/base.yaml)"]

    outside = ask(project, "--runs_dir=../../mine")
    assert outside.settings.flat["runs_dir"] == str(project.parent / "mine")
    assert outside.identity == typed.identity

    in_file = ask(project, "--config", "scratch.yaml")
    assert in_file.folder.path.resolve().parents[1] == project.parent / "scratch"
    assert in_file.settings.flat["data.data_dir"] == "sets"
    assert places.in_project("sets") == project / "sets"

    absolute = ask(project, f"--runs_dir={project.parent}/far")
    assert absolute.folder.path.parents[1] == project.parent / "far"
    assert ask(project, "--runs_dir=2026").folder.path.parents[1] == Path("2026"), "a number is a folder's name too"


def test_a_snapshot_uses_the_projects_runs_and_data_also_after_both_have_moved(project, monkeypatch, tmp_path):
    code = project / "runs" / "wide" / "code"
    take_snapshot(project, code, without=project / "runs")
    assert json.loads((code / "commit.json").read_text())["project"] == "../../.."
    monkeypatch.chdir(tmp_path)
    assert ask(code).folder.path == Path("project/runs/default") / ask(project).folder.path.name

    shutil.move(project, tmp_path / "moved")
    moved = tmp_path / "moved"
    assert ask(moved / "runs" / "wide" / "code").folder.path.parents[1] == Path("moved/runs")
    assert places.in_project("data") == moved / "data"


def test_a_snapshot_outside_the_project_knows_it_by_its_path(project, monkeypatch, tmp_path):
    """runs/ may be a link to the scratch of a cluster."""
    (tmp_path / "scratch").mkdir()
    (project / "runs").symlink_to(tmp_path / "scratch")
    code = (project / "runs" / "wide").resolve() / "code"
    take_snapshot(project, code, without=project / "runs")
    monkeypatch.chdir(tmp_path)
    assert ask(code).folder.path.parents[1] == Path("project/runs")

    # One of an earlier version has no word of it: its batch file works in the project's folder.
    note = json.loads((code / "commit.json").read_text())
    del note["project"]
    (code / "commit.json").write_text(json.dumps(note))
    monkeypatch.chdir(project)
    assert ask(code).folder.path.parents[1] == Path("runs")


def test_what_is_there_already_is_found_from_here_or_from_the_project_and_is_one_run(project, monkeypatch):
    old = project / "runs" / "default" / "000-old-01234567"
    (old / "checkpoints").mkdir(parents=True)
    (old / "config.yaml").write_text(BASE)
    (old / "status.json").write_text(json.dumps({"state": "done"}))
    (old / "checkpoints" / "best.ckpt").write_text("")

    started, extended = set(), set()
    lines = [(".", "runs"), ("notebooks", "../runs"), ("notebooks", "runs"), ("notebooks", str(project / "runs"))]
    for here, runs in lines:
        monkeypatch.chdir(project / here)
        place = f"{runs}/default/{old.name}"
        assert ask(project, "--run", place).folder.path.resolve() == old
        new = ask(project, "--init_from", f"{place}/checkpoints/best.ckpt")
        started.add((new.identity, new.settings.flat["init_from"]))
        longer = ask(project, "--extend", place, "--trainer.max_epochs=9")
        extended.add((longer.identity, longer.settings.flat["extend"]))
    assert {path for _, path in started} == {f"runs/default/{old.name}/checkpoints/best.ckpt"} and len(started) == 1
    assert {path for _, path in extended} == {f"runs/default/{old.name}"} and len(extended) == 1
