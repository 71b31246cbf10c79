"""Four runs in one job on a real SLURM: what happens to one of them happens to no other, and changes no result.

This SLURM has no cgroups, so memory is limited by its other way: each second it looks, and kills the step that has more
than it has asked for. A job's plain processes, which are one step, would all be killed.
"""

import csv
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from private_slurm import PrivateSlurm
from submitted import Experiment, Project

pytestmark = pytest.mark.slow

# It needs too much memory, once.
GREEDY = """\
import os, time

from slow import Slow


class Greedy(Slow):
    def __init__(self, *args, megabytes: int = 0, **kwargs):
        super().__init__(*args, **kwargs)
        self.megabytes = 0 if os.environ.get("SLURM_RESTART_COUNT") else megabytes

    def training_step(self, batch, batch_idx):
        if self.megabytes and self.global_step == 12:
            taken = bytearray(os.urandom(2**20) * self.megabytes)
            time.sleep(30)
        return super().training_step(batch, batch_idx)
"""
MEASURED = ("seconds", "time/", "memory/", "usage/")


@pytest.fixture(scope="module")
def limited(project, slurm) -> Iterator[Project]:
    """The project, on a SLURM that limits memory."""
    (project.folder / "greedy.py").write_text(GREEDY)
    with PrivateSlurm(limits_memory=True) as strict:
        for name in ("WANDB_MODE", "OMP_NUM_THREADS", "HOME"):
            strict.environment[name] = slurm.environment[name]
        strict.environment.pop("PYTHONPATH", None)
        yield Project(project.folder, strict)


def kill(experiment: Experiment, index: int) -> None:
    os.kill(experiment.status(index)["pid"], signal.SIGKILL)


def assert_equal_to_the_bit(experiment: Experiment, references: dict) -> None:
    """The weights and the metrics of runs are those of runs that were alone, and that nothing has happened to."""
    for index, reference in references.items():
        mine, other = (
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for folder in (experiment.run(index), reference)
        )
        assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine), index
        assert computed(experiment.run(index)) == computed(reference)


def computed(run) -> list[dict[str, str]]:
    """The rows of metrics.csv that hold more than measured times and memory, without these."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for row in rows:
        values = {name: value for name, value in row.items() if value and not name.startswith(MEASURED)}
        if values.keys() - {"step", "epoch"}:
            kept.append(values)
    return kept


def test_one_is_killed_one_has_no_memory_one_fails_and_the_time_is_over(limited):
    """Run 0 and 4 are left alone. 1 is killed, 2 is out of memory, 3 fails: the rest of the pack goes on, and back."""
    slurm = limited.slurm
    runs = [{"trial": trial, "model.pause": 0.7} for trial in range(5)]
    runs[0]["model.pause"] = 2.5  # SLURM looks at time limits twice a minute
    runs[2] |= {"model.megabytes": 2000}
    runs[3] |= {"model.fails": True}
    shared = {"trainer.max_epochs": [4], "model.class_path": ["greedy.Greedy"]}
    options = ["--pack=4", "--memory=4600M", "--gpus=2", "--signal_seconds=32", "--no-check"]
    calls = len(slurm.sbatch_calls())
    experiment = limited.submit("packed", *options, search_space=runs, parameters=shared)
    (call,) = slurm.sbatch_calls()[calls:]
    assert "--array=0-1 " in call and call.endswith("pack.sbatch")
    job = experiment.job

    # All four side by side; one of them is killed, others end by themselves.
    experiment.wait(lambda: experiment.training(0) and experiment.training(1), "the first two to train")
    kill(experiment, 1)
    experiment.wait(lambda: experiment.status(2).get("state") == "preempted", "the third to be out of memory")
    experiment.wait(lambda: experiment.status(3).get("state") == "failed", "the fourth to fail")
    assert experiment.status(0)["state"] == "running" and slurm.job(f"{job}_0")["JobState"] == "RUNNING"
    said = limited.command("SlurmTrain.py", "status", "runs/packed")
    assert "1 failed" in said and "lost" not in said
    assert "memory limit" in experiment.log(2) and "fails on purpose" in experiment.log(3)

    # Its time is over for real: the run that trains saves, and all that are to go on come back.
    slurm.run("scontrol", "update", f"JobId={job}_0", "EndTime=now+33")
    experiment.wait_states("done", "done", "done", "failed", "done")
    experiment.wait_empty()
    assert slurm.job(f"{job}_0")["Restarts"] == "1"
    assert [experiment.status(index)["attempt"] for index in range(5)] == [2, 2, 2, 1, 1]
    assert {experiment.status(index)["slurm_job"] for index in (0, 1, 2)} == {slurm.job(f"{job}_0")["JobId"]}
    log = (experiment.logs / "pack-0.log").read_text()
    assert "time limit: put back into the queue" in log and log.count("run 3: started") == 1

    # What has failed is packed anew, alone.
    calls = len(slurm.sbatch_calls())
    limited.command("SlurmTrain.py", "retry", "runs/packed", "--yes")
    (call,) = slurm.sbatch_calls()[calls:]
    assert "--array=2 " in call
    experiment.wait_empty()
    assert experiment.status(3)["attempt"] == 2 and "5 runs: 4 done, 1 failed" in limited.command(
        "SlurmTrain.py", "status", "runs/packed"
    )
    assert_equal_to_the_bit(experiment, limited.undisturbed({"packed": (0, 1, 2, 4)})["packed"])


def test_a_pack_is_preempted_where_requeue_is_forbidden(project, slurm):
    """SLURM tells each step by itself, so all save in their 15 s of grace, and the pack is submitted anew."""
    project.forbid_requeue("packed")
    runs = {"trial": [0, 1], "model.pause": [0.3], "trainer.max_epochs": [4]}
    options = ["--cluster=packed", "--partition=patient", "--pack=2", "--no-check"]
    experiment = project.submit("packed-patient", *options, parameters=runs)
    job = experiment.job
    experiment.wait(lambda: experiment.training(0) and experiment.training(1), "both to train")
    slurm.sbatch("--partition=high", "--nodelist=127.0.0.3", "--exclusive", "--wrap=sleep 1", cwd=slurm.folder)
    experiment.wait_states("done", "done")
    experiment.wait_empty()
    assert experiment.job != job and [experiment.status(index)["attempt"] for index in (0, 1)] == [2, 2]
    assert all("saves and stops" in experiment.log(index) for index in (0, 1))
    assert_equal_to_the_bit(experiment, project.undisturbed({"packed-patient": (0, 1)})["packed-patient"])
