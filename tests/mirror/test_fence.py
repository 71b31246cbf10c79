"""One machine at a time: who may continue a run, and when, whatever the clocks say."""

import os
import time
from dataclasses import replace

import pytest
from fake_run import IDENTITY, stranger

from lightning_hpc.mirror import fence
from lightning_hpc.mirror.fence import check_free, new_owner
from lightning_hpc.mirror.pointer import Pointer
from lightning_hpc.mirror.settings import MirrorError

HOUR = 3600.0
NOTICE = 1200.0


def pointer(silent: float = 0.0, **changes) -> Pointer:
    """What another machine has written, so many seconds ago by the clock here."""
    known = dict(state="running", released=False, attempt=3, owner=stranger(), heartbeat=time.time() - silent)
    known |= dict(every=300.0, notice=NOTICE)
    return Pointer(IDENTITY, "default", "000-base-01234567", **known | changes)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Asks whether a run is free; the time that this takes passes at once, while the other machine does `then`."""
    monkeypatch.setattr(fence.time, "sleep", lambda seconds: moments.append(seconds))
    monkeypatch.setattr(fence.time, "monotonic", lambda: sum(moments))
    moments: list[float] = []

    def ask(there: Pointer, then: Pointer | None = None, patience: float = NOTICE) -> float:
        moments.clear()
        check_free(there, new_owner(tmp_path), patience, lambda: then or there, lambda line: None)
        return sum(moments)  # seconds that it has watched

    return ask


def test_a_run_that_was_released_is_free(ask):
    assert ask(pointer(released=True)) == 0


def test_a_machine_that_lives_is_named(ask):
    with pytest.raises(MirrorError, match=r"process 7 on other \(attempt 3\) has this run, and gave its last .* 60 s"):
        ask(pointer(60))
    with pytest.raises(MirrorError, match="for 10 more minutes of silence.*--mirror.take_over_after_minutes 0"):
        ask(pointer(600))


def test_a_machine_that_is_known_to_have_ended_need_not_be_waited_for(ask):
    assert ask(pointer(1), patience=0) == 0


def test_the_shorter_patience_counts(ask):
    assert ask(pointer(700), patience=600) > 0
    with pytest.raises(MirrorError):
        ask(pointer(700), patience=2 * NOTICE)


def test_long_silence_is_enough(ask):
    assert ask(pointer(2 * HOUR)) == 0


def test_silence_that_a_wrong_clock_could_explain_is_watched(ask):
    assert NOTICE > ask(pointer(NOTICE + 60)) >= 600


def test_a_clock_that_is_an_hour_ahead_does_not_take_over_a_run_that_lives(ask):
    with pytest.raises(MirrorError, match="has just given a sign of life, although by the clock here"):
        ask(pointer(HOUR), then=pointer(HOUR - 300))


def test_a_clock_that_is_an_hour_behind_waits_once(ask):
    assert ask(pointer(-HOUR)) >= NOTICE
    with pytest.raises(MirrorError, match="has just given a sign of life"):
        ask(pointer(-HOUR), then=pointer(-HOUR - 300))
    assert ask(pointer(-HOUR), then=pointer(-HOUR, released=True)) < NOTICE


def test_a_process_of_this_machine_that_is_no_more_has_ended(ask, tmp_path):
    mine = new_owner(tmp_path / "elsewhere", note=False)
    with pytest.raises(MirrorError):
        ask(pointer(1, owner=mine))

    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert ask(pointer(1, owner=mine | dict(pid=child))) == 0
    with pytest.raises(MirrorError):  # another machine's processes are not known here
        ask(pointer(1, owner=mine | dict(pid=child, boot="another")))


def test_the_same_folder_is_guarded_by_its_lock(ask, tmp_path):
    owner = new_owner(tmp_path) | dict(host="another node", boot="another")
    assert ask(pointer(1, owner=owner)) == 0


def test_what_a_pointer_says_is_what_was_written():
    there = pointer()
    assert replace(there, heartbeat=1.5).text() != there.text()
