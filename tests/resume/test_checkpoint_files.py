"""Checkpoint files: written whole or not at all, found again, damage noticed; on full disks too."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from package.training.checkpoint_files import CheckpointError, atomic_write, damage, find, give_name
from package.training.checkpoints import AtomicCheckpointIO


def save(path: Path, megabytes: float = 0.1) -> Path:
    AtomicCheckpointIO().save_checkpoint(dict(weights=torch.ones(int(megabytes * 2**18)), name=path.name), path)
    return path


@contextmanager
def no_file_larger_than(size: int):
    """A disk that is full, as far as this process can tell: works for every user."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
    path = save(tmp_path / "last.ckpt")
    before = path.read_bytes()
    with no_file_larger_than(50_000), pytest.raises(OSError, match="File too large"):
        save(path, megabytes=2)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root; the test above doesn't")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"can't mount here: {mounted.stderr.strip()}; the test above covers it without a mount")
    try:
        path = save(disk / "last.ckpt", megabytes=0.5)
        with pytest.raises(OSError, match="No space left on device"):
            save(path, megabytes=0.7)
        assert damage(path) is None
        assert [file.name for file in disk.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "last.ckpt")
    before = path.read_bytes()
    program = (
        "import os, signal, sys; from pathlib import Path; from package.training.checkpoint_files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file: file.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == -signal.SIGKILL
    assert path.read_bytes() == before


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
        assert last.read_bytes() == file.read_bytes()
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no hard links here")))
    give_name(one, last)
    assert last.read_bytes() == one.read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_find_takes_the_newest_by_number(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path / f"step-{step:08d}.ckpt")
    found = find(tmp_path)
    assert (found.path.name, found.step, found.damaged) == ("step-00000100.ckpt", 100, [])
    assert find(tmp_path, "never") is None


def test_no_checkpoint_is_not_an_error_unless_there_must_be_one(tmp_path):
    assert find(tmp_path / "missing") is None
    assert find(tmp_path) is None
    with pytest.raises(CheckpointError, match="--resume must, but there is no checkpoint"):
        find(tmp_path, "must")


def test_not_being_able_to_look_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="could not look for checkpoints"):
        find(tmp_path / "checkpoints")
    if os.geteuid() != 0:  # root may read everything
        (tmp_path / "locked").mkdir(mode=0)
        with pytest.raises(CheckpointError, match="Permission denied"):
            find(tmp_path / "locked")
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    with pytest.raises(CheckpointError, match="Stale file handle"):
        find(tmp_path)


def test_a_damaged_newest_checkpoint_is_passed_over_and_told(tmp_path):
    save(tmp_path / "step-00000010.ckpt")
    newest = save(tmp_path / "step-00000020.ckpt")
    give_name(newest, tmp_path / "last.ckpt")
    with open(tmp_path / "last.ckpt", "r+b") as file:  # by hand; it is the same file as the newest
        file.truncate(1000)
    found = find(tmp_path)
    assert found.step == 10
    assert len(found.damaged) == 1
    assert "step-00000020.ckpt is damaged" in found.damaged[0]


def test_none_whole_stops(tmp_path):
    for name in ("step-00000010.ckpt", "step-00000020.ckpt"):
        (tmp_path / name).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints .* is whole"):
        find(tmp_path)


def test_last_alone_is_found_with_its_step_from_meta(tmp_path):
    save(tmp_path / "last.ckpt")
    (tmp_path / "meta.json").write_text(json.dumps(dict(last=dict(step=7, epoch=1), kept=[])))
    found = find(tmp_path)
    assert (found.path.name, found.step, found.epoch) == ("last.ckpt", 7, 1)


def test_a_checkpoint_by_name_or_path(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save(folder / "best.ckpt")
    elsewhere = save(tmp_path / "elsewhere.ckpt")
    assert find(folder, "best").path == folder / "best.ckpt"
    assert find(folder, "best.ckpt").path == folder / "best.ckpt"
    assert find(folder, str(elsewhere)).path == elsewhere
    with pytest.raises(CheckpointError, match="no checkpoint wrost: not a file, and .* has: best"):
        find(folder, "wrost")
    (folder / "best.ckpt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="best.ckpt is damaged"):
        find(folder, "best")


def test_only_plain_data_is_read(tmp_path):
    torch.save(dict(trap=Path("/")), tmp_path / "trap.ckpt")
    with pytest.raises(CheckpointError, match="can't read checkpoint .*trap.ckpt"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "trap.ckpt")


def test_what_could_not_be_read_again_is_not_written_in_good_faith(tmp_path):
    with pytest.raises(CheckpointError, match="can't read checkpoint"):
        AtomicCheckpointIO().save_checkpoint(dict(hyper_parameters=dict(path=Path("/"))), tmp_path / "last.ckpt")


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
