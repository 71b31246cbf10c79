"""The run folder: status.json is whole at every moment, states and exit codes agree, one process at a time."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from lightning_hpc import __version__
from lightning_hpc.files import write_atomically
from lightning_hpc.runs.folder import EXIT_CODES, RunFolder
from lightning_hpc.runs.owner import TakenOver, restarts
from lightning_hpc.settings.errors import SettingsError


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "default" / "000-base-0123abcd")


def test_a_run_that_was_never_started_has_no_status(folder):
    assert folder.status() == {}
    assert not folder.path.exists()


@pytest.mark.parametrize("text", ['{"state": "runn', "", "[]", "\0\xff"])
def test_a_damaged_status_is_not_the_same_as_none(folder, text):
    folder.start()
    folder.status_file.write_text(text)
    reason = "status.json is damaged, and there is no checkpoints/meta.json"
    assert folder.status() == dict(state="unknown", reason=reason)


def test_a_damaged_status_is_made_anew_from_what_the_checkpoints_tell(folder):
    folder.start(identity="0123abcd")
    folder.status_file.write_text('{"state": "runn')
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "meta.json").write_text('{"last": {"step": 12, "epoch": 3, "config": "0123abcd"}}')
    status = folder.status()
    assert (status["state"], status["step"], status["epoch"], status["identity"]) == ("unknown", 12, 3, "0123abcd")
    assert status["reason"] == "status.json is damaged; checkpoints/meta.json tells of step 12"
    folder.start()
    assert json.loads(folder.status_file.read_text())["state"] == "running" and folder.status()["step"] == 12


@pytest.mark.parametrize("job", [dict(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1"),
                                 dict(SLURM_JOB_ID="9", RESUBMITTED="2", RESUBMITTED_FROM="7")])  # fmt: skip
def test_how_to_resume_is_a_wish_of_a_jobs_first_start_only(folder, monkeypatch, job):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    folder.start(resume="best")
    assert folder.resume_now("best") == "best" and folder.resume_now("never") == "never"
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert folder.resume_now("best") == "best"  # nothing has been saved since
    folder.start(resume="best")
    folder.update(step=5, resume=None)
    assert folder.resume_now("best") == folder.resume_now("never") == folder.resume_now("auto") == "auto"
    assert folder.resume_now("must") == "must"


def test_the_wish_counts_where_a_job_was_put_back_before_it_began_the_run(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    folder.start()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert folder.resume_now("never") == "never"


def test_what_an_attempt_notes(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123_4")
    assert folder.start(name="default", identity="0123abcd") == 1
    status = folder.status()
    assert (status["state"], status["reason"], status["exit_code"]) == ("running", None, None)
    assert (status["name"], status["identity"], status["slurm_job"]) == ("default", "0123abcd", "123_4")
    assert status["pid"] == os.getpid() and status["host"]
    assert status["started"] == status["attempt_started"] <= status["updated"]
    assert (folder.path / "logs").is_dir()


def restart(folder, number, monkeypatch, step=None):
    """An attempt of a job that has been put back into the queue so often; it saves at a step, or nothing."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(number))
    stuck = folder.stuck()
    folder.start()
    if step is not None:
        folder.update(step=step)
    return stuck


