"""Runs in a container on a real SLURM. Apptainer itself is a script here: it is in no package of Debian 12.

The script does what matters: it clears the environment but for what has its prefix, and becomes the command.
"""

import sys
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

APPTAINER = """#!/bin/bash
printf '%s\\n' "$*" >> "$0.calls"
while [ "${1%.sif}" = "$1" ]; do shift; done
shift
for name in $(compgen -e); do
    case $name in APPTAINERENV_*) kept+=("${name#APPTAINERENV_}=${!name}") ;; esac
done
exec env -i PATH="$PATH" "${kept[@]}" "$@"
"""


def test_a_run_in_a_container_saves_at_its_limit_and_goes_on(project, slurm, tmp_path):
    fake = tmp_path / "bin" / "apptainer"
    fake.parent.mkdir()
    fake.write_text(APPTAINER)
    fake.chmod(0o755)
    (tmp_path / "an image.sif").touch()
    resources = {
        "container": str(tmp_path / "an image.sif"),
        "before": f'export PATH="{fake.parent}:{Path(sys.executable).parent}:$PATH" ONLY_OUTSIDE=1',
        "environment": {"WANDB_MODE": "disabled"},
    }
    parameters = {"model.pause": [0.5], "trainer.max_epochs": [4]}
    experiment = project.submit(
        "contained", "--no-check", "--partition=main", parameters=parameters, resources=resources
    )
    experiment.wait(partial(experiment.training, 0), "run 0 to train")
    slurm.run("scancel", "--signal=USR1", f"{experiment.job}_0")
    experiment.wait_states("done")

    status = experiment.status(0)
    assert (status["attempt"], status["restarts"], status["slurm_job"] is not None) == (2, 1, True)
    assert status["start_seconds"] > 0  # JOB_BEGAN has got in
    calls = Path(f"{fake}.calls").read_text().splitlines()
    assert len(calls) == 2 and all(call.startswith("exec --nv --cleanenv --no-home --pwd=") for call in calls)
    assert (project.folder / ".cache").is_dir()
