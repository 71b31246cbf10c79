"""The run folder: status.json is whole at every moment, states and exit codes agree, one process at a time."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from package.runs.folder import EXIT_CODES, RunFolder, write_atomically
from package.runs.settings import SettingsError


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "default" / "000-base-0123abcd")


def test_a_run_that_was_never_started_has_no_status(folder):
    assert folder.status() == {}
    assert not folder.path.exists()


def test_an_unreadable_status_is_not_the_same_as_none(folder):
    folder.start()
    folder.status_file.write_text('{"state": "runn')
    with pytest.raises(ValueError):
        folder.status()


def test_what_an_attempt_notes(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123_4")
    assert folder.start(name="default", identity="0123abcd") == 1
    status = folder.status()
    assert (status["state"], status["reason"], status["exit_code"]) == ("running", None, None)
    assert (status["name"], status["identity"], status["slurm_job"]) == ("default", "0123abcd", "123_4")
    assert status["pid"] == os.getpid() and status["host"]
    assert status["started"] == status["attempt_started"] <= status["updated"]
    assert (folder.path / "logs").is_dir()


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


def test_update_changes_nothing_else(folder):
    folder.start(name="default")
    before = folder.status()
    folder.update(step=5)
    after = folder.status()
    assert {**before, "step": 5, "updated": after["updated"]} == after


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
from package.runs.folder import RunFolder
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
from package.runs.folder import RunFolder
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
