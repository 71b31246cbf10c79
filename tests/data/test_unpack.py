"""Archives are unpacked once and whole, and none of their members lands outside of the folder."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from lightning_hpc.data import DownloadError, extract
from lightning_hpc.data.staging import touch

FILES = {"a.txt": b"first", "deep/b.txt": b"second" * 10_000, "deep/er/c.txt": b""}


def make_tar(path, members=FILES, **attributes):
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_000_000
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, members=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1990, 1, 1, 0, 0, 0)), content)
    return path


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".unpacked", ".lock"))
    }


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_all_files_with_the_present_time(tmp_path, name):
    archive = (make_zip if name == "x.zip" else make_tar)(tmp_path / name)
    folder = extract(archive, tmp_path / "out")
    assert content(folder) == FILES
    assert all(time.time() - path.stat().st_mtime < 60 for path in folder.rglob("*") if path.is_file())
    archive.unlink()
    assert extract(archive, folder) == folder  # done already


def test_a_single_compressed_file(tmp_path):
    archive = tmp_path / "numbers.gz"
    archive.write_bytes(gzip.compress(b"1 2 3"))
    assert content(extract(archive, tmp_path / "out")) == {"numbers": b"1 2 3"}


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "deep/../../evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("kind", ["x.tar.gz", "x.zip"])
def test_members_that_would_land_outside(tmp_path, name, kind):
    archive = (make_zip if kind == "x.zip" else make_tar)(tmp_path / kind, FILES | {name: b"evil"})
    with pytest.raises(DownloadError, match="evil.txt.* outside of the folder"):
        extract(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil.txt")) and not (tmp_path / "in" / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_to_the_outside_and_devices(tmp_path, kind):
    archive = make_tar(tmp_path / "x.tar", {"link": b""}, type=kind, linkname="../../secret")
    with pytest.raises(DownloadError, match="can't be unpacked"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def add_link(tar, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


@pytest.mark.parametrize(
    ("links", "file"),
    [
        ({"a/b/up": "../../.."}, None),
        ({"a/b/up": "../x/../../.."}, None),  # a step up after a step down: from wherever x leads to
        ({"dir": "a", "dir/up": "../.."}, None),
        ({"here": "."}, "here/evil.txt"),
        ({"out": "/tmp"}, "out/evil.txt"),
    ],
)
def test_links_by_which_a_member_could_leave(tmp_path, links, file):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, target in links.items():
            add_link(tar, name, target)
        if file is not None:
            tar.addfile(tarfile.TarInfo(file), io.BytesIO())
    with pytest.raises(DownloadError, match="lead outside|below a link|exists"):
        extract(tmp_path / "x.tar", tmp_path / "in" / "out")
    assert not (tmp_path / "in" / "out").exists()


def test_a_path_too_long_to_be_looked_up_leads_nowhere(tmp_path):
    """CVE-2025-4517: links whose path is longer than the system's limit were taken for folders that are missing."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        long, path = "d" * 247, ""
        for letter in "abcdefghijklmnop":
            info = tarfile.TarInfo(os.path.join(path, long))
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
            add_link(tar, os.path.join(path, letter), long)
            path = os.path.join(path, long)
        chain = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/" + "l" * 254
        add_link(tar, chain, "../" * 16)
        add_link(tar, "escape", chain + "/../../precious")
        info = tarfile.TarInfo("escape")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    (tmp_path / "in").mkdir()
    precious = tmp_path / "in" / "precious"
    precious.write_text("mine")
    with pytest.raises(DownloadError, match="can't be unpacked"):
        extract(tmp_path / "x.tar", tmp_path / "in" / "out")
    assert precious.read_text() == "mine" and not (tmp_path / "in" / "out").exists()


