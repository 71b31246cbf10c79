"""Where it has to end: arrays of limited size, runs that come back for ever; and the one message at the end."""

import os

import pytest

pytestmark = pytest.mark.slow


def test_a_large_experiment_is_several_arrays_and_one_message(project, slurm, webhook):
    """On a cluster of one's own, dropped into configs/clusters, whose arrays have two elements at most."""
    address = os.environ["NOTIFY_WEBHOOK"]
    clusters = project.folder / "configs" / "clusters"
    (clusters / "small.yaml").write_text((clusters / "generic.yaml").read_text() + "\narray_limit: 2\n")
    calls = len(slurm.sbatch_calls())
    spec = project.spec("large", parameters={"trial": [0, 1, 2]})
    submit = ["SlurmTrain.py", "submit", spec, "--yes", "--no-check", "--cluster", "small"]
    project.command(*submit, NOTIFY_WEBHOOK=address)
    first, second, notify = slurm.sbatch_calls()[calls:]
    assert "--array=0-1 " in first and "--array=0 " in second and second.endswith("job.sbatch 2")
    assert "--dependency=afterany:" in notify
    experiment = project.experiment("large")
    experiment.wait_states("done", "done", "done")
    experiment.wait_empty()
    assert "run folder" in (experiment.logs / "2+0.log").read_text()  # run 2 is element 0 of the second array
    assert [message["text"] for message in webhook] == ["large has ended\n3 runs: 3 done"]
    assert address not in "".join(file.read_text() for file in experiment.folder.glob("*.sbatch"))


def test_a_run_does_not_come_back_for_ever(project, slurm):
    """Run 0 is told of the time limit more often than max_requeues allows; run 1 is put back before it has saved."""
    runs = [
        {"model.pause": 1.0, "trainer.max_epochs": 50, "model.pauses": 9},
        {"model.pause": 1000.0, "model.pauses": 9},
    ]
    experiment = project.submit("for-ever", "--no-check", "--max_requeues", "1", search_space=runs)

    def starts(index: int) -> int:
        log = experiment.logs / f"{index}.log"
        return log.read_text().count("run folder: ") if log.exists() else 0

    for attempt in (1, 2):
        experiment.wait(lambda: starts(0) == starts(1) == attempt, f"start {attempt} of both")  # noqa: B023
        slurm.run("scancel", "--signal=USR1", f"{experiment.job}_0")
        slurm.run("scontrol", "requeue", f"{experiment.job}_1")
    experiment.wait_states("failed", "failed")
    experiment.wait_empty()
    assert experiment.status(0)["reason"] == "put back into the queue 1 times, which is max_requeues"
    assert experiment.status(1)["reason"].startswith("no progress between two restarts: still at step 0")
    assert "2 runs: 2 failed" in project.command("SlurmTrain.py", "status", "runs/for-ever")
