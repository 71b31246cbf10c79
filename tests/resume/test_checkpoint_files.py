"""Checkpoint files: written whole or not at all, found again, damage noticed; on full disks too."""

import enum
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from small_disk import no_file_larger_than

from lightning_hpc.files import atomic_write
from lightning_hpc.survive.checkpoint_files import CheckpointError, find_checkpoint, give_name, is_own, remove_parts
from lightning_hpc.survive.checkpoint_io import AtomicCheckpointIO
from lightning_hpc.survive.saving import publish
from lightning_hpc.survive.whole import damage
from lightning_hpc.values.plain_data import NotPlain, plain_checkpoint, plain_value


def save(path: Path, megabytes: float = 0.1) -> Path:
    AtomicCheckpointIO().save_checkpoint(dict(weights=torch.ones(int(megabytes * 2**18)), name=path.name), path)
    return path


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
    path = save(tmp_path / "last.ckpt")
    before = path.read_bytes()
    with no_file_larger_than(50_000), pytest.raises(OSError, match="File too large"):
        save(path, megabytes=2)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_disk_that_is_really_full(small_disk):
    path = save(small_disk / "last.ckpt", megabytes=0.5)
    with pytest.raises(OSError, match="No space left on device"):
        save(path, megabytes=0.7)
    assert damage(path) is None
    assert [file.name for file in small_disk.iterdir()] == ["last.ckpt"]


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "last.ckpt")
    before = path.read_bytes()
    program = (
        "import os, signal, sys; from pathlib import Path; from lightning_hpc.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file: file.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_what_killed_writes_have_left_is_removed_and_nothing_else(tmp_path):
    kept = [
        "step-00000010.ckpt",
        "last.ckpt",
        "meta.json",
        ".notes.txt.4711.part",  # somebody else's
        "last.ckpt.4711.part",
        ".last.ckpt.part",
        ".last.ckpt.mine.part",
    ]
    left = [f".{name}.4711.part" for name in ("step-00000020.ckpt", "last.ckpt", "best.ckpt", "meta.json")]
    for name in kept + left:
        (tmp_path / name).write_bytes(b"half")
    remove_parts(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)
    remove_parts(tmp_path / "missing")


def test_a_part_of_a_write_or_of_a_name_is_one_that_is_removed(tmp_path, monkeypatch):
    """The pattern that is removed is the one that `atomic_write` and `give_name` use."""
    checkpoint = save(tmp_path / "step-00000010.ckpt")
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)  # a SIGKILL cleans nothing up
    for name in ("step-00000020.ckpt", "meta.json"):
        with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / name):
            pass
    with pytest.raises(KeyboardInterrupt):
        give_name(checkpoint, tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 4
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("how", ["cut off", "emptied", "one bit", "other content"])
def test_damage_of_every_kind_is_seen(tmp_path, how):
    path = save(tmp_path / "last.ckpt")
    assert damage(path) is None
    content = bytearray(path.read_bytes())
    if how == "one bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(
        {"cut off": content[:-1000], "emptied": b"", "one bit": content, "other content": b"x" * 5000}[how]
    )
    assert damage(path)


def test_a_name_is_given_without_a_moment_in_which_it_is_missing(tmp_path, monkeypatch):
    one, two, last = save(tmp_path / "step-1.ckpt"), save(tmp_path / "step-2.ckpt"), tmp_path / "last.ckpt"
    for file in (one, two, two):
        give_name(file, last)
        assert last.samefile(file)
        assert not list(tmp_path.glob(".*.part"))
    (tmp_path / f".last.ckpt.{os.getpid()}.part").write_bytes(b"of a process that had the same number")
    give_name(one, last)
    assert last.samefile(one)
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no hard links here")))
    give_name(two, last)
    assert last.read_bytes() == two.read_bytes() and not last.samefile(two)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_old_checkpoint_goes_when_the_new_one_and_its_names_are_on_disk(tmp_path, monkeypatch):
    done = []

    def names_in(folder):
        return sorted(path.name for path in folder.iterdir())

    monkeypatch.setattr(publish, "sync_folder", lambda folder: done.append(names_in(folder)))
    publisher = publish.Publisher(tmp_path, keep=1)
    for step in (10, 20):
        publisher.publish(dict(file=save(tmp_path / f"step-000000{step}.ckpt").name, step=step), {})
    names = ["best.ckpt", "last.ckpt", "meta.json"]
    assert done == [[*names, "step-00000010.ckpt"], [*names, "step-00000010.ckpt", "step-00000020.ckpt"]]
    assert names_in(tmp_path) == [*names, "step-00000020.ckpt"]

    # What a save that has failed has left is found.
    save(tmp_path / "step-00000025.ckpt")
    publisher.forget()
    publisher.publish(dict(file=save(tmp_path / "step-00000022.ckpt").name, step=22), None)
    assert names_in(tmp_path) == [*names, "step-00000022.ckpt"]
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["best"]["step"], [entry["step"] for entry in meta["kept"]]) == (20, [22])


