"""What goes back into the queue: runs by their status.json, agents by their exit code, one decision for both."""

import json
import os
from unittest.mock import Mock

import pytest

from lightning_hpc.arrays import put_back
from lightning_hpc.failures import Cause, leave_note
from lightning_hpc.packing.packs import Pack, read_pack, write_packs
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.scheduler import jobs, sbatch
from lightning_hpc.scheduler.commands import LONG_PAUSES, NoAnswer
from lightning_hpc.scheduler.sbatch import Job
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.slurm import pack
from lightning_hpc.slurm.after_run import finish, finish_agent
from lightning_hpc.slurm.pack import finish_pack


@pytest.fixture
def slurm(monkeypatch):
    """A SLURM that says how the job is, and remembers what it is asked for."""
    for name in ("SLURM_RESTART_COUNT", "RESUBMITTED", "RESUBMITTED_FROM"):
        monkeypatch.setenv(name, "")  # so that what is set in a test is taken back after it
        monkeypatch.delenv(name)
    for name, value in dict(SLURM_JOB_ID="9", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3").items():
        monkeypatch.setenv(name, value)

    class Stand:
        state = "RUNNING"  # an error: SLURM does not answer
        asked: list = []
        patience: list = []
        refuses = None
        throttle = None

        def state_of(self, name, pauses=()):
            self.patience.append(pauses)
            if isinstance(self.state, Exception):
                raise self.state
            return self.state

        def requeue(self, name, pauses=()):
            assert pauses == LONG_PAUSES
            self.asked.append(name)
            return self.refuses

        def submit_job(self, arguments):
            self.asked.append((arguments, os.environ["RESUBMITTED"]))
            if self.refuses:
                raise SettingsError(self.refuses)
            return Job("20")

    stand = Stand()
    stand.asked, stand.patience = [], []
    monkeypatch.setattr(jobs, "state_of", stand.state_of)
    monkeypatch.setattr(jobs, "requeue", stand.requeue)
    monkeypatch.setattr(jobs, "throttle_of", lambda name: stand.throttle)
    monkeypatch.setattr(sbatch, "submit_job", stand.submit_job)
    return stand


@pytest.mark.parametrize("code, comes_back", [(0, False), (1, False), (2, False), (75, True), (76, True), (130, False)])
def test_an_agents_exit_code_decides(slurm, code, comes_back):
    assert finish_agent(code, ["SWEEP"], max_requeues=5) == code
    assert slurm.asked == (["7_3"] if comes_back else [])


def test_a_job_without_array_goes_by_its_id(slurm, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    finish_agent(75, ["SWEEP"], max_requeues=5)
    assert slurm.asked == ["9"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING", None])
def test_only_what_slurm_calls_running_comes_back(slurm, state):
    slurm.state = state
    assert finish_agent(75, ["SWEEP"], max_requeues=5) == 75 and slurm.asked == []


def test_it_comes_back_so_often_and_no_more(slurm, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    finish_agent(76, ["SWEEP"], max_requeues=3)
    assert slurm.asked == ["7_3"] and "time limit: put back into the queue" in capsys.readouterr().out
    assert finish_agent(76, ["SWEEP"], max_requeues=2) == 76
    assert len(slurm.asked) == 1 and "put back into the queue 2 times, which is max_requeues" in capsys.readouterr().err


def test_where_requeue_is_forbidden_the_element_is_submitted_anew(slurm, capsys):
    finish_agent(75, ["a sweep", "--count", "3"], 5, resubmit="slurm/sweep_agent.sbatch")
    assert slurm.asked == [(["--array=3", "slurm/sweep_agent.sbatch", "a sweep", "--count", "3"], "1")]
    assert "submitted again" in capsys.readouterr().out
    slurm.refuses = "sbatch refused: no"
    assert finish_agent(75, ["SWEEP"], 5, resubmit="x.sbatch") == 75
    assert "error: not submitted again: sbatch refused: no. To continue:" in capsys.readouterr().err


def test_an_element_of_a_later_array_keeps_its_start_and_its_log(slurm):
    put_back.submit_again("job.sbatch", ["--run", "/x/100%", "--index", "1003"])
    put_back.submit_again("job.sbatch", ["--run", "/x/100%", "--index", "3"])
    first, second = (arguments for arguments, _ in slurm.asked)
    assert first == ["--array=3", "--output=/x/100%%/logs/1000+%a.log", "job.sbatch", "1000"]
    assert second == ["--array=3", "job.sbatch"]


def test_elements_that_are_submitted_anew_keep_to_their_arrays_throttle(slurm, monkeypatch):
    """Each is in a lane with others of its name, one at a time, which begins when the array has ended."""
    slurm.throttle = 2
    for name in ("wide", "wide-lane1"):
        monkeypatch.setenv("SLURM_JOB_NAME", name)
        finish_agent(76, ["SWEEP"], 5, resubmit="x.sbatch")
    lane = ["--array=3%2", "--job-name=wide-lane1", "--dependency=afterany:7,singleton"]
    assert [arguments for arguments, _ in slurm.asked] == [[*lane, "x.sbatch", "SWEEP"]] * 2


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Writes the status.json of a run in a project; returns what to ask `finish` for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text("name: study\nmodel.width: 3\n")
    from lightning_hpc.runs.run import read_command_line

    folder = read_command_line("fit", ["--codeversion", "1"], tmp_path).folder.path
    folder.mkdir(parents=True)

    def write(**status):
        status = {"slurm_job": "9", "restarts": 0, **status}
        (folder / "status.json").write_text(json.dumps(status))
        return ["--codeversion", "1"], tmp_path

    write.folder = folder
    write.status = lambda: json.loads((folder / "status.json").read_text())
    return write


@pytest.mark.parametrize(
    "state, code, comes_back",
    [
        ("done", 0, False),
        ("failed", 1, False),
        ("interrupted", 130, False),
        ("preempted", 75, True),
        ("time limit", 76, True),
    ],
)
def test_a_runs_state_decides(slurm, run, state, code, comes_back):
    assert finish(*run(state=state), max_requeues=5) == code
    assert slurm.asked == (["7_3"] if comes_back else [])


def test_a_run_that_was_killed_without_a_word_comes_back(slurm, run):
    assert finish(*run(state="running"), max_requeues=5) == 75
    assert run.status()["state"] == "preempted" and "without a word" in run.status()["reason"]
    assert slurm.asked == ["7_3"]


def test_a_run_is_given_up_in_the_end(slurm, run, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert finish(*run(state="preempted", restarts=1), max_requeues=1) == 1
    assert run.status()["state"] == "failed" and run.status()["exit_code"] == 1
    assert run.status()["reason"] == "put back into the queue 1 times, which is max_requeues"


SILENCE = NoAnswer("squeue", "Socket timed out")


def test_a_cancelled_job_and_one_that_slurm_does_not_speak_of_are_not_the_same(slurm, run, capsys):
    """Preempted or cancelled? A minute without an answer is not a no: it is said, in the log and in status.json."""
    slurm.state = SILENCE
    assert finish(*run(state="preempted"), max_requeues=5) == 75
    assert slurm.asked == [] and slurm.patience == [LONG_PAUSES]
    status = run.status()
    assert status["state"] == "preempted"
    assert status["reason"].startswith(
        "preempted; not put back into the queue: squeue does not answer: Socket timed out"
    )
    assert "error: not put back" in capsys.readouterr().err
    assert finish_agent(75, ["SWEEP"], max_requeues=5) == 75
    assert "error: not put back" in capsys.readouterr().err


def test_at_the_time_limit_a_job_was_not_cancelled_so_it_is_put_back_without_an_answer(slurm, run):
    slurm.state = SILENCE
    assert finish(*run(state="time limit"), max_requeues=5) == 76
    assert slurm.asked == ["7_3"] and slurm.patience == [()]
    assert finish_agent(76, ["SWEEP"], max_requeues=5) == 76 and slurm.asked == ["7_3", "7_3"]


def test_a_requeue_that_is_refused_is_written_down(slurm, run):
    slurm.refuses = "scontrol: Requested operation is presently disabled"
    assert finish(*run(state="time limit"), max_requeues=5) == 76
    assert run.status()["reason"] == (
        "time limit; not put back into the queue: scontrol: Requested operation is presently disabled"
    )


def test_what_is_left_to_slurm_is_said(slurm, capsys):
    slurm.state = "COMPLETING"
    finish_agent(75, ["SWEEP"], max_requeues=5)
    assert "preempted: SLURM has this job as COMPLETING, so it is left to SLURM" in capsys.readouterr().out


def test_a_second_job_of_a_run_leaves_the_first_ones_status_alone(slurm, run):
    """It has found the run in use: that is no failure of the run."""
    arguments, root = run(state="running", slurm_job="8")
    before = run.status()
    for slurm.state in ("RUNNING", "PENDING", "COMPLETING", SILENCE):
        assert finish(arguments, root, max_requeues=5) == 1
        assert run.status() == before
    slurm.state = "FAILED"  # it has ended, as SLURM says; but is anybody else there?
    with RunFolder(run.folder).locked():
        assert finish(arguments, root, max_requeues=5) == 1
        assert run.status() == before
    assert finish(arguments, root, max_requeues=5) == 1
    assert run.status()["state"] == "failed" and run.status()["slurm_job"] == "9"
    assert slurm.asked == []


@pytest.mark.parametrize("status", [dict(slurm_job="8"), dict(restarts=1), dict(slurm_job=None)])
def test_a_status_of_another_attempt_says_nothing_about_this_one(slurm, run, status):
    slurm.state = "FAILED"
    assert finish(*run(state="preempted", **status), max_requeues=5) == 1
    assert run.status()["reason"].startswith("ended before it began on") and slurm.asked == []


def test_a_canary_need_not_come_back(slurm, run):
    """It was only to get through its first validation."""
    arguments, root = run(state="interrupted", canary="passed")
    assert finish([*arguments, "--canary", "true"], root, max_requeues=5) == 0
    assert finish(arguments, root, max_requeues=5) == 130  # somebody has pressed Ctrl-C


def test_a_rank_that_has_failed_is_the_reason_where_rank_0_could_not_say_so(slurm, tmp_path, capsys):
    """SLURM ends all ranks when one has failed; the others may be too busy to write anything."""
    folder = RunFolder(tmp_path / "runs" / "x" / "000-a-0123abcd")
    folder.start()
    leave_note(folder.path, 1, Cause("ValueError: a mistake"))
    (folder.path / "config.yaml").write_text("name: x\n")
    assert finish(["--run", str(folder.path)], tmp_path, max_requeues=9) == 1
    assert (folder.status()["state"], folder.status()["reason"]) == ("failed", "rank 1: ValueError: a mistake")
    assert slurm.asked == []


def test_where_requeue_is_forbidden_the_rest_waits_for_the_canarys_new_job(slurm, monkeypatch, tmp_path):
    """It ends as failed under its old id, and SLURM would cancel all that waits for that."""
    (tmp_path / "manifest.jsonl").touch()
    updated, after = [], "afterok:7_*(unfulfilled)"
    parts = [
        jobs.Element("7", None, "RUNNING", "None", f"{tmp_path}/canary.sbatch"),
        jobs.Element("8", 0, "PENDING", "Dependency", f"{tmp_path}/job.sbatch", depends=after),
        jobs.Element("8", 1, "PENDING", "Dependency", f"{tmp_path}/job.sbatch", depends=after),
        jobs.Element("9", 0, "PENDING", "Dependency", f"{tmp_path}/job.sbatch 1000", depends=after),
        jobs.Element("6", 0, "PENDING", "Priority", f"{tmp_path}/job.sbatch"),
        jobs.Element("10", None, "PENDING", "Dependency", f"{tmp_path}/notify.sbatch", depends=after),
    ]
    monkeypatch.setattr(jobs, "queue", lambda pauses: parts)
    monkeypatch.setattr(jobs, "wait_for", lambda job, dependency, pauses: updated.append((job, dependency)))
    batch = tmp_path / "canary.sbatch"
    assert put_back.submit_again(batch, ["--run", str(tmp_path), "--index", "3", "--canary", "true"]) is None
    assert updated == [("8", "afterok:20"), ("9", "afterok:20")]
    put_back.submit_again(tmp_path / "job.sbatch", ["--run", str(tmp_path), "--index", "3"])
    assert len(updated) == 2


@pytest.mark.parametrize("state, fails", [("time limit", True), ("preempted", False)])
def test_a_slice_without_progress_ends_the_run(slurm, run, capsys, state, fails):
    """One that was preempted had no whole slice."""
    where = run(state=state, step=40, attempt_step=40, start_seconds=71.25)
    assert finish(*where, max_requeues=5, sliced="30:00") == (1 if fails else 75)
    assert slurm.asked == ([] if fails else ["7_3"])
    if fails:
        assert run.status()["state"] == "failed"
        assert run.status()["reason"].startswith("no progress in a slice of 30:00: still at step 40. It has to hold a")
        assert "a start (this one took 71.2 s), a save" in capsys.readouterr().err


def test_a_slice_with_progress_is_followed_by_another(slurm, run):
    where = run(state="time limit", step=41, attempt_step=40)
    assert finish(*where, max_requeues=5, sliced="30:00") == 76 and slurm.asked == ["7_3"]
    # Without slices, a job may have had little time: two of them decide, when the run is started again.
    where = run(state="time limit", step=40, attempt_step=40)
    assert finish(*where, max_requeues=5) == 76 and slurm.asked == ["7_3", "7_3"]


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Writes the states of the runs of a pack, None for one without a status.json; returns what to ask for."""
    write_packs(tmp_path, [5], range(3), 4)
    (tmp_path / "manifest.jsonl").touch()
    folders = [RunFolder(tmp_path / str(index)) for index in range(3)]
    monkeypatch.setattr(pack, "run_of", lambda _, index, root: Mock(folder=folders[index]))

    def write(*states, left=(0, 1, 2), unstarted=()):
        for folder, state in zip(folders, states, strict=True):
            folder.path.mkdir(exist_ok=True)
            if state:
                folder.status_file.write_text(json.dumps({"state": state, "slurm_job": "9", "restarts": 0}))
        Pack(4, [0, 1, 2], list(left), list(unstarted)).write(tmp_path, 5)
        return ["--run", str(tmp_path), "--pack", "5"], tmp_path

    write.states = lambda: [folder.status().get("state") for folder in folders]
    write.left = lambda: read_pack(tmp_path, 5).left
    return write


@pytest.mark.parametrize(
    "states, code, comes_back, left",
    [
        (("done", "done", "done"), 0, False, []),
        (("done", "failed", "done"), 1, False, []),
        (("done", "failed", "preempted"), 75, True, [2]),
        (("time limit", "preempted", "done"), 76, True, [0, 1]),
        (("running", "failed", "interrupted"), 75, True, [0]),
    ],
)
def test_a_pack_comes_back_for_those_of_its_runs_that_are_to_go_on(slurm, packed, states, code, comes_back, left):
    assert finish_pack(*packed(*states), max_requeues=5) == code
    assert slurm.asked == (["7_3"] if comes_back else []) and packed.left() == left


def test_what_a_pack_had_no_time_to_begin_is_begun_when_it_is_back(slurm, packed):
    assert finish_pack(*packed("time limit", None, None, unstarted=(1, 2)), max_requeues=5) == 76
    assert slurm.asked == ["7_3"] and packed.left() == [0, 1, 2] and packed.states() == ["time limit", None, None]


def test_a_pack_that_never_began_has_failed(slurm, packed):
    """A module that is missing is missing again when it is back."""
    assert finish_pack(*packed(None, None, None), max_requeues=5) == 1
    assert slurm.asked == [] and packed.states() == ["failed"] * 3 and packed.left() == []


def test_a_pack_is_given_up_in_the_end_and_only_what_was_left_of_it(slurm, packed, monkeypatch):
    arguments = packed("done", "failed", "preempted", left=(2,))
    assert finish_pack(*arguments, max_requeues=0) == 1
    assert packed.states() == ["done", "failed", "failed"] and packed.left() == [2]


def test_where_requeue_is_forbidden_a_pack_is_submitted_anew_under_its_number(slurm, packed, monkeypatch):
    finish_pack(*packed("preempted", "done", "done"), max_requeues=5, resubmit="pack.sbatch")
    ((arguments, _),) = slurm.asked
    assert arguments[0] == "--array=3" and arguments[1].endswith("/logs/pack-2+%a.log")
    assert arguments[2:] == ["pack.sbatch", "2"]
