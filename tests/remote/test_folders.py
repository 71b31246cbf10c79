"""file:///…: what only a folder can do wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import FolderPlace, operations

from lightning_hpc.remote import StoreError, open_store
from lightning_hpc.settings.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path)


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path, file):
    """The disk may not be mounted: a run must not begin anew for that, nor fill the disk below the mount."""
    store = open_store(f"file://{tmp_path}/nowhere")
    for act in operations(store, file, tmp_path / "target"):
        with pytest.raises(StoreError, match="Is the disk mounted.*mkdir -p") as caught:
            act()
        assert caught.value.permanent
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_keeps_what_was_there(small_disk, tmp_path, file):
    store = open_store(f"file://{small_disk}")
    store.put({"run/latest.json": file})
    file.write_bytes(bytes(2_000_000))

    with pytest.raises(StoreError, match="no space or quota") as caught:
        store.put({"run/latest.json": file})
    assert caught.value.permanent
    assert store.list("") == {"run/latest.json": 7}
    assert os.listdir(small_disk / "run") == ["latest.json"]


def test_a_full_disk_here_is_an_error_of_the_disk_here(small_disk, folder, tmp_path, file):
    file.write_bytes(bytes(2_000_000))
    folder.open().put({"run/step.ckpt": file})
    with pytest.raises(OSError, match="No space left"):
        folder.open().get("run/step.ckpt", small_disk / "step.ckpt")
    assert not os.listdir(small_disk)


def test_a_part_that_a_killed_upload_has_left_is_not_seen_and_goes_when_it_is_old(folder, file):
    store = folder.open()
    store.put({"run/step.ckpt": file})
    old, new, other = (
        folder.folder / "run" / f".{name}.part" for name in ("step.ckpt.0a1b2c3d", "step.ckpt.0a1b2c3e", "x")
    )
    for part in (old, new, other):
        part.write_bytes(b"con")
    os.utime(old, (time.time() - 7200,) * 2)

    assert set(store.list("")) == {"run/step.ckpt", "run/.x.part"}
    store.put({"run/step.ckpt": file})
    assert not old.exists() and new.exists() and other.exists()

    store.delete(["run/step.ckpt"])
    assert not new.exists() and other.exists()


def test_a_kill_while_a_file_is_written_leaves_the_one_before(folder, file, tmp_path):
    store = folder.open()
    store.put({"run/step.ckpt": file})
    program = (
        "import os, shutil, sys; from pathlib import Path; from lightning_hpc.remote import open_store\n"
        "real = shutil.copyfileobj\n"
        "def half(source, target): target.write(source.read(3)); target.flush(); os.kill(os.getpid(), 9)\n"
        "shutil.copyfileobj = half\n"
        "open_store(sys.argv[1]).put({'run/step.ckpt': Path(sys.argv[2])})"
    )
    file.write_bytes(b"other content")
    assert subprocess.run([sys.executable, "-c", program, folder.url, file]).returncode == -9

    assert store.list("") == {"run/step.ckpt": 7}
    store.get("run/step.ckpt", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    assert len(os.listdir(folder.folder / "run")) == 2  # and the part


def test_no_folder_is_left_empty(folder, file):
    store = folder.open()
    store.put({"run/checkpoints/a": file, "run/b": file})
    store.delete(["run/checkpoints/a"])
    assert os.listdir(folder.folder / "run") == ["b"]
    store.delete(["run/b"])
    assert folder.folder.is_dir() and not os.listdir(folder.folder)


@pytest.mark.parametrize(
    "url, words",
    [
        ("", "no mirror can be at ''"),
        ("/scratch/mirror", "no mirror can be at '/scratch/mirror'"),
        ("file://", "no mirror can be at"),
        ("fiel:///scratch/mirror", "did you mean file"),
        ("file://scratch/mirror", "absolute"),
        ("file://~/mirror", "absolute"),
    ],
)
def test_a_url_that_names_no_place_says_what_would(url, words):
    with pytest.raises(SettingsError, match=words) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["memory://me:hunter2@place/x", "memory://place/x?token=hunter2"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(SettingsError, match="must hold no password") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
