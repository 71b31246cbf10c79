"""Uploads that are killed or disturbed: a mirror has the state before or the state after, and nothing else counts."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_run import IDENTITY, content, make_run, save, send, stranger, there, upload_of, weights
from small_disk import no_file_larger_than

from lightning_hpc.mirror import pointer as pointers
from lightning_hpc.mirror.fence import Taken
from lightning_hpc.mirror.fetch import Fetcher
from lightning_hpc.mirror.run_mirror import RunMirror
from lightning_hpc.mirror.sender import Sender
from lightning_hpc.mirror.settings import MirrorError
from lightning_hpc.remote import StoreError
from lightning_hpc.survive.whole import damage

HERE = Path(__file__).parent
PHASES = (
    "before", "in a file", "between two files", "after the files", "before the pointer", "after the pointer",
    "cleaning up", "at the end",
)  # fmt: skip


def fetched(address: str, target: Path) -> tuple[int, list[str]]:
    """The step that another machine gets out of a mirror, with what was damaged; what it gets is checked."""
    mirror = there(address)
    done = Fetcher(mirror, target, damage).newest(mirror.read())
    assert weights(target / "checkpoints" / "last.ckpt") == content(done.step)
    assert len((target / "metrics.csv").read_text().splitlines()) > done.step
    assert json.loads((target / "status.json").read_text())["identity"] == IDENTITY
    return done.step, done.damaged


def in_a_process(folder, address, step, phase="none"):
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    program = [sys.executable, HERE / "killed_upload.py", folder.path, address, str(step), phase]
    return subprocess.run(program, env=os.environ | {"PYTHONPATH": paths}, timeout=60).returncode


@pytest.mark.parametrize("phase", PHASES)
def test_an_upload_that_is_killed_leaves_a_whole_state(phase, folder, address, tmp_path):
    assert in_a_process(folder, address, 10) == 0
    assert in_a_process(folder, address, 20) == 0
    assert in_a_process(folder, address, 30, phase) == -signal.SIGKILL
    is_new = phase in ("after the pointer", "cleaning up", "at the end")
    assert fetched(address, tmp_path / "there") == (30 if is_new else 20, [])

    # The next attempt, here, finishes it, and tidies up.
    assert in_a_process(folder, address, 40) == 0
    assert fetched(address, tmp_path / "there") == (40, [])
    pointer = there(address).read()
    assert [copy.step for copy in pointer.checkpoints] == [40, 30 if is_new else 20]
    assert pointer.best.step == 40
    assert set(there(address).sizes()) == pointer.names() | {"latest.json"}


def test_a_run_that_ends_while_its_files_are_read_is_done_with_its_last_checkpoint(
    folder, address, tmp_path, monkeypatch
):
    upload = upload_of(folder, address)
    sender, small_files = Sender(upload), upload.staging.small_files
    ended = threading.Event()

    def run_ends_meanwhile(meta):
        """Step 10 is about to go up when the run saves its last step and ends."""
        if not ended.is_set():
            sender.offer(save(folder.path, 20, best=True))
            folder.update(state="done")
            ended.set()
        return small_files(meta)

    monkeypatch.setattr(upload.staging, "small_files", run_ends_meanwhile)
    sender.offer(save(folder.path, 10))
    sender.start()
    assert ended.wait(30)
    while sender._sending:
        time.sleep(0.01)
    before = there(address).read()  # what a kill here would leave
    assert before is None or (before.state, before.step) == ("running", 10)

    assert sender.finish("done") == f"mirror           {there(address).address}"
    pointer = there(address).read()
    assert (pointer.state, pointer.step, pointer.best.step, pointer.released) == ("done", 20, 20, True)
    assert fetched(address, tmp_path / "there") == (20, [])
    assert not list((folder.path / ".mirror").glob("links-*"))


def test_a_checkpoint_that_is_saved_meanwhile_is_not_told_of(folder, address, tmp_path):
    upload = upload_of(folder, address)
    staged = upload.staging.newest(save(folder.path, 10, best=True))
    save(folder.path, 20, best=True)
    upload.send(staged, None, True, False)
    assert fetched(address, tmp_path / "there") == (10, [])
    meta = json.loads((tmp_path / "there" / "checkpoints" / "meta.json").read_text())
    assert (meta["last"]["step"], meta["best"]["step"], len(meta["kept"])) == (10, 10, 1)


@pytest.mark.parametrize("late", ["checkpoints/step-00000010.ckpt", "config.yaml", "status.json"])
def test_what_is_fetched_of_a_run_that_goes_on_is_one_state_of_it(late, folder, address, tmp_path, monkeypatch):
    upload, get = upload_of(folder, address), RunMirror.get
    send(upload, 10)

    def goes_on_meanwhile(mirror, piece, target):
        if piece.place == late and upload.pointer.step == 10:
            (folder.path / "config.yaml").write_text("name: other\n")
            for step in (20, 30):
                send(upload, step)
        get(mirror, piece, target)

    monkeypatch.setattr(RunMirror, "get", goes_on_meanwhile)
    assert fetched(address, tmp_path / "there") == (30, [])
    assert (tmp_path / "there" / "config.yaml").read_text() == "name: other\n"


def test_a_run_that_goes_on_faster_than_it_is_fetched_is_an_error(folder, address, tmp_path, monkeypatch):
    upload, get = upload_of(folder, address), RunMirror.get
    send(upload, 10)

    def goes_on_each_time(mirror, piece, target):
        if piece.place == "status.json":
            send(upload, upload.pointer.step + 10)
        get(mirror, piece, target)

    monkeypatch.setattr(RunMirror, "get", goes_on_each_time)
    with pytest.raises(MirrorError, match="the run goes on faster than it can be fetched"):
        fetched(address, tmp_path / "there")
    assert not (tmp_path / "there" / ".mirror" / "fetched").exists()


def test_a_run_whose_last_checkpoint_is_damaged_in_the_mirror_is_not_done(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10)
    folder.update(state="done")
    send(upload, 20, released=True)
    (copy,) = Path(address.removeprefix("file://")).glob("*/checkpoints/step-00000020-*")
    copy.write_bytes(b"half")
    step, damaged = fetched(address, tmp_path / "there")
    assert step == 10 and len(damaged) == 1
    status = json.loads((tmp_path / "there" / "status.json").read_text())
    assert status["state"] == "interrupted" and "step 20, is damaged" in status["reason"]


def test_the_mirror_holds_two_checkpoints_and_the_best_and_each_file_once(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10, best=True)
    for step in (20, 30, 40):
        send(upload, step)
    send(upload, 50, released=True)
    pointer = there(address).read()
    assert ([copy.step for copy in pointer.checkpoints], pointer.best.step, pointer.released) == ([50, 40], 10, True)
    assert set(there(address).sizes()) == pointer.names() | {"latest.json"}
    assert fetched(address, tmp_path / "there") == (50, [])
    assert weights(tmp_path / "there" / "checkpoints" / "best.ckpt") == content(10)


def test_a_sign_of_life_changes_the_pointer_alone(folder, address, monkeypatch):
    upload = upload_of(folder, address)
    send(upload, 10)
    before = there(address).read()
    put = []
    monkeypatch.setattr(upload.mirror, "put", put.append)
    upload.send(None, None, False, False)
    after = there(address).read()
    assert after.heartbeat > before.heartbeat and after.names() == before.names() and not put


def test_checkpoints_that_are_folders(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10, as_folder=True, best=True)
    send(upload, 20, as_folder=True)
    assert fetched(address, tmp_path / "there") == (20, [])
    assert (tmp_path / "there" / "checkpoints" / "best.ckpt").resolve().name == "step-00000010.ckpt"
    assert damage(tmp_path / "there" / "checkpoints" / "step-00000020.ckpt") is None


@pytest.mark.parametrize("how", ["truncated", "another checksum", "missing"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_copy_that_is_not_whole_is_the_previous_one(how, as_folder, folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10, as_folder=as_folder)
    send(upload, 20, as_folder=as_folder, best=True)
    newest = there(address).read().checkpoints[0].pieces[0]
    file = tmp_path / "mirror" / IDENTITY / newest.name
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.write_bytes(bytes(len(file.read_bytes())))
    step, damaged = fetched(address, tmp_path / "there")
    assert step == 10 and newest.name in damaged[0]
    assert not list((tmp_path / "there").rglob("step-00000020*"))

    # Where no other is left, that is an error, and nothing is half there.
    for piece in there(address).read().checkpoints[1].pieces:
        (tmp_path / "mirror" / IDENTITY / piece.name).unlink()
    with pytest.raises(MirrorError, match="none of the 2 checkpoints in .* is whole"):
        fetched(address, tmp_path / "another")
    assert not list((tmp_path / "another").rglob("step-*"))


def test_what_somebody_deletes_in_the_mirror_is_put_there_again_or_forgotten(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10)
    send(upload, 20)
    for piece in there(address).read().checkpoints[1].pieces:
        (tmp_path / "mirror" / IDENTITY / piece.name).unlink()
    (tmp_path / "mirror" / IDENTITY / "latest.json").unlink()
    send(upload, 30)
    assert [copy.step for copy in there(address).read().checkpoints] == [30, 20]
    assert fetched(address, tmp_path / "there") == (30, [])


def test_a_pointer_that_can_not_be_understood_is_an_error(folder, address, tmp_path):
    send(upload_of(folder, address), 10)
    file = tmp_path / "mirror" / IDENTITY / "latest.json"
    content = json.loads(file.read_text())
    for wrong in ("half", json.dumps(content)[:-50], json.dumps(content | dict(files=[dict(place="../../x", size=1)]))):
        file.write_text(wrong)
        with pytest.raises(MirrorError, match="can't be understood"):
            there(address).read()
    file.write_text(json.dumps(content | dict(version=pointers.VERSION + 1)))
    with pytest.raises(MirrorError, match="later version"):
        there(address).read()


def test_of_two_writers_the_one_that_was_taken_over_uploads_nothing_more(folder, address, tmp_path):
    first = upload_of(folder, address)
    send(first, 10)
    second_folder = make_run(tmp_path / "elsewhere" / folder.path.name)
    second = upload_of(second_folder, address)  # it has waited long enough
    send(second, 20)
    with pytest.raises(Taken, match=r"has taken over this run"):
        send(first, 30)
    send(second, 25)
    assert fetched(address, tmp_path / "there") == (25, [])


def test_two_writers_that_write_the_pointer_at_the_same_moment(folder, address, tmp_path, monkeypatch):
    first = upload_of(folder, address)
    second = upload_of(make_run(tmp_path / "elsewhere" / folder.path.name), address)
    put = first.mirror.store.put

    def both(files):
        put(files)
        if any(name.endswith("latest.json") for name in files):
            monkeypatch.setattr(first.mirror.store, "put", put)
            monkeypatch.setattr(second, "_check_mine", lambda pointer: None)  # it has looked before
            send(second, 20)

    monkeypatch.setattr(first.mirror.store, "put", both)
    with pytest.raises(Taken):
        send(first, 10)
    assert fetched(address, tmp_path / "there") == (20, [])


def test_starting_over_leaves_what_is_there(folder, address, tmp_path):
    send(upload_of(folder, address), 50, best=True)
    over = upload_of(make_run(tmp_path / "again" / folder.path.name), address, fresh=True)
    send(over, 5)
    for step in (6, 7, 8):
        send(over, step)
    pointer = there(address).read()
    assert [copy.step for copy in pointer.checkpoints] == [8, 7]
    assert {copy.step for copy in pointer.left} == {50}
    assert pointer.names() <= set(there(address).sizes())
    assert fetched(address, tmp_path / "there") == (8, [])


def test_what_was_resumed_from_stays(folder, address, tmp_path):
    first = upload_of(folder, address)
    send(first, 10)
    send(first, 20)
    second = upload_of(folder, address, resumed=10)
    for step in (15, 16, 17, 18):
        send(second, step)
    pointer = there(address).read()
    assert [copy.step for copy in pointer.checkpoints] == [18, 17] and pointer.resumed.step == 10
    assert {piece.name for piece in pointer.resumed.pieces} <= set(there(address).sizes())


def test_a_full_disk_here_loses_nothing(folder, address, tmp_path):
    upload = upload_of(folder, address)
    send(upload, 10)
    with no_file_larger_than(50_000), pytest.raises((OSError, StoreError)):
        send(upload, 20)
    assert fetched(address, tmp_path / "there") == (10, [])
    with no_file_larger_than(50_000), pytest.raises((OSError, StoreError)):
        fetched(address, tmp_path / "full")
    assert not list((tmp_path / "full").rglob("step-*"))
    send(upload, 30)
    assert fetched(address, tmp_path / "there") == (30, [])


def test_owners(folder):
    """The folder itself is known again, and a copy of it is not."""
    from lightning_hpc.mirror.fence import is_mine, new_owner

    save(folder.path, 10)
    owner = new_owner(folder.path)
    assert is_mine(owner, new_owner(folder.path)) and owner["token"] != new_owner(folder.path)["token"]
    copy = folder.path.with_name("copy")
    subprocess.run(["cp", "-r", folder.path, copy], check=True)
    assert not is_mine(owner, new_owner(copy))
    assert not is_mine(stranger(), new_owner(folder.path))
