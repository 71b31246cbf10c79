"""From overlays to runs: identities, names and folders; and back, from an experiment's folder to the same run."""

import json
import os
import time
from pathlib import Path

import pytest

from lightning_hpc.experiments import writing
from lightning_hpc.experiments.experiment import Experiment, only_submission
from lightning_hpc.locks import lock as locks
from lightning_hpc.planning.plan import plan
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.runs.run import read_command_line
from lightning_hpc.settings.errors import SettingsError

BASE = """
name: default
data: {class_path: my.Digits, init_args: {batch_size: 64}}
model:
  class_path: my.Classifier
  init_args:
    network: {class_path: my.ConvNet, init_args: {width: 32}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.003, weight_decay: 0.01}}
trainer: {max_epochs: 15}
"""


KINDS = "class Net:\n    def __init__(self, version: str = '', rates: dict[str, float] = {}): ...\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "configs" / "trainer").mkdir(parents=True)
    (tmp_path / "configs" / "base.yaml").write_text(BASE)
    (tmp_path / "configs" / "trainer" / "short.yaml").write_text("trainer: {max_epochs: 1}\n")
    (tmp_path / "Train.py").write_text("print('first')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SPEC = {
    "name": "study",
    "configs": ["trainer/short.yaml"],
    "parameters": {
        "model.optimizer": ["SGD", "AdamW"],
        "model.optimizer.lr": [1e-3, 1e-2],
        "note": ["1e-3", [8, 16], {"deep": True}, None, "ä/b c"],
        "data.batch_size": [8],
    },
}


def written(root, spec=SPEC, **options):
    found = plan(spec, root)
    return found, writing.write(found, root, {"cluster": "generic"}, "the request\n", **options)


def test_runs_whose_identities_begin_alike_have_folders_of_their_own(root, monkeypatch):
    from lightning_hpc.planning import plan as plan_module
    from lightning_hpc.runs import run as run_module

    numbers = iter(range(100))
    monkeypatch.setattr(run_module, "identity", lambda flat, version: f"0123abcd{next(numbers):08x}")
    monkeypatch.setattr(plan_module, "varying_keys", lambda overlays: set())
    found = plan({"name": "study", "parameters": {"data.batch_size": [8, 16, 32]}}, root)
    assert [run.folder for run in found.runs] == ["000-base-0123abcd", "000-base-2-0123abcd", "000-base-3-0123abcd"]


def test_a_planned_text_and_mapping_are_those_of_a_command_line(root):
    (root / "kinds.py").write_text(KINDS)
    rates = {"block1.conv": 0.1}
    parameters = {"model.network": ["kinds.Net"], "model.network.version": ["1.10"], "model.network.rates": [rates]}
    (planned,) = plan({"name": "study", "parameters": parameters}, root).runs
    line = ["--model.network=kinds.Net", "--model.network.version=1.10", "--model.network.rates={block1.conv: 0.1}"]
    by_hand = read_command_line("fit", line, root)
    assert planned.identity == by_hand.identity and by_hand.changes["model.network.rates"] == rates


def test_a_planned_run_is_the_run_that_one_would_start_by_hand(root):
    found = plan({"name": "study", "parameters": {"model.optimizer.lr": [0.01, 0.1], "data.batch_size": [8]}}, root)
    by_hand = read_command_line("fit", ["--data.batch_size=8", "--name", "study", "--model.optimizer.lr", "1e-1"], root)
    assert found.runs[1].identity == by_hand.identity
    assert found.folder == by_hand.folder.path.parent == Path("runs/study")
    # Names are made of what varies; a run by hand is named by all that it changes.
    assert found.runs[1].folder == f"000-lr=0.1-{by_hand.identity[:8]}"
    assert by_hand.folder.path.name == f"000-batch_size=8,lr=0.1-{by_hand.identity[:8]}"


def test_started_by_hand_a_planned_run_is_found_in_its_planned_folder(root):
    found = plan({"name": "study", "parameters": {"model.optimizer.lr": [0.1], "data.batch_size": [8]}}, root)
    planned = found.folder / found.runs[0].folder
    planned.mkdir(parents=True)
    (planned / "status.json").write_text(json.dumps(dict(identity=found.runs[0].identity)))
    by_hand = read_command_line("fit", ["--data.batch_size=8", "--name=study", "--model.optimizer.lr=0.1"], root)
    assert by_hand.folder.path == planned


def test_names_are_unique_and_path_safe(root):
    found, _ = written(root)
    names = [run.folder for run in found.runs]
    assert len(set(names)) == len(names) == 20
    assert all(name == name.encode("ascii").decode() and not set(name) & set(" /'\"\\$*?\n") for name in names)


