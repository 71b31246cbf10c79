"""Agents of a sweep as an array of a real SLURM: what ends them early costs no trial, in W&B and without it."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1] / "wandb"))
from sweep_stand_in import SweepStandIn  # noqa: E402

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef" * 2 + "secret42"
FIT = ["Train.py", "fit", "--config=quick.yaml", "--model.pause=0.3", "--trainer.max_epochs=4"]


def write_sweep(project, name):
    rates = {"model.optimizer.lr": {"values": [0.001, 0.002, 0.003]}}
    command = ["${env}", "${interpreter}", *FIT, f"--name={name}", "${args}"]
    metric = {"name": "val/loss_best", "goal": "minimize"}
    config = dict(name=name, method="grid", metric=metric, parameters=rates, command=command)
    (project.folder / "configs" / "sweeps" / f"{name}.yaml").write_text(yaml.safe_dump(config))


def statuses(project, name):
    return [json.loads(file.read_text()) for file in (project.folder / "runs" / name).glob("*/status.json")]


def disturb_both(project, slurm, name, job):
    """One agent hears of its time limit, the other is requeued by SLURM, as after a preemption."""
    slurm.wait(lambda: len(statuses(project, name)) == 2, "two runs", 120)
    slurm.run("scancel", "--batch", "--signal=USR1", f"{job}_1")
    slurm.run("scontrol", "requeue", f"{job}_2")


def submit(project, name, *options, **environment):
    said = project.command(
        "CreateSweep.py", name, "--agents=2", "--submit", "--no-metric-check", *options, **environment
    )
    return said.partition("2 agents: job ")[2].partition(";")[0]


@pytest.fixture
def in_slices(project):
    """Jobs of the project are slices of ten minutes."""
    file = project.folder / "configs" / "slurm.yaml"
    text = file.read_text()
    file.write_text(f"{text}\nslice: 10\n")
    yield
    file.write_text(text)


def test_local_agents_go_on_with_their_own_trials(project, slurm, in_slices):
    write_sweep(project, "local-rates")
    job = submit(project, "local-rates", "--local")
    assert slurm.job(f"{job}_1")["TimeLimit"] == "00:10:00"
    disturb_both(project, slurm, "local-rates", job)
    slurm.wait_for([f"{job}_1", f"{job}_2"], "COMPLETED", seconds=600, logs=project.folder)
    trials = sorted((project.folder / "sweeps" / "local-rates" / "trials").iterdir())
    results = [json.loads((trial / "result.json").read_text()) for trial in trials]
    assert [result["state"] for result in results] == ["done"] * 3
    slots = [[json.loads(file.read_text())["slot"] for file in sorted(trial.glob("attempt-*"))] for trial in trials]
    assert sorted(map(len, slots)) == [1, 2, 2]  # two were disturbed, and each went on where it was
    assert all(len(set(each)) == 1 for each in slots)
    assert sorted(each["attempt"] for each in statuses(project, "local-rates")) == [1, 2, 2]
    assert "best: trial" in project.command("CreateSweep.py", "--status", "sweeps/local-rates")


def test_runs_of_wandb_agents_come_back(project, slurm, monkeypatch):
    write_sweep(project, "rates")
    with SweepStandIn() as server:
        server.gone = 25.0  # more than a run needs to start on a busy machine
        variables = dict(WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY, WANDB_MODE="online")
        job = submit(project, "rates", **variables, WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL="1")
        # SLURM's requeue kills W&B's core with everything else, so W&B must have heard that the runs want to come back.
        marked = lambda: [run.preempting for run in server.sweep.runs.values()] == [True, True]  # noqa: E731
        slurm.wait(lambda: server.sweep and marked(), "both runs to be known to W&B", 120, project.folder)
        disturb_both(project, slurm, "rates", job)
        slurm.wait_for([f"{job}_1", f"{job}_2"], "COMPLETED", seconds=600, logs=project.folder)
        runs = server.sweep.runs.values()
        assert [run.state for run in runs] == ["finished"] * 3 and set(server.runs) == {run.id for run in runs}
        assert sum(run.handed_out for run in runs) == 5
        for run in server.runs.values():
            assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    assert sorted(each["attempt"] for each in statuses(project, "rates")) == [1, 2, 2]
    assert {each["state"] for each in statuses(project, "rates")} == {"done"}
    assert KEY not in "".join(file.read_text() for file in project.folder.rglob("*.sbatch"))
