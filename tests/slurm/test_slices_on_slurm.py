"""Slices on a real SLURM: a run that fits into a gap, to the bit; arrays that go on from one slice to the next."""

from functools import partial

import pytest
import torch

pytestmark = pytest.mark.slow

# Takes its folder, gets ten steps further in each of three slices, and says at the end of the first two that its time
# is over, as one that SLURM has told of it. A run of trial 3 gets no further.
TRAIN = """\
import sys, time
from pathlib import Path
from lightning_hpc.runs.run import read_command_line

root = Path(__file__).resolve().parent
run = read_command_line("fit", sys.argv[2:], root)
with run.folder.locked():
    attempt = run.folder.start(name=run.group, identity=run.identity)
    time.sleep(1.5)
    if run.settings.flat["trial"] != 3:
        run.folder.update(step=10 * attempt)
    sys.exit(run.folder.end("time limit" if attempt < 3 else "done"))
"""


def trains(experiment, attempt: int) -> bool:
    """True if run 0 has trained its first batch of this attempt."""
    status = experiment.status(0)
    return status.get("attempt") == attempt and status["start_seconds"] is not None


def test_slices_fit_into_a_gap_that_a_whole_run_does_not(project, slurm):
    """Of two nodes one is taken; the other is free until a job comes that wants both, and is the first in line."""
    others = ["--exclusive", "--output=/dev/null"]
    taken = slurm.sbatch(*others, "--nodelist=127.0.0.1", "--time=15", "--wrap=sleep 900", cwd=slurm.folder)
    bigger = slurm.sbatch(*others, "--nodes=2", "--time=10", "--wrap=sleep 600", cwd=slurm.folder)

    # The pause is that of the first two attempts: each is told that its slice is over while it trains.
    parameters = {"model.pause": [0.5], "model.pauses": [2], "trainer.max_epochs": [4]}
    options = ["--no-check", "--partition=main", "--time=20"]
    whole = project.submit("whole", *options, parameters=parameters)
    sliced = project.submit("sliced", *options, "--slice=5", parameters=parameters)
    for attempt in (1, 2):
        sliced.wait(partial(trains, sliced, attempt), f"the first batch of slice {attempt}")
        assert slurm.job(f"{sliced.job}_0")["TimeLimit"] == "00:05:00"
        slurm.run("scancel", "--signal=USR1", f"{sliced.job}_0")
    sliced.wait_states("done")
    assert slurm.job(bigger)["JobState"] == "PENDING" and whole.states() == [None]
    status = sliced.status(0)
    assert (status["attempt"], status["restarts"]) == (3, 2)
    assert status["start_seconds"] > 0.5 and status["save_seconds"] > 0

    # What was measured decides about the next slices.
    spec = project.spec("next", parameters={"trial": [0]})
    submit = ["SlurmTrain.py", "submit", spec, "--dry-run", "--no-check", "--time=20"]
    assert "s in sliced: " in project.command(*submit, "--slice=10")
    said = project.command(*submit, "--slice=2", "--signal_seconds=110", code=2)
    assert "slice 2 is too short: a start took up to" in said and "s in sliced" in said

    slurm.run("scancel", taken, bigger)
    whole.wait_states("done")
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole.run(0), sliced.run(0))]
    one, other = (end["state_dict"] for end in ends)
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    assert len(whole.metrics(0)) == len(sliced.metrics(0))


@pytest.fixture
def quick(project, tmp_path):
    """The project with that Train.py, also for a cluster where nothing may be requeued."""
    quick = project.with_train(tmp_path / "a project", TRAIN)
    quick.forbid_requeue("strict")
    return quick


def test_where_the_queue_is_full_and_nothing_may_be_requeued_runs_wait_for_the_next_wave(quick, slurm):
    """A job that is to be submitted anew needs a second place in the queue while it still has its own."""
    quick.forbid_requeue("strict", "jobs_per_user: 4\n")
    slurm.limit_queue(4)
    try:
        options = ["--no-check", "--cluster=strict", "--time=20", "--slice=2"]
        experiment = quick.submit("waves", *options, parameters={"trial": [0, 1, 2, 4, 5, 6]})
        experiment.wait_states(*["done"] * 6)
        experiment.wait_empty()
    finally:
        slurm.limit_queue(None)
    assert [experiment.status(index)["attempt"] for index in range(6)] == [3] * 6
    logs = "".join(file.read_text() for file in experiment.logs.glob("*.log"))
    assert "the queue is full: the run waits for the next wave" in logs and "\nerror:" not in logs


@pytest.mark.parametrize("cluster", ["generic", "strict"])
def test_the_runs_of_an_array_go_on_two_at_a_time_and_one_that_does_not_has_failed(quick, slurm, cluster):
    options = ["--no-check", f"--cluster={cluster}", "--time=20", "--slice=2", "--throttle=2"]
    experiment = quick.submit("array", *options, parameters={"trial": list(range(5))})
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(most, slurm.run("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").count("_"))
        return experiment.states() == ["done", "done", "done", "failed", "done"]

    experiment.wait(all_ended, "all to end")
    experiment.wait_empty()
    assert most == 2
    assert [experiment.status(index)["attempt"] for index in range(5)] == [3, 3, 3, 1, 3]
    reason = experiment.status(3)["reason"]
    assert reason.startswith("no progress in a slice of 2: still at step 0. It has to hold a start (no batch was")
    why = quick.command("SlurmTrain.py", "status", "runs/array", "--why")
    assert "time: the time was not enough to get further, run 3" in why and "--slice" in why