def test_what_is_written_reads_back_as_the_same_runs(root):
    """Text that looks like a number, lists, maps, None and unicode survive the way through files."""
    found, experiment = written(root)
    assert [row["identity"] for row in experiment.rows] == [run.identity for run in found.runs]
    for run in found.runs:
        again = read_command_line("fit", ["--run", str(experiment.folder), "--index", str(run.index)], root)
        assert again.identity == run.identity
        assert again.settings.flat == found.settings_of(run).flat
        assert again.folder.path == experiment.folder / run.folder
        assert again.changes == run.overlay


def test_the_settings_are_frozen_when_they_are_submitted(root):
    found, experiment = written(root)
    (root / "configs" / "base.yaml").write_text(BASE.replace("0.003", "0.5"))
    (root / "configs" / "trainer" / "short.yaml").unlink()
    again = read_command_line("fit", ["--run", str(experiment.folder), "--index", "3"], root)
    assert again.identity == found.runs[3].identity and again.settings.flat["trainer.max_epochs"] == 1


def test_a_planned_run_takes_no_other_settings(root):
    _, experiment = written(root)
    arguments = ["--run", str(experiment.folder), "--index", "3"]
    assert read_command_line("fit", [*arguments, "--resume", "must"], root).identity == experiment.rows[3]["identity"]
    with pytest.raises(SettingsError, match="leave out --run"):
        read_command_line("fit", [*arguments, "--model.optimizer.lr=7"], root)
    with pytest.raises(SettingsError, match="has no such run"):
        read_command_line("fit", ["--run", str(experiment.folder), "--index", "99"], root)
    with pytest.raises(SettingsError, match="is no planned experiment"):
        read_command_line("fit", ["--run", "nowhere", "--index", "0"], root)


def test_different_overlays_that_mean_the_same_run_are_planned_once(root):
    found = plan(
        {"name": "x", "search_space": [{"data.batch_size": 64}, {"trainer.max_epochs": 15}, {"data.batch_size": 8}]},
        root,
    )
    assert [run.overlay for run in found.runs] == [{"data.batch_size": 64}, {"data.batch_size": 8}]
    assert [run.index for run in found.runs] == [0, 1]
    assert any("repeats run 0" in note for note in found.notes)


def test_the_identity_does_not_depend_on_order_or_number_format(root):
    first = plan({"name": "x", "parameters": {"data.batch_size": [8], "model.optimizer.lr": [0.01]}}, root)
    second = plan({"name": "x", "parameters": {"model.optimizer.lr": [1.0e-2], "data.batch_size": [8.0]}}, root)
    other = plan(
        {"name": "x", "codeversion": 2, "parameters": {"data.batch_size": [8], "model.optimizer.lr": [0.01]}}, root
    )
    assert first.runs[0].identity == second.runs[0].identity != other.runs[0].identity


