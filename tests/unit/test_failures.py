"""The first cause of all ranks, and what is no fault of the run's code."""

import subprocess
import sys
import threading
import time

import pytest

from lightning_hpc.failures import (
    WITHOUT_A_WORD,
    Cause,
    RankWatch,
    cause_of,
    first_cause,
    leave_note,
    noted_cause,
)

LOST = Cause("RuntimeError: Connection closed by peer", lost=True)


@pytest.fixture(autouse=True)
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


class DistError(RuntimeError):
    """As the errors of torch.distributed: all others of it are below this one."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"),
        DistError("Connection reset by peer"),
        RuntimeError("NCCL error: remote process exited or there was a network error"),
    ],
)
def test_a_lost_connection_to_another_rank_is_no_cause(error):
    assert cause_of(error).lost


@pytest.mark.parametrize("error", [ValueError("a mistake"), ConnectionResetError("Connection reset by peer")])
def test_other_errors_are(error):
    assert cause_of(error) == Cause(f"{type(error).__name__}: {error}")


def test_a_worker_that_was_killed_is_no_fault_of_the_code():
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
        except RuntimeError as first:
            raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly") from first
    except RuntimeError as error:
        assert cause_of(error) == Cause(
            "RuntimeError: DataLoader worker (pid(s) 12) exited unexpectedly: out of memory?", killed=True
        )
    assert not cause_of(RuntimeError("DataLoader worker (pid 12) is killed by signal: Segmentation fault. ")).killed


def test_the_first_cause_of_all_ranks_is_the_reason(tmp_path):
    leave_note(tmp_path, 2, Cause("ValueError: the first"))
    leave_note(tmp_path, 1, LOST)
    leave_note(tmp_path, 3, Cause("KeyError: a later one"))
    assert first_cause(tmp_path, LOST) == Cause("rank 2: ValueError: the first")
    assert first_cause(tmp_path, Cause("KeyError: mine")) == Cause("KeyError: mine")


def test_a_note_that_comes_a_little_later_is_waited_for(tmp_path):
    late = threading.Timer(0.2, leave_note, (tmp_path, 1, Cause("ValueError: late")))
    late.start()
    assert first_cause(tmp_path, LOST, wait=600).reason == "rank 1: ValueError: late"
    late.join()


def test_a_rank_that_has_gone_without_a_word_was_killed(tmp_path, monkeypatch):
    leave_note(tmp_path, 1, Cause("ValueError: of an earlier start"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert noted_cause(tmp_path) is None
    assert first_cause(tmp_path, LOST, wait=0) == Cause(WITHOUT_A_WORD, killed=True)


def child(code):
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.parametrize("code, left", [(0, False), (75, False), (3, True)])
def test_rank_0_is_ended_only_if_another_rank_has_failed_and_it_hangs(code, left):
    children = [child(f"import sys; sys.exit({code})"), child("import time; time.sleep(600)")]
    leaving = threading.Event()
    watch = RankWatch(leaving.set, patience=0)
    try:
        watch.start(children)
        children[0].wait()
        assert leaving.wait(600 if left else 1.5) == left
        if left:
            children[1].wait(600)
    finally:
        watch.ended.set()
        for process in children:
            process.kill()
            process.wait()


def test_rank_0_that_notices_by_itself_is_left_alone():
    failed = child("raise SystemExit(1)")
    failed.wait()
    left = []
    watch = RankWatch(lambda: left.append(time.monotonic()), patience=600)
    watch.start([failed])
    watch.ended.set()
    time.sleep(0.1)
    assert not left
