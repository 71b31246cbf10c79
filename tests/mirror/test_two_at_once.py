"""What another machine does to a run while this one has it in hand: between two looks at the mirror."""

import json
from types import SimpleNamespace

import pytest
from fake_run import IDENTITY, make_run, save, send, there, upload_of

from lightning_hpc.attempts import mirrored
from lightning_hpc.attempts.mirrored import Mirrored, Remembered, ask, bring
from lightning_hpc.mirror.fence import Taken
from lightning_hpc.mirror.fetch import Fetcher
from lightning_hpc.mirror.run_mirror import RunMirror
from lightning_hpc.mirror.sender import Sender
from lightning_hpc.mirror.settings import Mirror, MirrorError
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.survive.checkpoint_files import read_meta, write_meta
from lightning_hpc.survive.whole import damage


@pytest.fixture
def elsewhere(tmp_path):
    return make_run(tmp_path / "elsewhere" / "000-base-01234567")


def begin(folder: RunFolder, address: str) -> Mirrored:
    """What a start of the run does in its folder, before it trains."""
    found = ask(SimpleNamespace(folder=folder, identity=IDENTITY), Mirror(address), fresh=False)
    bring(found, Remembered(damage))
    return found


def test_a_machine_that_takes_over_during_an_upload_keeps_what_it_has_done(folder, elsewhere, address, monkeypatch):
    first, put = upload_of(folder, address), RunMirror.put
    send(first, 10)

    def taken_over_meanwhile(mirror, files):
        if mirror is first.mirror:  # the network hangs, so this takes hours
            elsewhere.update(state="done")
            send(upload_of(elsewhere, address), 100, released=True)
        put(mirror, files)

    monkeypatch.setattr(RunMirror, "put", taken_over_meanwhile)
    with pytest.raises(Taken):
        send(first, 20)
    pointer = there(address).read()
    assert (pointer.state, pointer.step, pointer.released) == ("done", 100, True)


def test_a_run_that_begins_elsewhere_while_it_is_fetched_is_left_to_that_machine(
    folder, elsewhere, address, monkeypatch
):
    before = upload_of(folder, address)
    send(before, 10, released=True)
    other, get = upload_of(elsewhere, address), RunMirror.get

    def begins_elsewhere(mirror, piece, target):
        if other.pointer is None:
            for step in (20, 30, 40):
                send(other, step)
        get(mirror, piece, target)

    monkeypatch.setattr(RunMirror, "get", begins_elsewhere)
    third = make_run(folder.path.parents[1] / "third" / folder.path.name)
    with pytest.raises(MirrorError, match="has this run, and gave its last sign of life"):
        begin(third, address)
    send(other, 50)


def test_a_run_that_begins_elsewhere_right_after_the_look_is_left_to_that_machine(
    folder, elsewhere, address, monkeypatch
):
    send(upload_of(folder, address), 10, released=True)
    other, check = upload_of(elsewhere, address), mirrored.check_free

    def begins_elsewhere(*arguments):
        check(*arguments)
        if other.pointer is None:
            send(other, 20)

    monkeypatch.setattr(mirrored, "check_free", begins_elsewhere)
    third = make_run(folder.path.parents[1] / "third" / folder.path.name)
    with pytest.raises(MirrorError, match="has this run, and gave its last sign of life"):
        begin(third, address)


def test_two_checkpoints_of_the_same_second_that_are_the_best_both_go_up(folder, address):
    upload = upload_of(folder, address)
    sender = Sender(upload)
    for step in (10, 20):
        entry = save(folder.path, step, best=True) | dict(saved="2026-02-03T04:05:06+00:00")
        write_meta(folder.path / "checkpoints", read_meta(folder.path / "checkpoints") | dict(best=entry))
        sender.offer(entry)
    sender.start()
    sender.finish("done")
    pointer = there(address).read()
    assert (pointer.step, pointer.best.step) == (20, 20)


def test_a_run_whose_last_checkpoint_never_got_into_the_mirror_is_not_done(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10)
    save(folder.path, 20)
    folder.update(state="done")
    upload.send(None, None, True, released=True)  # there was no room for a second name of the last one
    fetched = Fetcher(there(address), tmp_path / "there", damage).newest(there(address).read())
    status = json.loads((tmp_path / "there" / "status.json").read_text())
    assert fetched.step == 10 and status["state"] == "interrupted"