def test_what_the_user_should_know_is_noted(root):
    assert plan({"name": "x", "parameters": {"data.batch_size": [8, 8.0]}}, root).notes == ["1 duplicates are left out"]
    spec = {"name": "x", "space": {"data.batch_size": {"values": [8, 16]}}, "trials": 5}
    assert plan(spec, root).notes == ["the space has no more than 2 different runs, 5 were asked for"]
    assert plan(SPEC, root).summary() == "20 runs = 2 model.optimizer × 2 model.optimizer.lr × 5 note"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": None}, "needs a name"),
        ({"name": "a/b"}, "can't name an experiment"),
        ({"configs": ["trainer/shirt.yaml"]}, r"no such settings file: trainer/shirt.yaml"),
        ({"parameters": {"name": ["a", "b"]}}, "name is the same for all runs"),
        ({"parameters": {"trainer.devices": [1, 2]}}, "trainer.devices is the same for all runs"),
        ({"parameters": {"trial": [-1]}}, "run 0: --trial must be a whole number"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(root, change, message):
    with pytest.raises(SettingsError, match=message):
        plan({**SPEC, **change}, root)


def test_a_plan_writes_nothing(root):
    before = sorted(root.rglob("*"))
    plan(SPEC, root)
    assert sorted(root.rglob("*")) == before


def test_a_thousand_runs_are_planned_in_less_than_three_seconds(root):
    rates = {"linspace": {"start": 0.001, "stop": 1, "num": 100}}
    started = time.process_time()
    found = plan({"name": "x", "parameters": {"model.optimizer.lr": rates, "data.batch_size": {"repeat": 10}}}, root)
    assert len(found.runs) == 1000
    assert time.process_time() - started < 3


# The experiment's folder


def test_the_manifest_is_written_last_and_what_was_half_written_is_replaced(root, monkeypatch):
    def fail(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_atomically", fail)
        with pytest.raises(OSError):
            written(root)
    with pytest.raises(SettingsError, match="is no planned experiment"):
        Experiment(root / "runs" / "study")
    (root / "runs" / "study" / "code" / "left.py").write_text("")
    _, experiment = written(root)
    assert len(experiment.rows) == 20 and not (experiment.code / "left.py").exists()


def test_an_experiment_is_not_overwritten_and_with_overwrite_it_is_kept(root, monkeypatch):
    _, experiment = written(root)
    (experiment.folder / "result").write_text("precious")
    with pytest.raises(SettingsError, match="study is there already, with 20 runs"):
        written(root)
    monkeypatch.setenv("PATH", str(root / "bin"))
    with pytest.raises(SettingsError, match="squeue does not answer"):  # so something of it may be running
        written(root, overwrite=True)
    (root / "bin").mkdir()
    (root / "bin" / "squeue").write_text("#!/bin/sh\n")  # an empty queue
    (root / "bin" / "squeue").chmod(0o755)
    written(root, overwrite=True)
    assert not (experiment.folder / "result").exists()
    assert (root / "runs" / ".old" / "study-1" / "result").read_text() == "precious"


def test_two_submissions_at_once_do_not_clash(root):
    (root / "runs").mkdir()
    with only_submission(root / "runs" / "study"):
        with pytest.raises(SettingsError, match="study is being submitted by another process .*: process"):
            with only_submission(root / "runs" / "study"):
                pass
        with only_submission(root / "runs" / "other"):
            pass
    with only_submission(root / "runs" / "study"):
        pass


def test_a_folder_in_which_one_cannot_write_is_said_and_whose_it_is(root, monkeypatch):
    (root / "runs").mkdir()

    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "open", refuse)
        with pytest.raises(SettingsError, match="belongs to user .* and you can't write it"):
            with only_submission(root / "runs" / "study"):
                pass


def test_a_run_that_somebody_trains_by_hand_keeps_its_folder(root, monkeypatch):
    """--overwrite would move it away under its feet, though SLURM has no job of it."""
    _, experiment = written(root)
    (root / "bin").mkdir()
    (root / "bin" / "squeue").write_text("#!/bin/sh\n")
    (root / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(root / "bin"))
    run = RunFolder(experiment.folder / experiment.rows[3]["folder"])
    with run.locked():
        with pytest.raises(SettingsError, match=f"run 3 of study is running, by hand: process {os.getpid()} on"):
            written(root, overwrite=True)
        run.start()
        with pytest.raises(SettingsError, match="run 3 of study is running, by hand"):
            written(root, overwrite=True)
    run.end("interrupted")
    written(root, overwrite=True)


def test_a_new_snapshot_stands_beside_the_old_one(root):
    _, experiment = written(root)
    (root / "Train.py").write_text("print('second')\n")
    old = experiment.code
    for _ in range(10):
        experiment.take_code(root)
    assert experiment.code.name == "code-11"
    assert "first" in (old / "Train.py").read_text() and "second" in (experiment.code / "Train.py").read_text()


def test_what_all_runs_share_may_add_settings(root):
    """As resources do: a job of two nodes is told so."""
    asked = []
    found = plan(SPEC, root, extra=lambda settings: asked.append(settings) or {"trainer.num_nodes": 2})
    assert asked[0]["trainer.max_epochs"] == 1 and asked[0]["model.optimizer.lr"] == 0.003
    assert found.runs[0].identity != plan(SPEC, root).runs[0].identity  # two nodes have other batches than one
    assert ({"trainer.num_nodes": 2}, "resources") in found.layers
    assert plan(SPEC, root, extra=lambda settings: {}).layers == plan(SPEC, root).layers


def test_a_code_version_is_one_of_the_settings_of_all_runs(root):
    versions = [
        plan({**SPEC, **more}, root) for more in ({}, {"codeversion": 1.5}, {"codeversion": "1.5"}, {"codeversion": 2})
    ]
    assert [len({found.runs[0].identity for found in versions[:count]}) for count in (1, 2, 3, 4)] == [1, 2, 2, 3]
    assert versions[1].layers[-1][0]["codeversion"] == "1.5"


def test_a_plan_keeps_its_specification_and_name(root):
    found = plan(SPEC, root, name="other")
    assert (found.name, found.specification, found.folder) == ("other", SPEC, Path("runs/other"))


def test_names_hold_what_is_not_the_same_in_all_runs(root):
    grids = [{"note": [1], "data.batch_size": [8]}, {"note": [1], "trial": [3]}, {"note": [1]}]
    runs = plan({"name": "study", "parameters": {"LIST": grids}}, root).runs
    assert [run.folder[:-9] for run in runs] == ["000-batch_size=8", "003-base", "000-base"]


@pytest.mark.parametrize("trials", [3, 4])
def test_a_space_with_fewer_runs_than_were_asked_for_is_said(root, trials):
    space = {"model.optimizer.lr": {"values": [1, 2, 3]}}
    found = plan({"name": "study", "space": space, "trials": trials}, root)
    assert len(found.runs) == 3
    assert ("no more than 3 different runs" in str(found.notes)) == (trials == 4)


@pytest.mark.parametrize("name", [7, ["a"], None, "", "a b/../c"])
def test_a_name_that_is_none_is_refused(root, name):
    with pytest.raises(SettingsError, match="name"):
        plan({**SPEC, "name": name}, root)
