"""Submitting in waves: how many runs there is room for, what waits, and when a job at its end submits more."""

import json
import os
from pathlib import Path

import pytest
from told_slurm import line

from lightning_hpc.arrays.calls import calls_for
from lightning_hpc.arrays.next_wave import first_wave, join_next_wave, note_waves, queue_limits, submit_next_wave
from lightning_hpc.clusters.placement import resolve
from lightning_hpc.clusters.presets import Partition, Preset, load
from lightning_hpc.clusters.resources import Resources
from lightning_hpc.experiments.experiment import Experiment
from lightning_hpc.experiments.standing import standings
from lightning_hpc.experiments.table import advice
from lightning_hpc.experiments.waves import QueueLimit, elements_of, read_waves, waiting
from lightning_hpc.scheduler import sbatch
from lightning_hpc.scheduler.jobs import Element
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.slurm import after_run
from lightning_hpc.slurm.other_jobs import submit_agents
from lightning_hpc.slurm.submission import send_in_waves

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
LIMITED = Preset("here", "", "", "", "current", jobs_per_user=8, array_limit=6)


@pytest.fixture
def experiment(tmp_path):
    """Twelve planned runs."""
    rows = [dict(index=i, identity=f"{i:08x}00000000", folder=f"000-{i:08x}", overlay={}) for i in range(12)]
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = Experiment(tmp_path / "wide")
    experiment.write_resources({"cluster": "generic"})
    return experiment


def in_queue(*tasks: int, uid: int | None = None, partition: str = "") -> list[Element]:
    """Elements of another array that runs, by default of this user."""
    owner = os.getuid() if uid is None else uid
    return [Element("5", task, "RUNNING", "", "/x/other.sbatch", uid=owner, partition=partition) for task in tasks]


def lines(experiment, *tasks: int, state: str = "RUNNING", job: str = "12") -> str:
    return "\n".join(line(job, str(task), state, str(experiment.batch)) for task in tasks)


def test_how_many_jobs_a_user_may_have_on_sulis():
    sulis = load("sulis", PROJECT)
    asked = {"account": "a", "gpu_type": "a100"}
    assert queue_limits(sulis, resolve(sulis, asked)) == [QueueLimit(200)]
    low = resolve(sulis, {**asked, "partition": "gpulowpri"})
    assert queue_limits(sulis, low) == [QueueLimit(200), QueueLimit(50, "gpulowpri")]
    assert len(first_wave(range(500), sulis, low, [])) == 50
    assert queue_limits(sulis, resolve(sulis, {**asked, "over_quota": True})) == []
    assert queue_limits(load("generic", PROJECT), Resources()) == []
    alone = Preset("x", "", "", "", "current", limits=Partition(jobs_per_user=3))
    assert queue_limits(alone, Resources()) == [QueueLimit(3)]


def test_there_is_room_for_what_others_leave():
    everything = range(12)
    assert first_wave(everything, LIMITED, Resources(), in_queue(0, 1, 2)) == [0, 1, 2, 3, 4]
    assert first_wave(everything, LIMITED, Resources(), in_queue(*range(9))) == []
    assert first_wave(everything, LIMITED, Resources(), in_queue(0, 1, 2, uid=4711)) == list(range(8))
    with_message = Resources(mail="me@example.org", mail_by_job=True)
    assert first_wave(everything, LIMITED, with_message, [], canary=True) == list(range(6))
    assert first_wave(everything, Preset("x", "", "", "", "current"), Resources(), []) == list(everything)
    one = QueueLimit(5, "low")
    assert one.room([*in_queue(1, 2, partition="high"), *in_queue(3, partition="high,low")]) == 4


def test_what_waits_is_what_was_asked_for_and_not_submitted_since(experiment, told):
    """From one file that is written once and one that is only added to: nothing is in both, or in none."""
    assert waiting(experiment) == []
    told.says("sbatch", "11", "12", "13")
    assert send_in_waves(experiment, range(1, 12), LIMITED, Resources(), [], canary=True) == 0
    assert told.calls("sbatch")[0] == f"--parsable --array=1 {experiment.canary}"
    assert waiting(experiment) == [8, 9, 10, 11]  # the canary is one of the eight jobs
    assert [row["job"] for row in experiment.jobs] == ["11", "12", "13"]  # arrays have six elements at most
    with pytest.raises(SettingsError, match="your queue on here is full.*retry .*wide.*--over_quota true"):
        send_in_waves(experiment, range(12), LIMITED, Resources(), in_queue(*range(8)))

    # All that is left finds room: then nothing is to be submitted by itself any more.
    told.says("sbatch", "21", "22")
    send_in_waves(experiment, range(6, 12), LIMITED, Resources(), [])
    assert read_waves(experiment) is None and waiting(experiment) == []


