"""A cross-validation in W&B: a run for each fold and one for their means, in one group; a sweep sees the means."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = (
    "--folds=2 --name=cv --trainer.max_epochs=1 --trainer.limit_train_batches=2 --trainer.accelerator=cpu --cka=null"
).split()


@pytest.mark.slow
def test_folds_and_means_are_in_one_group_and_the_means_are_the_sweeps_run(project, tmp_path, server, key):
    environment = {
        **os.environ,
        "PYTHONPATH": "",
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "chosen-by-the-sweep",  # as its agent says; folds are runs of their own
    }
    program = Path(__file__).parents[1] / "data" / "forked.py"
    command = [sys.executable, program, project, tmp_path, *SETTINGS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "runs" / "cv" / "cross-validation.json").read_text())

    assert len(server.runs) == 3 and {run.group for run in server.runs.values()} == {"cv"}
    means = server.runs.pop("chosen-by-the-sweep")
    assert means.name.startswith("cross-validation-folds=2,") and means.exit_codes == [0]
    assert means.settings["data"]["init_args"]["mode"] == "cross-validation"
    for name, value in entry["metrics"].items():
        assert means.summary[name] == pytest.approx(value)
    assert {run.name for run in server.runs.values()} == set(entry["runs"])
    assert all("val/acc" in run.summary and run.exit_codes == [0] for run in server.runs.values())
