"""Archives are unpacked once and whole, and none of their members lands outside of the folder."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from package.datasets.shared import DownloadError
from package.datasets.unpack import extract

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
        if path.is_file() and path.name != ".unpacked"
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
    program = (
        f"from package.datasets.unpack import extract; print(extract({str(archive)!r}, {str(tmp_path / 'out')!r}))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(8)]
    assert {process.communicate(timeout=60)[0].decode().strip() for process in processes} == {str(tmp_path / "out")}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(content(tmp_path / "out")) == 300
