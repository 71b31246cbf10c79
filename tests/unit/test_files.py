"""Files that appear whole, in folders where somebody else may write too."""

import os

import pytest

from lightning_hpc.files import read_json, write_atomically


@pytest.mark.parametrize("planted", ["link to a file", "link to nothing"])
def test_a_planted_link_is_not_followed(tmp_path, planted):
    """The name of the temporary file can be guessed."""
    precious, target = tmp_path / "precious", tmp_path / "status.json"
    if planted == "link to a file":
        precious.write_text("mine")
    (tmp_path / f".status.json.{os.getpid()}.part").symlink_to(precious)
    target.symlink_to(precious)
    write_atomically(target, "new")
    assert target.read_text() == "new" and not target.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir() if path != precious) == ["status.json"]
    assert precious.exists() == (planted == "link to a file")
    if precious.exists():
        assert precious.read_text() == "mine"


def test_only_a_name_that_must_last_is_brought_to_disk(tmp_path, monkeypatch):
    """The content always is; the folder, of which the name is a part, where it is asked for."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    file = tmp_path / "status.json"
    part = str(tmp_path / f".status.json.{os.getpid()}.part")

    write_atomically(file, "new", lasting=False)
    assert synced == [part]
    write_atomically(file, "newer")
    assert synced == [part, part, str(tmp_path)]


@pytest.mark.parametrize("content", [b"", b'{"step": 1', b"\0" * 8, b"\xff\xfe"])
def test_what_is_no_json_says_nothing(tmp_path, content):
    file = tmp_path / "status.json"
    file.write_bytes(content)
    assert read_json(file) == read_json(tmp_path / "missing.json") == {}
