"""Locks: one holder at a time, with an owner, a sign of life and an age; also where the file system has no locks."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lightning_hpc.locks import Locked, holder, holder_of, lock, locked


@pytest.fixture(params=["with", "without"])
def file_system(request, monkeypatch):
    """One that has locks, and one that says ENOSYS, as Lustre does."""
    if request.param == "without":

        def refuse(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


def test_one_holder_at_a_time_who_is_named(file_system, path):
    with locked(path) as can_lock:
        assert can_lock
        with pytest.raises(
            Locked, match=rf"is held by process {os.getpid()} on {socket.gethostname()}, last sign"
        ) as no:
            with locked(path):
                pass
        assert no.value.holder.certain == (file_system == "with")
        found = holder_of(path)
        assert found.owner["pid"] == os.getpid() and found.silent < 60
    assert holder_of(path) is None
    with locked(path):
        pass


def test_waiting_for_a_holder_and_what_ends_the_waiting(file_system, path):
    held, release = threading.Event(), threading.Event()

    def hold():
        with locked(path):
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    with pytest.raises(Locked), locked(path, timeout=600, stop=lambda: True):
        pass
    threading.Timer(0.2, release.set).start()
    with locked(path, timeout=600):
        pass
    thread.join()


def test_signs_of_life_are_shown(file_system, path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with locked(path):
        os.utime(path, (1, 1))
        end = time.monotonic() + 60
        while path.stat().st_mtime < 1000 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1000
    assert threading.active_count() == 1 or all(thread.name != "lock" for thread in threading.enumerate())


HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
from lightning_hpc.locks import locked
if sys.argv[2] == "without":
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")
    fcntl.flock = refuse
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_holder_holds_nothing(file_system, path):
    """A run that was killed can be started again at once on the same machine, with or without locks."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path, file_system], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert str(holder_of(path)).startswith(f"process {process.pid} on")
        with pytest.raises(Locked), locked(path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert holder_of(path) is None
    with locked(path) as can_lock:
        assert can_lock


def left_by(path, age=0.0, **owner):
    """The lock of a process elsewhere that has not released it."""
    path.write_text(json.dumps({**holder.owner(), "host": "elsewhere", "kernel": False, **owner}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_without_locks_an_owner_elsewhere_counts_until_it_has_been_silent_for_too_long(path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    left_by(path, age=holder.VOID - 30)
    with pytest.raises(Locked, match="on elsewhere"), locked(path):
        pass
    assert holder_of(path).owner["host"] == "elsewhere" and not holder_of(path).certain
    left_by(path, age=holder.VOID + 30)
    assert holder_of(path) is None
    with locked(path):
        assert json.loads(path.read_text())["host"] == socket.gethostname()
    assert not path.exists() and not list(path.parent.iterdir())


def no_locks(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_with_locks_too_an_owner_who_has_none_is_respected(path):
    left_by(path, age=10)
    with pytest.raises(Locked), locked(path):
        pass
    left_by(path, age=10, kernel=True)  # the kernel would hold it for that one
    with locked(path):
        pass


def test_the_last_attempt_of_the_same_job_has_ended(path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    left_by(path, job="12", restarts=1)
    with pytest.raises(Locked, match=r"\(job 12\)"), locked(path):
        pass
    left_by(path, job="12", restarts=0)
    with locked(path):
        pass


def test_a_process_of_the_same_number_in_another_container_may_live(path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    left_by(path, host=socket.gethostname(), pid=2**22 + 1, processes="pid:[another]")
    with pytest.raises(Locked), locked(path):
        pass
    left_by(path, host=socket.gethostname(), pid=2**22 + 1)
    with locked(path):
        pass


def test_until_it_is_certain_whether_the_holder_lives(path, monkeypatch):
    """One that shows life while we wait is alive; one that does not becomes void."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            act()

    monkeypatch.setattr(lock.time, "sleep", sleep)
    left_by(path, age=100)
    act = path.touch
    with pytest.raises(Locked, match="last sign of life 0 s ago"), locked(path, until_certain=True):
        pass
    assert len(slept) == 3

    slept.clear()
    left_by(path, age=holder.VOID - 60)
    act = lambda: left_by(path, age=holder.VOID + 1)  # noqa: E731
    with locked(path, until_certain=True):
        pass
    slept.clear()
    left_by(path)
    with pytest.raises(Locked), locked(path, until_certain=True, stop=lambda: len(slept) == 2):
        pass


def test_two_that_find_a_void_lock_do_not_both_get_it(path, monkeypatch):
    """The slower one has looked at the void one, and finds the new one of the faster."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    left_by(path, age=holder.VOID + 30)
    rename, others = os.rename, []

    def faster(source, target):
        monkeypatch.setattr(lock.os, "rename", rename)
        others.append(lock.Lock.take(path))
        rename(source, target)

    monkeypatch.setattr(lock.os, "rename", faster)
    with pytest.raises(Locked), locked(path):
        pass
    assert json.loads(path.read_text())["pid"] == os.getpid() and len(list(path.parent.iterdir())) == 1
    others[0].release()
    assert not path.exists()


def test_where_nothing_can_be_written_nobody_is_kept_out(tmp_path):
    with locked(tmp_path / "missing" / ".lock") as can_lock:
        assert not can_lock


def test_a_planted_link_is_not_followed(file_system, path, tmp_path):
    target = tmp_path / "precious"
    target.write_text("results")
    path.symlink_to(target)
    with locked(path) as can_lock:
        assert not can_lock
    assert target.read_text() == "results"


def test_a_lock_that_was_removed_by_its_holder_is_made_anew(path):
    with locked(path):
        path.unlink()
        with locked(path):
            pass