def test_find_takes_the_newest_by_number(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path / f"step-{step:08d}.ckpt")
    found = find_checkpoint(tmp_path)
    assert (found.path.name, found.step, found.damaged) == ("step-00000100.ckpt", 100, [])
    assert find_checkpoint(tmp_path, "never") is None


def test_no_checkpoint_is_not_an_error_unless_there_must_be_one(tmp_path):
    assert find_checkpoint(tmp_path / "missing") is None
    assert find_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match="--resume must, but there is no checkpoint"):
        find_checkpoint(tmp_path, "must")


def test_not_being_able_to_look_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="could not look for checkpoints"):
        find_checkpoint(tmp_path / "checkpoints")
    if os.geteuid() != 0:  # root may read everything
        (tmp_path / "locked").mkdir(mode=0)
        with pytest.raises(CheckpointError, match="Permission denied"):
            find_checkpoint(tmp_path / "locked")
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    with pytest.raises(CheckpointError, match="Stale file handle"):
        find_checkpoint(tmp_path)


def test_a_damaged_newest_checkpoint_is_passed_over_and_told(tmp_path):
    save(tmp_path / "step-00000010.ckpt")
    newest = save(tmp_path / "step-00000020.ckpt")
    give_name(newest, tmp_path / "last.ckpt")
    with open(tmp_path / "last.ckpt", "r+b") as file:  # by hand; it is the same file as the newest
        file.truncate(1000)
    found = find_checkpoint(tmp_path)
    assert found.step == 10
    assert len(found.damaged) == 1
    assert "step-00000020.ckpt is damaged" in found.damaged[0]


def test_none_whole_stops(tmp_path):
    for name in ("step-00000010.ckpt", "step-00000020.ckpt"):
        (tmp_path / name).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints .* is whole"):
        find_checkpoint(tmp_path)


def test_last_alone_is_found_with_its_step_from_meta(tmp_path):
    save(tmp_path / "last.ckpt")
    (tmp_path / "meta.json").write_text(json.dumps(dict(last=dict(step=7, epoch=1), kept=[])))
    found = find_checkpoint(tmp_path)
    assert (found.path.name, found.step, found.epoch) == ("last.ckpt", 7, 1)


def test_the_best_is_resumed_from_where_nothing_newer_is_whole(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"half")  # copies, and no names of steps that are there
    save(tmp_path / "best.ckpt")
    (tmp_path / "meta.json").write_text(json.dumps(dict(best=dict(step=7, epoch=1), last=dict(step=9, epoch=2))))
    found = find_checkpoint(tmp_path)
    assert (found.path.name, found.step, found.epoch) == ("best.ckpt", 7, 1)
    assert len(found.damaged) == 1 and "last.ckpt is damaged" in found.damaged[0]


def test_which_checkpoint_is_a_runs_own(tmp_path):
    own = save(tmp_path / "run" / "checkpoints" / "step-00000003.ckpt")
    give_name(own, own.with_name("last.ckpt"))
    assert is_own(own, tmp_path / "run") and is_own(str(own.with_name("last.ckpt")), str(tmp_path / "run"))
    assert not is_own(own, tmp_path / "other") and not is_own(None, tmp_path / "run")


