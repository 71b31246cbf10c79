"""Queues of limited length on a real SLURM: jobs that end submit the next wave, each run once, none lost.

Nothing here is trained: a stand-in for Train.py takes a run's folder and its lock, waits to be told, and is done.
"""

import re
import subprocess
import sys
from collections import Counter

import pytest

from lightning_hpc.scheduler.sbatch import read_array

pytestmark = pytest.mark.slow

TRAIN = """\
import sys, time
from pathlib import Path
from lightning_hpc.runs.run import read_command_line

root = Path(__file__).resolve().parent
run = read_command_line("fit", sys.argv[2:], root)
with run.folder.locked():
    if run.folder.status().get("state") == "done":
        sys.exit(0)
    run.folder.start(name=run.group, identity=run.identity)
    while not Path("go").exists():
        time.sleep(0.05)
    sys.exit(run.folder.end("done"))
"""


@pytest.fixture
def quick(project, slurm, tmp_path):
    """The project with that Train.py, on a cluster where a user may have four jobs in the queue."""
    quick = project.with_train(tmp_path / "a project", TRAIN)
    clusters = quick.folder / "configs" / "clusters"
    (clusters / "limited.yaml").write_text((clusters / "generic.yaml").read_text() + "\njobs_per_user: 4\n")
    slurm.limit_queue(4)
    yield quick
    slurm.limit_queue(None)


def submit(project, name: str, runs: int) -> str:
    """Submit runs that wait to be told; returns what is said."""
    spec = project.spec(name, parameters={"trial": list(range(runs))})
    options = ["--yes", "--no-check", "--cluster", "limited"]
    said = project.command("SlurmTrain.py", "submit", spec, *options)
    experiment = project.experiment(name)
    experiment.wait(lambda: experiment.states().count("running") == min(runs, 4), "the first wave")
    return said


def times_submitted(slurm, calls: int) -> Counter:
    """How often each run has been submitted since so many calls of sbatch; refused calls count too."""
    submitted = Counter()
    for call in slurm.sbatch_calls()[calls:]:
        array = re.search(r"--array=([\d,-]+).*/job\.sbatch$", call)
        submitted.update(read_array(array[1]) if array else [])
    return submitted


def test_jobs_that_end_at_once_submit_each_run_once(quick, slurm):
    calls = len(slurm.sbatch_calls())
    said = submit(quick, "waves", 10)
    assert "limited lets a user have 4 jobs in the queue: 4 runs now, and 6 wait for the next wave" in said
    experiment = quick.experiment("waves")
    status = quick.command("SlurmTrain.py", "status", "runs/waves")
    assert "6 wait for the next wave: one user may have 4 jobs in the queue, so jobs that end submit them" in status
    assert "to continue" not in status and "10 runs: 4 running, 6 waiting" in status

    (quick.folder / "go").touch()
    experiment.wait_states(*["done"] * 10)
    experiment.wait_empty()
    logs = "".join(file.read_text() for file in experiment.logs.glob("*.log"))
    assert [experiment.status(index)["attempt"] for index in range(10)] == [1] * 10, logs
    assert times_submitted(slurm, calls) == Counter(range(10)), logs
    assert "refused" not in logs and "wait for the next wave" not in quick.command(
        "SlurmTrain.py", "status", "runs/waves"
    )


def test_the_last_job_waits_for_room_that_others_take(quick, slurm):
    calls = len(slurm.sbatch_calls())
    submit(quick, "full", 6)
    slurm.limit_queue(None)
    other = slurm.sbatch("--array=0-3", "--begin=now+1hour", "--wrap=true", "--output=/dev/null")
    slurm.limit_queue(4)
    (quick.folder / "go").touch()
    experiment = quick.experiment("full")
    experiment.wait(lambda: len(slurm.states(other)) == 4 and experiment.states().count("done") == 4, "the first wave")
    slurm.wait(lambda: list(slurm.states(experiment.job).values()).count("RUNNING") == 1, "one that waits")
    slurm.run("scancel", other)
    experiment.wait_states(*["done"] * 6)
    experiment.wait_empty()
    assert times_submitted(slurm, calls)[4] == times_submitted(slurm, calls)[5] == 1


def test_what_is_cancelled_submits_nothing_and_a_retry_continues(quick, slurm):
    submit(quick, "ended", 6)
    said = quick.command("SlurmTrain.py", "cancel", "runs/ended")
    assert "2 wait for the next wave and are not submitted" in said
    experiment = quick.experiment("ended")
    experiment.wait_empty()
    # How a job was ended is noted if SLURM leaves it the time: seconds here, half a minute elsewhere.
    counts = quick.command("SlurmTrain.py", "status", "runs/ended").splitlines()[-2]
    ended = re.findall(r"(\d) (?:stopped|lost)", counts)
    assert counts.endswith(", 2 waiting") and sum(map(int, ended)) == 4

    (quick.folder / "go").touch()
    quick.command("SlurmTrain.py", "retry", "runs/ended", "--yes")
    experiment.wait_states(*["done"] * 6)

    # By SLURM's own command too; then what waits is named, and nobody is there to submit it.
    (quick.folder / "go").unlink()
    submit(quick, "by-scancel", 6)
    slurm.run("scancel", quick.experiment("by-scancel").job)
    quick.experiment("by-scancel").wait_empty()
    status = quick.command("SlurmTrain.py", "status", "runs/by-scancel")
    assert "2 wait for the next wave" in status and "no job is left that would submit them" in status
    assert "to continue: python SlurmTrain.py retry runs/by-scancel" in status


def test_four_retries_at_once_submit_once(quick, slurm):
    spec = quick.spec("four-retries", parameters={"trial": [0, 1, 2]})
    nowhere = ["--yes", "--no-check", "--partition", "nowhere"]
    quick.command("SlurmTrain.py", "submit", spec, *nowhere, code=2)
    calls = len(slurm.sbatch_calls())
    command = [sys.executable, "SlurmTrain.py", "retry", "runs/four-retries", "--yes", "--partition", "main"]
    quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    processes = [subprocess.Popen(command, cwd=quick.folder, env=slurm.environment, **quiet) for _ in range(4)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert sum("submitted: " in text for text in said) == 1, said
    assert sum("nothing to submit again" in text for text in said) == 3, said
    assert times_submitted(slurm, calls) == Counter(range(3))
