"""What ends a job early, on a real SLURM: the run resumes in its folder and ends with the very same weights.

All experiments are submitted at the beginning, each run is disturbed when it has trained for an epoch, and then they
all come to their end at the same time: most of the time is waiting.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

pytestmark = pytest.mark.slow

# Disturbed runs that are compared with runs that nothing has happened to.
COMPARED = {"faults": (0, 1, 2, 3), "restless": (0,), "patient": (0,), "node": (0,), "strict": (0,)}


@pytest.fixture
def nothing_left() -> None:
    """Instead of the one for each test: here jobs outlive a test."""


@pytest.fixture(scope="module")
def experiments(project, slurm) -> Iterator[dict]:
    """All experiments, disturbed; and beside them, while they run, the same runs undisturbed."""
    project.forbid_requeue("strict")
    runs = [{"model.pause": 0.5, "trial": trial} for trial in range(4)] + [{"model.fails": True}, {"trial": 5}]
    runs[1]["model.pause"] = 2.0
    options = ["--signal_seconds=32", "--no-check"]
    submitted = {
        "faults": project.submit("faults", *options, search_space=runs, parameters={"trainer.max_epochs": [4]})
    }

    long = {"model.pause": [0.5], "trainer.max_epochs": [4]}
    ranks = {**long, "trainer.strategy": ["ddp"], "data.batch_size": [16]}
    for name, options, parameters in (
        ("node", ["--partition=failing"], {**long, "model.pauses": [2]}),
        ("restless", ["--partition=restless"], long),
        ("patient", ["--partition=patient"], long),
        ("two-tasks", ["--tasks=2", "--gpus=2"], ranks),
        ("two-nodes", ["--nodes=2"], ranks),
        ("strict", ["--cluster=strict"], long),
    ):
        submitted[name] = project.submit(name, *options, "--no-check", parameters=parameters)

    disturb(submitted, slurm)
    for name, folders in project.undisturbed(COMPARED).items():
        submitted[name].references = folders
    yield submitted
    slurm.clear()


def disturb(experiments: dict, slurm) -> None:
    """Give each run what is to happen to it as soon as it trains."""
    jobs = {name: experiment.job for name, experiment in experiments.items()}

    def tell(name: str, index: int = 0) -> Callable:
        return partial(slurm.run, "scancel", "--signal=USR1", f"{jobs[name]}_{index}")

    def preempt(node: str) -> Callable:
        line = ["--partition=high", f"--nodelist={node}", "--exclusive", "--wrap=sleep 1"]
        return partial(slurm.sbatch, *line, cwd=slurm.folder)

    def fail() -> None:
        slurm.fail_node(slurm.job(f"{jobs['node']}_0")["NodeList"])

    def fail_again() -> None:
        experiments["node"].silent = slurm.job(f"{jobs['node']}_0")["NodeList"]
        slurm.kill_slurmd(experiments["node"].silent)

    faults = jobs["faults"]
    left = {
        ("faults", 0, 1): tell("faults"),
        ("faults", 1, 1): partial(slurm.run, "scontrol", "update", f"JobId={faults}_1", "EndTime=now+33"),
        ("faults", 2, 1): partial(slurm.run, "scontrol", "requeue", f"{faults}_2"),
        ("faults", 3, 1): partial(slurm.run, "scancel", f"{faults}_3"),
        ("node", 0, 1): fail,
        ("node", 0, 2): fail_again,
        ("restless", 0, 1): preempt("127.0.0.4"),
        ("patient", 0, 1): preempt("127.0.0.3"),
        ("two-tasks", 0, 1): tell("two-tasks"),
        ("two-nodes", 0, 1): tell("two-nodes"),
        ("strict", 0, 1): tell("strict"),
    }

    def all_given() -> bool:
        for name, index, attempt in list(left):
            run = experiments[name]
            if run.training(index) and run.status(index)["attempt"] == attempt:
                left.pop((name, index, attempt))()
        return not left

    slurm.wait(all_given, "all these runs to train and be disturbed", 600, experiments["faults"].folder.parent)
    experiments["strict"].first_job = jobs["strict"]


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_undisturbed(experiment) -> None:
    """The runs' weights and metrics are those of runs that nothing has happened to."""
    for index, reference in experiment.references.items():
        mine, other = weights(experiment.run(index)), weights(reference)
        assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine), index
        rows = (reference / "metrics.csv").read_text().splitlines()
        assert len(experiment.metrics(index)) == len(rows) - 1


def test_a_node_fails(experiments, slurm):
    """The node has no power: the run resumes where SLURM puts it. Its slurmd is killed: the run does not notice."""
    experiment = experiments["node"]
    job = f"{experiment.job}_0"
    experiment.wait_states("done")
    slurm.revive_node(experiment.silent)
    slurm.wait_for(job, "COMPLETED")
    assert slurm.job(job)["Restarts"] == "1" and experiment.status(0)["attempt"] == 2
    assert_undisturbed(experiment)


def test_two_ranks_are_stopped_without_a_deadlock(experiments, slurm):
    """One node × two ranks and two nodes × one: rank 0 is asleep in Python, rank 1 waits for it in an all-reduce."""
    both = [experiments["two-tasks"], experiments["two-nodes"]]
    for experiment, nodes in zip(both, ("1", "2"), strict=True):
        experiment.wait_states("done")
        assert experiment.status(0)["attempt"] == 2
        assert slurm.job(f"{experiment.job}_0")["NumNodes"] == nodes
        assert (experiment.run(0) / "logs" / "rank-1.log").exists()
    # The same samples in the same order, whichever way the ranks are placed.
    first, second = (weights(experiment.run(0)) for experiment in both)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_where_requeue_is_forbidden(experiments, slurm):
    """The element is submitted anew instead, and finds its run."""
    experiment = experiments["strict"]
    experiment.wait_states("done")
    assert experiment.job != experiment.first_job and experiment.status(0)["attempt"] == 2
    assert slurm.job(f"{experiment.first_job}_0")["ExitCode"] == "76:0"
    assert_undisturbed(experiment)


@pytest.mark.parametrize("partition", ["restless", "patient"])
def test_preemption(experiments, partition):
    """By a higher partition: at once; with 15 s of grace in `patient`, where SLURM requeues nothing."""
    experiment = experiments[partition]
    experiment.wait_states("done")
    assert experiment.status(0)["attempt"] == 2
    assert_undisturbed(experiment)


def test_every_fault_in_one_array(project, experiments, slurm):
    """0 told of the time limit, 1 out of time for real, 2 requeued by hand, 3 cancelled, 4 fails, 5 left alone."""
    experiment = experiments["faults"]
    job = experiment.job
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
    project.command("SlurmTrain.py", "retry", "runs/faults", "--yes", PAUSE="0")
    (call,) = slurm.sbatch_calls()[calls:]
    assert "--array=3-4 " in call
    experiment.wait_states("done", "done", "done", "done", "failed", "done")
    assert experiment.status(3)["attempt"] == 2 and experiment.status(5)["attempt"] == 1
    assert_undisturbed(experiment)