def test_a_checkpoint_by_name_or_path(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save(folder / "best.ckpt")
    elsewhere = save(tmp_path / "elsewhere.ckpt")
    assert find_checkpoint(folder, "best").path == folder / "best.ckpt"
    assert find_checkpoint(folder, "best.ckpt").path == folder / "best.ckpt"
    assert find_checkpoint(folder, str(elsewhere)).path == elsewhere
    with pytest.raises(CheckpointError, match="no checkpoint wrost: not a file, and .* has: best"):
        find_checkpoint(folder, "wrost")
    (folder / "best.ckpt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="best.ckpt is damaged"):
        find_checkpoint(folder, "best")


def test_only_plain_data_is_read(tmp_path):
    torch.save(dict(trap=Path("/")), tmp_path / "trap.ckpt")
    with pytest.raises(CheckpointError, match="can't read checkpoint .*trap.ckpt"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "trap.ckpt")


def test_what_could_not_be_read_again_takes_no_name(tmp_path, monkeypatch):
    path = save(tmp_path / "last.ckpt")
    before = path.read_bytes()
    monkeypatch.setattr(AtomicCheckpointIO, "make_plain", lambda self, checkpoint: checkpoint)
    for _ in range(2):  # at each save, not only at the first
        with pytest.raises(CheckpointError, match="could not be read again: it holds a pathlib"):
            AtomicCheckpointIO().save_checkpoint(dict(hyper_parameters=dict(path=Path("/"))), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = (1, 0, 0)


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.float64(0.1), 0.1),
        (np.int64(3), 3),
        (np.str_("a"), "a"),
        (Path("/data"), "/data"),
        (np.arange(3), torch.arange(3)),
        (Point(1, np.bool_(True)), (1, True)),
        (defaultdict(list, a=[np.float32(0.5)]), dict(a=[0.5])),
        ({Path("a"): 1, np.str_("b"): 2}, dict(a=1, b=2)),
        (signal.SIGTERM, 15),
        (frozenset({1}), {1}),
    ],
    ids=str,
)
def test_what_has_a_plain_counterpart_becomes_it(value, plain):
    lines = []
    found = plain_value([value], "callbacks/Mine", lines)[0]
    assert type(found) is type(plain) and lines
    assert torch.equal(found, plain) if isinstance(plain, torch.Tensor) else found == plain
    assert not any(isinstance(key, np.generic) for key in found) if isinstance(found, dict) else True


@pytest.mark.parametrize(
    "value",
    [Colour.RED, object(), len, [np.longdouble(1)], dict(a=threading.Lock())],
    ids=lambda value: type(value).__name__,
)
def test_what_has_none_is_named_with_its_place(value):
    with pytest.raises(NotPlain, match="^here"):
        plain_value(value, "here", [])


def test_what_is_plain_stays_the_same_object():
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert state._metadata  # versions of modules, which a copy would lose
    plain = [
        state,
        Counter(a=1),
        {1, 2},
        b"bytes",
        1j,
        torch.device("cpu"),
        torch.nn.Parameter(torch.ones(1)),
        (1, "a"),
    ]
    lines = []
    assert all(plain_value(value, "", lines) is value for value in plain) and not lines
    changed = plain_value(OrderedDict(state, more=np.float64(1)), "", lines)
    assert type(changed) is OrderedDict and changed["weight"] is state["weight"]


def test_what_holds_itself_is_left_out():
    endless = []
    endless.append(endless)
    plain, (line,) = plain_checkpoint(dict(mine=endless, epoch=1))
    assert plain == dict(epoch=1)
    assert line == "mine holds itself or is nested too deep, and is left out"


def test_size_and_hash_are_those_of_the_file(tmp_path):
    from hashlib import sha256

    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint(dict(weights=torch.randn(1000)), path)
    assert io.written == dict(size=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest())


def test_the_part_lies_beside_the_target(tmp_path):
    with atomic_write(tmp_path / "file") as file:
        assert Path(file.name).parent == tmp_path  # on the same file system, so that the rename is atomic
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