def test_two_restarts_without_progress_are_enough(folder, monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert folder.stuck() is None
    folder.start()
    folder.update(step=40)
    assert restart(folder, 1, monkeypatch) is None  # the first attempt has got to step 40
    assert restart(folder, 2, monkeypatch) == (
        "no progress between two restarts: still at step 40. A longer time limit may help, or more memory"
    )


def test_a_run_that_began_late_in_a_job_that_was_put_back_has_its_chance(folder, monkeypatch):
    """A trial in an agent's job: its first start is the job's third, and the second has a whole job's time."""
    assert [restart(folder, number, monkeypatch) for number in (2, 3)] == [None, None]
    assert "still at step 0" in restart(folder, 4, monkeypatch)


def test_the_first_restart_may_be_without_progress(folder, monkeypatch):
    assert [restart(folder, number, monkeypatch) for number in (0, 1)] == [None, None]
    assert "still at step 0" in restart(folder, 2, monkeypatch)


def test_progress_is_one_step_and_a_job_that_somebody_has_submitted_starts_counting_anew(folder, monkeypatch):
    for number in range(4):
        assert restart(folder, number, monkeypatch, step=number + 1) is None
    assert restart(folder, 4, monkeypatch) is None
    assert restart(folder, 0, monkeypatch) is None  # submitted again by hand
    assert restart(folder, 5, monkeypatch) is None  # not the attempt after the last one that is noted


def test_the_first_step_of_all_is_progress(folder, monkeypatch):
    restart(folder, 0, monkeypatch)
    restart(folder, 1, monkeypatch, step=1)
    assert restart(folder, 2, monkeypatch) is None


def test_a_job_that_is_submitted_anew_instead_of_requeued_counts_its_restarts_itself(monkeypatch):
    for name in ("SLURM_RESTART_COUNT", "RESUBMITTED"):
        monkeypatch.delenv(name, raising=False)
    assert restarts() == 0
    monkeypatch.setenv("RESUBMITTED", "3")
    assert restarts() == 3
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert restarts() == 2


def test_a_run_keeps_the_time_of_its_first_start_and_begins_with_no_seconds(folder, monkeypatch):
    monkeypatch.setattr("lightning_hpc.runs.folder.now", lambda: "first")
    assert not folder.started
    folder.start()
    assert folder.started and folder.status()["seconds"] == 0
    monkeypatch.setattr("lightning_hpc.runs.folder.now", lambda: "second")
    folder.update(seconds=7.0)
    folder.start()
    status = folder.status()
    assert (status["started"], status["attempt_started"], status["seconds"]) == ("first", "second", 7.0)


def test_the_versions_of_the_machine_room_and_of_the_attempt_are_noted(folder, monkeypatch):
    folder.start()
    assert folder.status()["lightning_hpc"] == __version__
    monkeypatch.setattr("lightning_hpc.runs.folder.__version__", "99")
    folder.start()
    assert folder.status()["lightning_hpc"] == "99"


def test_what_killed_writers_have_left_is_removed_by_the_next_attempt(folder):
    folder.start()
    for name in ("status.json", "config.yaml", "overlay.yaml"):
        (folder.path / f".{name}.4711.part").write_text('{"state": "runn')
    other = folder.path / ".validation.json.4711.part"  # somebody may be writing this one at the moment
    other.touch()
    folder.start()
    assert sorted(folder.path.iterdir()) == [folder.reserve, other, folder.path / "logs", folder.status_file]


def test_a_folder_in_which_nothing_can_be_written_is_said(folder, monkeypatch):
    monkeypatch.setattr("lightning_hpc.runs.folder.locked", lambda *_, **options: contextlib.nullcontext(False))
    with pytest.raises(SettingsError, match="no file can be written in .*000-base-0123abcd"), folder.locked():
        pass


def test_only_its_owner_writes_a_runs_status(folder, monkeypatch, capsys):
    """A node that was given up comes back: its process must not write over the attempt that has taken its place."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    folder.start()
    folder.update(step=5)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    other = RunFolder(folder.path)
    other.start()
    other.update(step=9)
    with pytest.raises(TakenOver, match="job 12.* has begun another attempt"):
        folder.update(step=6)
    assert folder.end("failed", "no") == 1
    assert "has begun another attempt" in capsys.readouterr().err
    assert (folder.status()["state"], folder.status()["step"], folder.status()["restarts"]) == ("running", 9, 1)
    other.end("done")
    folder.start()  # a new attempt of the same object
    folder.update(step=10)


def test_who_runs_in_a_folder(folder):
    assert folder.holder() is None
    with folder.locked():
        assert folder.holder().owner["pid"] == os.getpid()
        folder.start()
    assert folder.holder() is None


@pytest.mark.parametrize("state, code", EXIT_CODES.items())
def test_a_state_has_an_exit_code(folder, state, code):
    folder.start()
    assert folder.end(state, "why", step=7) == code
    status = folder.status()
    assert (status["state"], status["reason"], status["exit_code"], status["step"]) == (state, "why", code, 7)


def test_only_done_is_success():
    assert [state for state, code in EXIT_CODES.items() if code == 0] == ["done"]
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)


def test_attempts_and_seconds_add_up_and_a_new_attempt_forgets_the_old_reason(folder):
    folder.start(identity="0123abcd")
    started = folder.status()["started"]
    folder.update(seconds=100.0)
    folder = RunFolder(folder.path)
    assert folder.start() == 2
    status = folder.status()
    assert (status["reason"], status["exit_code"], status["identity"]) == (None, None, "0123abcd")
    assert status["started"] == started
    time.sleep(0.2)
    folder.end("preempted", "SIGTERM")
    assert 100.1 <= folder.status()["seconds"] < 160
    assert RunFolder(folder.path).start() == 3


def test_a_folder_is_that_of_one_run(folder):
    folder.start(identity="0123abcd00000000")
    before = folder.status_file.read_text()
    with pytest.raises(SettingsError, match="has become the folder of another run"):
        RunFolder(folder.path).start(identity="0123abcd11111111")
    assert folder.status_file.read_text() == before


def test_update_changes_nothing_else(folder):
    folder.start(name="default")
    before = folder.status()
    folder.update(step=5)
    after = folder.status()
    assert {**before, "step": 5, "updated": after["updated"]} == after


def test_a_change_of_state_lasts_and_progress_need_not(folder, monkeypatch):
    folder.start()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    folder.update(step=5)
    assert len(synced) == 1 and str(folder.path) not in synced  # the file alone
    folder.end("done")
    assert synced[2:] == [str(folder.path)]


def test_a_failed_write_leaves_the_old_text_and_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "status.json"
    write_atomically(file, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


WRITER = """
import sys
from lightning_hpc.runs.folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.start()
step = 0
while True:
    folder.update(step=step, padding="x" * 20_000)
    if step == 0:
        print("started", flush=True)
    step += 1
"""


def test_a_kill_at_any_moment_leaves_a_whole_status(folder):
    steps = []
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", WRITER, folder.path], stdout=subprocess.PIPE)
        process.stdout.readline()
        deadline = time.monotonic() + random.uniform(0.01, 0.1)
        while time.monotonic() < deadline:
            assert json.loads(folder.status_file.read_text())["state"] == "running"  # a reader sees whole texts, too
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        status = folder.status()
        assert len(status["padding"]) == 20_000
        steps.append(status["step"])
    assert status["attempt"] == 12
    assert max(steps) > 0  # the writer was killed while it was updating


HOLDER = """
import sys, time
from lightning_hpc.runs.folder import RunFolder
folder = RunFolder(sys.argv[1])
with folder.locked():
    folder.start()
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_kill_frees_the_folder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder.path], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        in_use = rf"is in use: process {process.pid} on .* --name or --trial"
        with pytest.raises(SettingsError, match=in_use), folder.locked():
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with folder.locked():
        assert folder.start() == 2
    with folder.locked():
        pass


