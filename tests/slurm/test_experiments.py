"""Whole experiments on a real SLURM: planned, submitted, run to the end; their files, names and exit codes."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_array_to_the_end(project, slurm):
    """A canary, then all two at a time, from the code as it was submitted; one call of sbatch for each of both."""
    calls = len(slurm.sbatch_calls())
    parameters = {"model.optimizer.lr": [0.001, 0.003], "trial": [0, 1]}
    experiment = project.submit("four", "--canary", "--throttle", "2", parameters=parameters)
    assert len(slurm.sbatch_calls()) == calls + 2
    model = project.folder / "my_research_project" / "model.py"
    text, most = model.read_text(), 0
    model.write_text("raise RuntimeError('a half-written edit')\n")

    def all_done() -> bool:
        nonlocal most
        most = max(most, list(slurm.states(experiment.job).values()).count("RUNNING"))
        return experiment.states() == ["done"] * 4

    try:
        experiment.wait(all_done, "all to be done")
    finally:
        model.write_text(text)
    experiment.wait_empty()
    assert most == 2
    job = slurm.job(f"{experiment.job}_3")
    assert (job["JobState"], job["ExitCode"], job["JobName"]) == ("COMPLETED", "0:0", "four")
    assert {file.name for file in experiment.logs.iterdir()} >= {f"{index}.log" for index in range(4)}
    assert "run folder" in experiment.log(3) and "Warning" not in experiment.log(3)
    status = project.command("SlurmTrain.py", "status", "runs/four")
    assert "4 runs: 4 done" in status and "retry" not in status
    assert "nothing to submit again" in project.command("SlurmTrain.py", "retry", "runs/four", "--yes")


def test_108_runs_are_one_call(project, slurm):
    """The grid of the documentation, held back so that none of it starts."""
    calls = len(slurm.sbatch_calls())
    grid = project.folder / "configs" / "jobs" / "grid.yaml"
    dry = project.command("SlurmTrain.py", "submit", grid, "--dry-run", "--no-check")
    assert "108 runs" in dry and "#SBATCH" in dry and not (project.folder / "runs" / "grid-108").exists()
    assert len(slurm.sbatch_calls()) == calls
    submit = ["SlurmTrain.py", "submit", grid, "--name", "grid-108", "--yes", "--no-check", "--begin", "now+1hour"]
    project.command(*submit)
    (call,) = slurm.sbatch_calls()[calls:]
    assert "--array=0-107%10" in call
    experiment = project.experiment("grid-108")
    assert len(slurm.states(experiment.job)) == 108
    status = project.command("SlurmTrain.py", "status", "runs/grid-108")
    assert "108 runs: 108 pending" in status
    assert "is there already" in project.command(*submit, code=2)
    assert "cancel" in project.command(*submit, "--overwrite", code=2)  # it is in the queue
    assert "nothing to submit again" in project.command("SlurmTrain.py", "retry", "runs/grid-108", "--yes")
    project.command("SlurmTrain.py", "cancel", "runs/grid-108")
    experiment.wait_empty()
    assert "108 waiting" in project.command("SlurmTrain.py", "status", "runs/grid-108")


def test_failed_canary_stops_the_rest_and_says_so(project, slurm):
    experiment = project.submit(
        "bad-canary", "--canary", parameters={"model.fails": [True], "trial": [0, 1, 2]}
    )  # fmt: skip
    experiment.wait(lambda: experiment.status(0).get("state") == "failed", "the canary to fail")
    experiment.wait_empty()
    assert experiment.states() == ["failed", None, None]
    status = project.command("SlurmTrain.py", "status", "runs/bad-canary")
    assert "the canary (run 0) has failed" in status and "this run fails on purpose" in status
    assert "1 failed, 2 waiting" in status and re.search(r"why run 0 failed: .*/canary-\d+\.log", status)
    assert "fails on purpose" in (experiment.logs / next(experiment.logs.glob("canary-*.log"))).read_text()


def test_a_job_that_never_gets_to_train_py_is_shown_with_its_reason(project, slurm):
    activate = ["--activate", "source no-such-environment", "--before", "set -euo pipefail"]
    experiment = project.submit("no-environment", *activate, parameters={"trial": [0]})
    experiment.wait_empty()
    status = project.command("SlurmTrain.py", "status", "runs/no-environment", COLUMNS="300")
    assert "1 run: 1 failed" in status and "no-such-environment: No such file" in status


def test_a_refused_submission_can_be_tried_again(project, slurm):
    """sbatch says no after everything is written: `retry` then submits it, and the message says so."""
    spec = project.spec("refused", parameters={"trial": [0, 1]})
    submit = ["SlurmTrain.py", "submit", spec, "--yes", "--no-check", "--begin", "now+1hour"]
    said = project.command(*submit, "--partition", "nowhere", code=2)
    assert re.search(r"^error: sbatch refused: .*invalid partition", said, re.MULTILINE) and "retry" in said
    assert project.experiment("refused").states() == [None, None]
    project.command("SlurmTrain.py", "retry", "runs/refused", "--yes", "--partition", "main", "--begin", "now+1hour")
    assert set(slurm.states(project.experiment("refused").job).values()) == {"PENDING"}


def test_by_hand_and_evaluation(project, slurm):
    """slurm/train.sbatch as a user types it, values with spaces and quotes included; then a test as a job."""
    job = slurm.sbatch(
        "slurm/train.sbatch", "--config", "quick.yaml", "--name", "by-hand", "--trainer.logger", "null",
        "--codeversion", "Zoë's \"second\" try", "--model", "my_research_project.model.Classifier", cwd=project.folder,
    )  # fmt: skip
    slurm.wait_for(job, "COMPLETED", "FAILED", logs=project.folder)
    log = (project.folder / f"slurm-my-research-project-{job}.log").read_text()
    assert slurm.job(job)["ExitCode"] == "0:0", log
    (run,) = (project.folder / "runs" / "by-hand").glob("000-*")
    assert 'Zoë\'s "second" try' in (run / "config.yaml").read_text()
    project.command("SlurmTrain.py", "eval", run)
    slurm.wait(lambda: (run / "test.json").exists(), "the test's result", 90, run / "logs")
