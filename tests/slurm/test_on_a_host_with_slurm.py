"""From a laptop: a project in one folder, a SLURM that only the host knows, and one login for a whole journey."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ACTIVATE = "export PATH={path} SLURM_CONF={conf} WANDB_MODE=disabled OMP_NUM_THREADS=1"


@pytest.fixture
def there(project, sshd, slurm, tmp_path):
    """The project's folder on the host, whose name holds what shells stumble over; and what the laptop knows of it."""
    folder = tmp_path / 'Zoë\'s 100% §1 "there"'
    folder.mkdir()
    path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
    activate = ACTIVATE.format(path=path, conf=slurm.environment["SLURM_CONF"])
    host = {"host": "there", "folder": str(folder), "activate": activate}
    hosts = project.folder / "configs" / "hosts"
    hosts.mkdir(exist_ok=True)
    (hosts / "private.yaml").write_text(yaml.safe_dump(host))
    sshd.forget_connections()
    yield folder
    shutil.rmtree(project.folder / "fetched", ignore_errors=True)


def on_laptop(project, sshd, *words, code=0):
    """A command of the project on a machine without SLURM; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=project.folder, env=sshd.environment, capture_output=True, text=True
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_from_plan_to_results_with_one_login_and_one_sbatch(project, sshd, slurm, there):
    spec = project.spec("away", parameters={"trial": [0, 1]}, resources={"gpus": 0, "cpus": 1})
    logins, calls, submissions = sshd.logins(), len(sshd.calls()), len(slurm.sbatch_calls())
    said = on_laptop(project, sshd, "SlurmTrain.py", "plan", spec, "--on", "private")
    assert "2 runs" in said and f"for there:{there}" in said
    assert len(sshd.calls()) == calls

    said = on_laptop(project, sshd, "SlurmTrain.py", "submit", spec, "--yes", "--on", "private")
    assert "submitted: " in said
    assert (sshd.logins() - logins, len(sshd.calls()) - calls) == (1, 1)
    assert len(slurm.sbatch_calls()) - submissions == 1
    assert not (project.folder / "runs" / "away").exists()

    look = ("SlurmTrain.py", "status", "runs/away", "--on", "private")
    slurm.wait(lambda: "2 done" in on_laptop(project, sshd, *look), "both runs", 300, there / "runs" / "away")
    said = on_laptop(project, sshd, "SlurmTrain.py", "retry", "runs/away", "--yes", "--on", "private")
    assert "nothing to submit again" in said

    said = on_laptop(project, sshd, "SlurmTrain.py", "fetch", "runs/away", "--on", "private")
    fetched = project.folder / "fetched" / "private" / "away"
    rows = [json.loads(line) for line in (fetched / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        run, original = fetched / row["folder"], there / "runs" / "away" / row["folder"]
        assert (run / "metrics.csv").read_bytes() == (original / "metrics.csv").read_bytes()
        assert not list(run.rglob("*.ckpt")) and list(original.rglob("*.ckpt"))
    assert len(json.loads(on_laptop(project, sshd, "Report.py", "table", fetched, "--json"))) == 2

    # All of it was one login.
    assert sshd.logins() - logins == 1
    assert len(slurm.sbatch_calls()) - submissions == 1
