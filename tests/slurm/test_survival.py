"""What ends a job early, on a real SLURM: the run goes on in its folder and ends with the very same weights."""

import pytest
import torch

pytestmark = pytest.mark.slow


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_undisturbed(project, experiment, *indices: int) -> None:
    """The runs' weights and metrics are those of runs that nothing has happened to."""
    for index, reference in project.undisturbed(experiment, *indices).items():
        mine, other = weights(experiment.run(index)), weights(reference)
        assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine), index
        rows = (reference / "metrics.csv").read_text().splitlines()
        assert len(experiment.metrics(index)) == len(rows) - 1


def test_every_fault_in_one_array(project, slurm):
    """0 told of the time limit, 1 out of time for real, 2 requeued by hand, 3 cancelled, 4 fails, 5 left alone."""
    runs = [{"model.pause": 0.5, "trial": trial} for trial in range(4)] + [{"model.fails": True}, {"trial": 5}]
    runs[1]["model.pause"] = 1.2
    experiment = project.submit(
        "faults", "--signal_seconds", "40", search_space=runs, parameters={"trainer.max_epochs": [5]}
    )  # fmt: skip
    job = experiment.job
    faults = [
        ["scancel", "--signal=USR1", f"{job}_0"],
        ["scontrol", "update", f"JobId={job}_1", "EndTime=now+50"],  # looked at every 30 s
        ["scontrol", "requeue", f"{job}_2"],
        ["scancel", f"{job}_3"],
    ]
    experiment.when_training(dict(enumerate(faults)))
    experiment.wait_states("done", "done", "done", "preempted", "failed", "done")
    experiment.wait_empty()

    restarts = {index: slurm.job(f"{job}_{index}")["Restarts"] for index in range(6)}
    assert restarts == {0: "1", 1: "1", 2: "1", 3: "0", 4: "0", 5: "0"}  # a cancelled run stays cancelled
    states = {index: slurm.job(f"{job}_{index}")["JobState"] for index in range(6)}
    assert states == {index: "COMPLETED" for index in (0, 1, 2, 5)} | {3: "CANCELLED", 4: "FAILED"}
    assert slurm.job(f"{job}_4")["ExitCode"] == "1:0"
    assert [experiment.status(index)["attempt"] for index in range(6)] == [2, 2, 2, 1, 1, 1]
    assert "time limit: put back into the queue" in experiment.log(0)
    assert "time limit: put back into the queue" in experiment.log(1)
    assert experiment.log(0).count("run folder: ") == 2  # one log, continued
    assert "fails on purpose" in experiment.status(4)["reason"]
    said = project.command("SlurmTrain.py", "status", "runs/faults")
    assert "6 runs: 4 done, 1 stopped, 1 failed" in said

    calls = len(slurm.sbatch_calls())
    project.command("SlurmTrain.py", "retry", "runs/faults", "--yes")
    (call,) = slurm.sbatch_calls()[calls:]
    assert "--array=3-4 " in call
    experiment.wait_states("done", "done", "done", "done", "failed", "done")
    assert experiment.status(3)["attempt"] == 2 and experiment.status(5)["attempt"] == 1
    assert_undisturbed(project, experiment, 0, 1, 2, 3)


def test_preemption(project, slurm):
    """By a higher partition: at once in `main`; with 15 s of grace in `patient`, where SLURM requeues nothing."""
    grid = {"model.pause": [0.5], "trainer.max_epochs": [4]}
    experiments = [
        project.submit(name, "--partition", name, "--no-check", parameters=grid) for name in ("main", "patient")
    ]
    for experiment in experiments:
        experiment.wait(lambda each=experiment: each.training(0), "the run to train")
    slurm.sbatch("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=slurm.folder)
    for experiment in experiments:
        experiment.wait_states("done")
        assert experiment.status(0)["attempt"] == 2
        assert_undisturbed(project, experiment, 0)


def test_a_node_fails(project, slurm):
    """The node is down: the run goes on where SLURM puts it. Its slurmd is killed: the run does not notice."""
    grid = {"model.pause": [0.7], "trainer.max_epochs": [3]}
    experiment = project.submit("node", "--no-check", parameters=grid)
    job = f"{experiment.job}_0"
    experiment.wait(lambda: experiment.training(0), "the run to train")
    slurm.run("scontrol", "update", f"NodeName={slurm.job(job)['NodeList']}", "State=DOWN", "Reason=test")
    experiment.wait(lambda: experiment.status(0)["attempt"] == 2 and experiment.training(0), "the second attempt")
    node = slurm.job(job)["NodeList"]
    slurm.kill_node(node)
    experiment.wait_states("done")
    slurm.revive_node(node)
    slurm.wait_for(job, "COMPLETED")
    assert slurm.job(job)["Restarts"] == "1" and experiment.status(0)["attempt"] == 2
    assert_undisturbed(project, experiment, 0)


def test_two_ranks_are_stopped_without_a_deadlock(project, slurm):
    """One node × two ranks and two nodes × one: rank 0 is asleep in Python, rank 1 waits for it in an all-reduce."""
    grid = {"model.pause": [0.5], "trainer.max_epochs": [2], "trainer.strategy": ["ddp"], "data.batch_size": [16]}
    shapes = {"two-tasks": ["--tasks", "2", "--gpus", "2"], "two-nodes": ["--nodes", "2"]}
    experiments = []
    for name, shape in shapes.items():
        experiment = project.submit(name, *shape, "--no-check", parameters=grid)
        experiments.append(experiment)
        experiment.when_training({0: ["scancel", "--signal=USR1", f"{experiment.job}_0"]})
        assert slurm.job(f"{experiment.job}_0")["NumNodes"] == str(1 + (name == "two-nodes"))
    for experiment in experiments:
        experiment.wait_states("done")
        assert experiment.status(0)["attempt"] == 2
        assert (experiment.run(0) / "logs" / "rank-1.log").exists()
    # The same samples in the same order, whichever way the ranks are placed.
    first, second = (weights(experiment.run(0)) for experiment in experiments)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_where_requeue_is_forbidden(project, slurm):
    """The element is submitted anew instead, and finds its run."""
    preset = project.folder / "configs" / "clusters" / "strict.yaml"
    preset.write_text(
        "description: No requeue\nsource: https://example.org\nchecked: 2026-01-02\nstatus: current\nrequeue: false\n"
    )
    grid = {"model.pause": [0.5], "trainer.max_epochs": [2]}
    experiment = project.submit("strict", "--cluster", "strict", "--no-check", parameters=grid)
    first = experiment.job
    experiment.when_training({0: ["scancel", "--signal=USR1", f"{first}_0"]})
    experiment.wait_states("done")
    assert experiment.job != first and experiment.status(0)["attempt"] == 2
    assert slurm.job(f"{first}_0")["ExitCode"] == "76:0"
    assert_undisturbed(project, experiment, 0)