@pytest.mark.parametrize(
    "call, runs",
    [
        (["--array=0-2,5%2", "--dependency=afterany:4", "/x y/job.sbatch"], {0, 1, 2, 5}),
        (["--array=0-1", "--output=/x/6+%a.log", "/x/job.sbatch", "6"], {6, 7}),
        (["--array=0", "/x/canary.sbatch"], set()),
        (["--dependency=afterany:4", "/x/notify.sbatch"], set()),
    ],
)
def test_the_runs_of_a_call(call, runs):
    assert elements_of(call, "job.sbatch") == runs


@pytest.fixture
def begun(experiment, told, monkeypatch):
    """The first eight runs are submitted, as job 12; this process is its element 0, at its end."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    told.says("sbatch", "12")
    preset = Preset("here", "", "", "", "current", jobs_per_user=8)
    note_waves(experiment, range(12), preset, Resources())
    (call,) = calls_for(experiment, range(8), preset, Resources())
    experiment.note_job(sbatch.Job("12"), call)
    assert waiting(experiment) == [8, 9, 10, 11]
    told.says("sbatch", "31")
    return experiment


def submitted(told) -> list[str]:
    return [call.split()[1] for call in told.calls("sbatch")]


def test_a_wave_is_due_when_a_part_of_the_queue_is_free(begun, told):
    told.says("squeue", lines(begun, 0, *range(2, 8), state="PENDING"))
    submit_next_wave(begun, "12_0", pauses=())
    assert submitted(told) == []  # one of eight is free, and others have not begun
    told.says("squeue", lines(begun, 0, *range(3, 8), state="PENDING"))
    submit_next_wave(begun, "12_0", pauses=())
    assert submitted(told) == ["--array=8-9"] and waiting(begun) == [10, 11]


def test_where_slurm_has_nothing_left_to_start_one_free_place_is_enough(begun, told):
    told.says("squeue", lines(begun, 0, *range(2, 8)))
    submit_next_wave(begun, "12_0", pauses=())
    assert submitted(told) == ["--array=8"]


def test_one_of_two_that_end_at_once_in_a_full_queue_waits(begun, told):
    """The first leaves it to the second; that one knows that the first has looked, though it is still there."""
    full = "\n".join([lines(begun, 0, 1), *[line("5", str(task), "PENDING", "/x/other.sbatch") for task in range(6)]])
    told.says("squeue", full)
    submit_next_wave(begun, "12_0", pauses=())
    assert submitted(told) == [] and read_waves(begun).looked == ["12_0"]

    left = full.replace(lines(begun, 0) + "\n", "")
    told.says("squeue", full, full, left)
    submit_next_wave(begun, "12_1", pauses=(1,))
    assert submitted(told) == ["--array=8"]


def test_the_last_one_says_so_when_its_patience_ends(begun, told, capsys):
    told.says("squeue", lines(begun, *range(8), state="COMPLETING"))
    submit_next_wave(begun, "12_0", pauses=(1, 1))
    assert submitted(told) == []
    assert "the queue is full, and this is the last job that could submit it" in capsys.readouterr().err
    told.says("squeue", lines(begun, 0))
    told.says("sbatch", "error: sbatch: error: QOSMaxSubmitJobPerUserLimit")
    submit_next_wave(begun, "12_0", pauses=(1,))
    assert len(told.calls("sbatch")) == 2 and "retry" in capsys.readouterr().err
    assert waiting(begun) == [8, 9, 10, 11]


def test_what_is_in_the_queue_is_not_submitted_though_nobody_has_noted_it(begun, told):
    """sbatch had taken it, and the job that submitted it was killed before it could write that down."""
    told.says("squeue", f"{lines(begun, 0)}\n{lines(begun, 8, 9, job='31', state='PENDING')}")
    submit_next_wave(begun, "12_0", pauses=())
    assert submitted(told) == ["--array=10-11"]


def test_the_next_wave_keeps_to_the_throttle_and_to_what_the_shell_had_set(experiment, told, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SBATCH_ACCOUNT", "theirs")
    preset = Preset("here", "", "", "", "current", jobs_per_user=8)
    note_waves(experiment, range(12), preset, Resources(throttle=4))
    monkeypatch.delenv("SBATCH_ACCOUNT")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("RESUBMITTED", "2")
    told.says("squeue", lines(experiment, 8, 9, 10, 11))  # one of them is this job
    told.says("sbatch", "31")
    submit_next_wave(experiment, "12_8", pauses=())
    (call,) = told.calls("sbatch")
    assert call.split()[1:3] == ["--array=0-3%1", "--account=theirs"]
    assert "RESUBMITTED" not in told.environment("sbatch")  # its runs have not been restarted


@pytest.mark.parametrize("state, more", [("RUNNING", ["--array=8-11"]), ("COMPLETING", [])])
def test_a_cancelled_job_submits_nothing(begun, told, monkeypatch, state, more):
    for name, value in dict(ARRAY_JOB_ID="12", ARRAY_TASK_ID="0", JOB_ID="12").items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    told.says("squeue", f"@|{state}", lines(begun, 0))
    after_run.make_room(["--run", str(begun.folder), "--index", "0", "--canary", "true"])
    after_run.make_room(["--name", "by-hand"])
    assert submitted(told) == [] and told.calls("squeue") == []
    after_run.make_room(["--run", str(begun.folder), "--index", "0"])
    assert submitted(told) == more


def test_status_says_what_waits_and_whether_anybody_will_submit_it(begun):
    element = Element("12", 3, "RUNNING", "", str(begun.batch), uid=os.getuid())
    told = advice(begun, standings(begun, [element]))
    assert "4 wait for the next wave: one user may have 8 jobs in the queue, so jobs that end submit them" in told
    told = advice(begun, standings(begun, []))
    assert told[0].endswith("and no job is left that would submit them") and "retry" in told[1]


def test_a_run_that_was_stopped_and_finds_the_queue_full_waits_for_the_next_wave(begun, told):
    """Its own job still has its place in the queue, and is not one that would run it again."""
    told.says("squeue", lines(begun, 0))
    assert join_next_wave(begun, 0, "12_0", packed=False)
    assert submitted(told) == ["--array=0,8-11"] and waiting(begun) == []


def test_where_requeue_is_forbidden_all_may_have_to_wait_for_a_wave(experiment, told, monkeypatch):
    assert not join_next_wave(experiment, 0, "12_0", packed=False)  # nobody has noted how waves are submitted
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    told.says("sbatch", "12")
    for requeue in (True, False):
        preset = Preset("here", "", "", "", "current", jobs_per_user=20, requeue=requeue)
        send_in_waves(experiment, range(12), preset, Resources(), [])
        assert (read_waves(experiment) is None) == requeue and waiting(experiment) == []


def test_of_a_sweeps_agents_as_many_are_submitted_as_there_is_room_for(experiment, told, tmp_path, capsys):
    """The others would find nothing to do: an agent goes on until the sweep has ended."""
    clusters = tmp_path / "configs" / "clusters"
    clusters.mkdir(parents=True)
    generic = (PROJECT / "configs" / "clusters" / "generic.yaml").read_text()
    (clusters / "here.yaml").write_text(f"{generic}\njobs_per_user: 4\n")
    told.says("sbatch", "31")
    told.says("squeue", line("5", "0", "PENDING", "/x/other.sbatch"))
    assert submit_agents("sweeps/lr", 8, "here", tmp_path) == ("31", 3)
    assert "here lets a user have 4 jobs in the queue: 3 agents, which go on" in capsys.readouterr().out
    assert submit_agents("sweeps/lr", 2, "here", tmp_path) == ("31", 2)
    assert submitted(told) == ["--array=1-3", "--array=1-2"] and capsys.readouterr().out == ""

    told.says("squeue", lines(experiment, *range(4)))
    with pytest.raises(SettingsError, match="your queue on here is full, so no agents are submitted"):
        submit_agents("sweeps/lr", 8, "here", tmp_path)
    (clusters / "here.yaml").write_text(generic)
    assert submit_agents("sweeps/lr", 8, "here", tmp_path) == ("31", 8)