def test_links_inside_stay_links(tmp_path):
    with tarfile.open(make_tar(tmp_path / "x.tar"), "a") as tar:
        add_link(tar, "deep/first", "../a.txt")
        add_link(tar, "folder", "deep/er")
        for name, target in {"hard": "a.txt", "hard again": "hard"}.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    folder = extract(tmp_path / "x.tar", tmp_path / "out")
    assert (folder / "deep" / "first").read_bytes() == (folder / "hard again").read_bytes() == b"first"
    assert os.readlink(folder / "folder") == "deep/er"
    (folder / "folder").unlink()
    (folder / "hard").unlink()
    extract(tmp_path / "x.tar", folder)  # what is missing comes back
    assert os.readlink(folder / "folder") == "deep/er" and (folder / "hard").read_bytes() == b"first"


def test_a_later_member_replaces_one_of_the_same_name_and_no_permission_is_taken_over(tmp_path):
    make_tar(tmp_path / "x.tar", {"a": b"old", "tool": b"old"}, mode=0o4777)
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        info = tarfile.TarInfo("a")
        info.size, info.mode = 3, 0o444
        tar.addfile(info, io.BytesIO(b"new"))
    umask = os.umask(0o027)
    try:
        folder = extract(tmp_path / "x.tar", tmp_path / "out")
    finally:
        os.umask(umask)
    assert content(folder) == {"a": b"new", "tool": b"old"}
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("a", "tool")] == [0o640, 0o750]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_member_with_the_name_of_the_note_is_left_out(tmp_path, kind):
    with tarfile.open(make_tar(tmp_path / "x.tar"), "a") as tar:
        for name in (".unpacked", ".x.tar.unpacked", ".other.zip.unpacked"):
            if kind == "link":
                add_link(tar, name, "a.txt")
            else:
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    folder = extract(tmp_path / "x.tar", tmp_path / "out")
    assert content(folder) == FILES
    assert [path.name for path in folder.glob(".*")] == [".x.tar.unpacked"]
    assert json.loads((folder / ".x.tar.unpacked").read_text())["archive"] == "x.tar"


# A folder that others use too


def test_what_it_does_not_own_stays(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "measurements.csv").write_text("1, 2")
    (data / "other").mkdir()
    (data / "other" / "set.bin").write_bytes(b"another data set")
    train, test = make_zip(data / "train.zip", {"train/1": b"1"}), make_tar(data / "test.tar.gz", {"test/1": b"2"})
    before = content(data)
    for _ in range(2):
        for archive in (train, test):
            assert extract(archive, data) == data
        assert content(data) == before | {"train/1": b"1", "test/1": b"2"}
        (data / "train" / "cache.npy").write_bytes(b"computed for hours")  # this was the end of the folder
        before = content(data)
        (data / "test" / "1").unlink()  # a purge
    assert not list(data.glob(".*.part-*"))


def test_files_that_have_been_changed_since_are_kept(tmp_path):
    archive = make_zip(tmp_path / "x.zip")
    folder = extract(archive, tmp_path / "out")
    (folder / "a.txt").write_bytes(b"changed by hand")
    (folder / "deep" / "b.txt").unlink()
    extract(archive, folder)
    assert content(folder) == FILES | {"a.txt": b"changed by hand"}


@pytest.mark.parametrize("text", ["", "3", "[]", '{"files": {}}', '{"fingerprint": "", "files": {".": 3}}'])
def test_a_note_that_can_not_be_read_is_written_anew(tmp_path, text):
    archive = make_zip(tmp_path / "x.zip")
    folder = extract(archive, tmp_path / "out")
    (folder / ".x.zip.unpacked").write_text(text)
    (folder / "a.txt").unlink()
    assert content(extract(archive, folder)) == FILES
    assert json.loads((folder / ".x.zip.unpacked").read_text())["files"]["deep"] == ["b.txt"]


