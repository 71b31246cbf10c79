"""A cross-validation in W&B: a run for each fold and one for their means, in one group; a sweep sees the means."""

import json
import os
import subprocess
import sys

import pytest

SETTINGS = (
    "--folds=2 --name=cv --trainer.max_epochs=1 --trainer.limit_train_batches=2 --trainer.accelerator=cpu --cka=null"
).split()


def crossvalidate(project, folder, **more):
    environment = {**os.environ, "PYTHONPATH": "", **more}
    command = [sys.executable, project / "Train.py", "crossvalidate", *SETTINGS]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((folder / "runs" / "cv" / "cross-validation.json").read_text())
    return entry


@pytest.mark.slow
def test_folds_and_means_are_in_one_group_and_a_sweep_sees_the_means(project, tmp_path, server, key):
    entry = crossvalidate(project, tmp_path)
    assert len(server.runs) == 3 and {run.group for run in server.runs.values()} == {"cv"}
    (means,) = [run for run in server.runs.values() if "cross_validation_val/acc" in run.summary]
    assert means.summary["cross_validation_val/acc"] == pytest.approx(entry["metrics"]["cross_validation_val/acc"])
    assert means.summary["cross_validation_val/loss_std"] == pytest.approx(
        entry["metrics"]["cross_validation_val/loss_std"]
    )
    assert means.name.startswith("cross-validation-folds=2,") and means.exit_codes == [0]
    assert means.settings["data"]["init_args"]["mode"] == "cross-validation"
    assert {run.name for run in server.runs.values()} - {means.name} == set(entry["runs"])

    # As a sweep's agent starts it, the folds being done: only the run that the sweep has chosen is reported.
    before = set(server.runs)
    crossvalidate(project, tmp_path, WANDB_SWEEP_ID="sweep123", WANDB_RUN_ID="chosen-by-the-sweep")
    assert set(server.runs) - before == {"chosen-by-the-sweep"}
    assert server.runs["chosen-by-the-sweep"].summary["cross_validation_val/acc"] == pytest.approx(
        entry["metrics"]["cross_validation_val/acc"]
    )
