"""Cross-validation: folds are ordinary runs, go on where they were, and end in means and standard deviations."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_hpc.planning.specification import expand, read_axes

SETTINGS = (
    "--folds 2 --name cv --trainer.max_epochs=6 --trainer.accelerator=cpu --model.network.width=4 --cka=null "
    "--checkpoints.every_n_steps=2 --trainer.log_every_n_steps=1"
).split()


def result(folder):
    (entry,) = json.loads((folder / "runs" / "cv" / "cross-validation.json").read_text())
    return entry


@pytest.fixture(scope="module")
def folders(project, tmp_path_factory):
    """A cross-validation that nobody has disturbed is in `whole`, one that was killed three times in `killed`."""
    scratch = tmp_path_factory.mktemp("folds")
    program = Path(__file__).with_name("forked_folds.py")
    subprocess.run([sys.executable, program, project, scratch, *SETTINGS], check=True, timeout=600)
    return scratch


@pytest.mark.slow
def test_killed_again_and_again_it_ends_equal_to_the_bit(folders):
    # SIGKILL in the first fold, SIGTERM and SIGUSR1 in the second; no means before all folds are done.
    assert json.loads((folders / "ends.json").read_text()) == [-signal.SIGKILL, 75, 76, False, 0]
    assert json.loads((folders / "attempts.json").read_text()) == [2, 2]  # a fold that was done is not begun anew
    whole, killed = folders / "whole", folders / "killed"
    results = [result(folder) for folder in (killed, whole)]
    assert [entry["settings"].pop("runs_dir") for entry in results] == [f"{folder}/runs" for folder in (killed, whole)]
    assert results[0] == results[1]
    for run in result(whole)["runs"]:
        one, other = (
            torch.load(place / "runs" / "cv" / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for place in (whole, killed)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_means_are_those_of_the_folds_and_folds_are_ordinary_runs(folders, train, monkeypatch, capsys):
    whole = folders / "whole"
    entry = result(whole)
    values = []
    for fold, run in enumerate(entry["runs"]):
        status = json.loads((whole / "runs" / "cv" / run / "status.json").read_text())
        assert f"fold={fold}" in run and status["state"] == "done" and status["name"] == "cv"
        values.append(status["metrics"])
    for name in ("val/acc", "val/loss", "train/acc"):
        numbers = [metrics[name] for metrics in values]
        assert entry["each_fold"][name] == numbers
        assert entry["metrics"][f"cross_validation_{name}"] == pytest.approx(sum(numbers) / 2)
        expected = abs(numbers[0] - numbers[1]) / math.sqrt(2)
        assert entry["metrics"][f"cross_validation_{name}_std"] == pytest.approx(expected) and expected > 0

    monkeypatch.chdir(whole)
    settings = [argument for argument in SETTINGS[2:] if argument not in ("--name", "cv")]
    fold = ["--data.mode=cross-validation", "--data.folds=2", "--data.fold=1", "--name=cv"]
    assert train("fit", *settings, *fold, defaults=True).code == 0
    assert "done already" in capsys.readouterr().out  # the same run, started in another way
    assert train("test", "--run", str(whole / "runs" / "cv" / entry["runs"][0])).code == 0


def run_folder(experiment, name, changes, state="done", **metrics):
    folder = experiment / name
    folder.mkdir(parents=True)
    (folder / "overlay.yaml").write_text(json.dumps(changes))  # JSON is YAML
    (folder / "status.json").write_text(json.dumps({"state": state, "metrics": metrics}))


def report(project, experiment):
    command = [sys.executable, project / "Report.py", "cross-validation", experiment]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})


def test_the_reducer_alone_keeps_settings_and_repetitions_apart(project, tmp_path):
    """On runs as the planner makes them from a request."""
    grid = {"model.optimizer.lr": [0.1, 0.2], "trial": {"repeat": 2}}
    experiment, accuracies = tmp_path / "grid", {}
    for index, overlay in enumerate(expand(read_axes({"parameters": grid, "folds": 3}))):
        lr, trial, fold = (overlay[key] for key in ("model.optimizer.lr", "trial", "data.fold"))
        value = lr + trial / 100 + fold / 1000
        accuracies.setdefault((lr, trial), []).append(value)
        run_folder(experiment, f"{trial:03d}-{index}", overlay, **{"val/acc": value})
    run_folder(experiment, "000-other", {"model.network.width": 3}, **{"val/acc": 1.0})
    done = report(project, experiment)
    assert done.returncode == 0, done.stderr
    entries = json.loads((experiment / "cross-validation.json").read_text())
    assert len(entries) == len(accuracies) == 4
    for entry in entries:
        expected = accuracies[entry["settings"]["model.optimizer.lr"], entry["settings"]["trial"]]
        assert entry["metrics"]["cross_validation_val/acc"] == pytest.approx(statistics.fmean(expected))
        assert entry["metrics"]["cross_validation_val/acc_std"] == pytest.approx(0.001)
    assert "lr=0.1 (3 of 3 folds): val/acc 0.101 ± 0.001" in done.stdout


def test_folds_that_are_missing_are_said_and_left_out_of_the_file(project, tmp_path):
    experiment = tmp_path / "cv"
    for fold, state in enumerate(("done", "failed", "running")):
        overlay = {"data.mode": "cross-validation", "data.folds": 3, "data.fold": fold}
        run_folder(experiment, f"000-fold={fold}", overlay, state, **{"val/acc": 0.5})
    done = report(project, experiment)
    assert done.returncode == 1 and "error: 2 folds are not done" in done.stderr
    assert "(1 of 3 folds): val/acc 0.5" in done.stdout
    assert not (experiment / "cross-validation.json").exists()
    nothing = report(project, tmp_path)
    assert (
        nothing.returncode == 2 and nothing.stderr.startswith("error: ") and "no runs of a cross-val" in nothing.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "1"], "--folds must be a whole number from 2 on, got 1"),
        (["--folds=many"], "--folds must be a whole number from 2 on, got many"),
        (["--folds"], "--folds needs a value"),
    ],
)
def test_wrong_usage_starts_nothing(train, tmp_path, capsys, arguments, message):
    assert train("crossvalidate", *arguments).code == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_fold_that_fails_ends_the_command_with_its_code(train, project, tmp_path, monkeypatch):
    from lightning_hpc.training import crossvalidation

    started = []
    monkeypatch.setattr(crossvalidation, "train", lambda wanted, *_: started.append(wanted) or 1)
    assert train("crossvalidate", "--folds=3").code == 1 and len(started) == 1