def test_nothing_is_overwritten(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").write_bytes(b"mine, by the same name")
    with pytest.raises(DownloadError, match="another deep/b.txt, and nothing is overwritten"):
        extract(make_zip(tmp_path / "x.zip"), folder)
    assert content(folder) == {"deep/b.txt": b"mine, by the same name"}

    (folder / "deep" / "b.txt").write_bytes(FILES["deep/b.txt"])  # as after a kill half-way
    assert content(extract(tmp_path / "x.zip", folder)) == FILES


def test_another_version_of_an_archive_is_not_taken_for_the_first(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a": b"old"})
    folder = extract(archive, tmp_path / "out")
    make_zip(archive, {"a": b"new"})
    with pytest.raises(DownloadError, match="another x.zip, or of an earlier version: unpack this one to a new folder"):
        extract(archive, folder)
    assert content(folder) == {"a": b"old"} and content(extract(archive, tmp_path / "new")) == {"a": b"new"}


def test_no_file_is_moved_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match="deep"):
        extract(make_zip(tmp_path / "x.zip"), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_folder_itself_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "scratch")
    assert extract(make_zip(tmp_path / "x.zip"), tmp_path / "out") == tmp_path / "out"
    assert content(tmp_path / "scratch") == FILES


def test_zip_files_that_python_can_not_read(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a": b"content"})
    plain = archive.read_bytes()
    local, central = plain.index(b"PK\3\4"), plain.index(b"PK\1\2")
    for offset, value, reason in ((6, 1, "'a' is encrypted"), (8, 9, "Python can't read .*: unpack it by hand")):
        changed = bytearray(plain)
        changed[local + offset] = changed[central + offset + 2] = value  # flags, and the method: Deflate64
        archive.write_bytes(changed)
        with pytest.raises(DownloadError, match=f"can't be unpacked to .*{reason}"):
            extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tar_file_that_is_damaged_between_two_members(tmp_path):
    archive = make_tar(tmp_path / "x.tar")
    whole = archive.read_bytes()
    second = whole.index(b"deep/b.txt")
    for damaged in (whole[:second] + b"?" + whole[second + 1 :], whole[: second + 100]):
        archive.write_bytes(damaged)
        with pytest.raises(DownloadError, match="it is damaged 1,024 bytes from its beginning"):
            extract(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip", "x.gz", "x.txt"])
def test_a_damaged_archive_leaves_nothing(tmp_path, name):
    archive = tmp_path / name
    if name == "x.txt":
        archive.write_bytes(b"no archive")
    elif name == "x.gz":
        archive.write_bytes(gzip.compress(os.urandom(10_000))[:-100])
    else:
        (make_zip if name == "x.zip" else make_tar)(archive, {"random": os.urandom(100_000)})
        damaged = bytearray(archive.read_bytes())
        damaged[50_000] ^= 255
        archive.write_bytes(damaged)
    with pytest.raises(DownloadError):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out.part-*"))


def test_files_that_a_purge_has_taken_come_back(tmp_path):
    archive = make_zip(tmp_path / "x.zip")
    folder = extract(archive, tmp_path / "out")
    (folder / "deep" / "b.txt").unlink()
    assert content(extract(archive, folder)) == FILES


def test_eight_processes_unpack_once(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {f"{n}.txt": b"some text" * 1000 for n in range(300)})
    program = f"from lightning_hpc.data import extract; print(extract({str(archive)!r}, {str(tmp_path / 'out')!r}))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(8)]
    assert {process.communicate(timeout=600)[0].decode().strip() for process in processes} == {str(tmp_path / "out")}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(content(tmp_path / "out")) == 300


def test_files_of_a_folder_in_which_another_process_unpacks_are_kept_young(tmp_path, monkeypatch):
    """What is being unpacked goes to its place between the look at it and at its time."""
    for name in ("a", "moving", "z"):
        (tmp_path / name).write_text("")
    is_file = Path.is_file

    def moves(path):
        found = is_file(path)
        if path.name == "moving":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", moves)
    assert touch(tmp_path) == 2
