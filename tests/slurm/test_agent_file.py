"""The batch file of sweep agents on a real SLURM: who gets which signal, and when the job goes back into the queue."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from lightning_hpc.clusters import presets
from lightning_hpc.clusters.placement import resolve
from lightning_hpc.clusters.resources import BY_NAME, SBATCH_OPTIONS, TAKEN
from lightning_hpc.slurm import batch

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
# What it has to do with an agent: pass on that the end is near, and wait for it. The second time it comes to an end.
AGENT = """\
import os, signal, sys, time
def stop(number, frame):
    time.sleep(0.5)
    print("the agent has saved", flush=True)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, stop)
print("agent", *sys.argv[1:], flush=True)
if not (os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("RESUBMITTED")):
    time.sleep(60)
sys.exit(int(sys.argv[-1]))
"""


@pytest.fixture
def start(slurm, tmp_path):
    """Submits the file of a project whose agent is the one above; returns the job's id once the agent runs."""
    preset = presets.load("generic", TEMPLATE)
    resources = resolve(preset, {"gpus": 1, "time": 5, "max_requeues": 1})
    text = batch.render(preset, resources, "agent", name="shapes")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "sweep_agent.sbatch").write_text(text)
    (tmp_path / "Train.py").touch()
    (tmp_path / "SweepAgent.py").write_text(AGENT)
    shutil.copy(TEMPLATE / "SlurmTrain.py", tmp_path)
    (tmp_path / "lightning_hpc").symlink_to(TEMPLATE / "lightning_hpc")

    def submit(*arguments: str) -> tuple[str, Path]:
        job = slurm.sbatch(*arguments, cwd=tmp_path)
        log = tmp_path / f"slurm-shapes-sweep-{job}_1.log"
        slurm.wait(lambda: log.exists() and "agent" in log.read_text(), "the agent to start", logs=tmp_path)
        return f"{job}_1", log

    return submit


def test_the_time_limit_is_passed_on_and_the_element_goes_on(start, slurm):
    job, log = start("--array=1", "slurm/sweep_agent.sbatch", "a sweep", "0")
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for(job, "COMPLETED")
    assert slurm.job(job)["Restarts"] == "1"
    lines = [line for line in log.read_text().splitlines() if "agent" in line]
    assert lines == ["agent a sweep 0", "the agent has saved", "agent a sweep 0"]


@pytest.mark.slow  # SLURM looks at the grace time every 30 s
def test_preempted_agents_go_on_and_their_exit_code_is_the_jobs(start, slurm):
    job, log = start("--array=1", "--partition=patient", "slurm/sweep_agent.sbatch", "3")
    slurm.sbatch("--partition=high", "--nodelist=127.0.0.3", "--exclusive", "--wrap=sleep 1", cwd=log.parent)
    slurm.wait_for(job, "FAILED")
    assert (slurm.job(job)["Restarts"], slurm.job(job)["ExitCode"]) == ("1", "3:0")


def test_a_cancelled_agent_stays_cancelled(start, slurm):
    job, log = start("--array=1", "slurm/sweep_agent.sbatch", "0")
    slurm.run("scancel", job)
    slurm.wait(lambda: "the agent has saved" in log.read_text(), "the agent to save")
    slurm.wait_for(job, "CANCELLED")
    assert slurm.job(job)["Restarts"] == "0"


def test_the_wrong_folder_is_said(slurm, start, tmp_path):
    (tmp_path / "Train.py").unlink()
    job = slurm.sbatch("slurm/sweep_agent.sbatch", cwd=tmp_path)
    slurm.wait_for(job, "FAILED")
    (log,) = tmp_path.glob("slurm-shapes-*.log")
    assert log.read_text().startswith("error: there is no Train.py in") and slurm.job(job)["ExitCode"] == "2:0"


def test_an_agent_does_not_come_back_for_ever(start, slurm):
    """It is stopped at its second start too, which is one more than max_requeues allows."""
    job, log = start("--array=1", "slurm/sweep_agent.sbatch", "75")
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for(job, "FAILED")
    assert (slurm.job(job)["Restarts"], slurm.job(job)["ExitCode"]) == ("1", "75:0")
    assert "error: put back into the queue 1 times, which is max_requeues" in log.read_text()


def test_where_requeue_is_forbidden_an_agent_is_submitted_anew(start, slurm, tmp_path):
    file = tmp_path / "slurm" / "sweep_agent.sbatch"
    preset = dataclasses.replace(presets.load("generic", TEMPLATE), requeue=False)
    file.write_text(batch.render(preset, resolve(preset, {"time": 5}), "agent", name="shapes"))
    job, log = start("--array=1", "slurm/sweep_agent.sbatch", "a sweep", "0")
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait(lambda: len(list(tmp_path.glob("slurm-shapes-*.log"))) == 2, "a second job", logs=tmp_path)
    (other,) = set(tmp_path.glob("slurm-shapes-*.log")) - {log}
    again = other.stem.rpartition("-")[2]
    slurm.wait_for(again, "COMPLETED", logs=tmp_path)
    assert other.read_text().splitlines()[0] == "agent a sweep 0"
    assert slurm.job(job)["ExitCode"] == "75:0"


def test_every_option_of_this_sbatch_is_known(slurm):
    """Either as a key, or handed on, or refused with a reason."""
    names = set(re.findall(r"--([a-z][a-z-]+)", slurm.run("sbatch", "--help")))
    assert names - set(BY_NAME) - SBATCH_OPTIONS - set(TAKEN) == {"help", "usage", "version"}
