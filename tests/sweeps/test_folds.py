"""A local sweep over cross-validations, with the real Train.py: the mean over the folds decides."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from baked import project  # noqa: F401

pytestmark = pytest.mark.slow


def test_the_mean_over_the_folds_is_optimized_and_a_killed_trial_goes_on(project, tmp_path):  # noqa: F811
    root = tmp_path / "project"
    shutil.copytree(project, root)
    quick = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu", "--cka=null"]
    command = ["${env}", "${interpreter}", "Train.py", "crossvalidate", "--folds=2", "--name=folds", *quick, "${args}"]
    metric = dict(name="cross_validation_val/acc", goal="maximize")
    parameters = {"model.optimizer.lr": {"values": [1.0e-5, 0.01]}}
    config = dict(method="grid", metric=metric, command=command, parameters=parameters)
    (root / "sweep.yaml").write_text(yaml.safe_dump(config))

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "metric cross_validation_val/acc is logged" in run("CreateSweep.py", "sweep.yaml", "--local")

    agent = subprocess.Popen([sys.executable, "SweepAgent.py", "sweeps/sweep"], cwd=root)
    status = root / "runs" / "folds"
    end = time.monotonic() + 120
    while not [file for file in status.glob("*/status.json") if json.loads(file.read_text()).get("step")]:
        assert time.monotonic() < end and agent.poll() is None
        time.sleep(0.1)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(120) == 75

    run("SweepAgent.py", "sweeps/sweep")
    states = [json.loads(file.read_text())["state"] for file in status.glob("*fold=*/status.json")]
    states += [
        json.loads(file.read_text())["state"] for file in status.glob("*/status.json") if "fold=" not in str(file)
    ]
    assert states == ["done"] * 4
    results = [json.loads(file.read_text()) for file in sorted((root / "sweeps/sweep/trials").glob("*/result.json"))]
    assert [result["state"] for result in results] == ["done", "done"]
    reported = json.loads((root / "runs/folds/cross-validation.json").read_text())
    means = {each["settings"]["model.optimizer.lr"]: each["metrics"]["cross_validation_val/acc"] for each in reported}
    assert [result["value"] for result in results] == [means[1e-5], means[0.01]]
    assert "best: trial 1, cross_validation_val/acc" in run("CreateSweep.py", "--status", "sweeps/sweep")
