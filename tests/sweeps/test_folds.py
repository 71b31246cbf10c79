"""A local sweep over cross-validations, with the real Train.py: the mean over the folds decides."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow


def test_the_mean_over_the_folds_is_optimized_and_a_killed_trial_goes_on(project, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(project, root)
    quick = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu", "--cka=null"]
    command = ["${env}", "${interpreter}", "Train.py", "crossvalidate", "--folds=2", "--name=folds", *quick, "${args}"]
    metric = dict(name="cross_validation_val/acc", goal="maximize")
    parameters = {"model.optimizer.lr": {"values": [1.0e-5, 0.01]}}
    config = dict(method="grid", metric=metric, command=command, parameters=parameters)
    (root / "sweep.yaml").write_text(yaml.safe_dump(config))

    program = Path(__file__).with_name("forked_sweep.py")
    done = subprocess.run([sys.executable, program, root], capture_output=True, text=True, timeout=600)
    said = {file.stem: file.read_text() for file in root.glob("*.txt")}
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{said}"
    assert json.loads((root / "ends.json").read_text()) == [0, 75, 0, 0], said
    assert "metric cross_validation_val/acc is logged" in said["created"]

    states = [json.loads(file.read_text())["state"] for file in root.glob("runs/folds/*/status.json")]
    assert states == ["done"] * 4
    results = [json.loads(file.read_text()) for file in sorted((root / "sweeps/sweep/trials").glob("*/result.json"))]
    assert [result["state"] for result in results] == ["done", "done"]
    reported = json.loads((root / "runs/folds/cross-validation.json").read_text())
    means = {each["settings"]["model.optimizer.lr"]: each["metrics"]["cross_validation_val/acc"] for each in reported}
    assert [result["value"] for result in results] == [means[1e-5], means[0.01]]
    assert "best: trial 1, cross_validation_val/acc" in said["status"]