def test_what_never_began_leaves_nothing(folder, tmp_path):
    with pytest.raises(SettingsError), folder.locked():
        raise SettingsError("the Trainer refuses a setting")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_a_folder_with_results_stays(folder):
    with pytest.raises(SettingsError), folder.locked():
        folder.start()
        raise SettingsError("wrong")
    assert folder.status()["state"] == "running"


def test_earlier_results_are_moved_aside_and_kept(folder):
    assert folder.move_aside() is None
    for number in (1, 2):
        with folder.locked():
            folder.start(number=number)
            (folder.path / "checkpoints").mkdir()
            (folder.path / "checkpoints" / "last.ckpt").write_text(str(number))
            old = folder.move_aside()
            assert folder.status() == {} and not (folder.path / "checkpoints").exists()
            assert old == folder.path.parent / ".old" / f"{folder.path.name}-{number}"
            assert (old / "checkpoints" / "last.ckpt").read_text() == str(number)
            assert RunFolder(old).status()["number"] == number
            with pytest.raises(SettingsError, match="is in use"), RunFolder(folder.path).locked():
                pass  # the folder is still this process's
            folder.start()


def test_a_folder_that_was_deleted_or_replaced_is_lost(folder):
    with folder.locked():
        folder.start()
        assert not folder.is_lost()
        folder.path.rename(folder.path.with_name("deleted"))
        assert folder.is_lost()
        with RunFolder(folder.path).locked():  # a second start, which knows nothing of the first
            assert folder.is_lost()
    assert not folder.is_lost()  # it holds nothing any more
