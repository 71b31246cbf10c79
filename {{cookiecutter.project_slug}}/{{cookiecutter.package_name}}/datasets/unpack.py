"""Unpacks archives once, for many processes, and whole or not at all."""

import gzip
import lzma
import os
import shutil
import tarfile
import threading
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from .shared import DownloadError, locked, temporary_folder

MARKER = ".unpacked"  # in the folder: how many files were in the archive


def extract(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a zip, tar (also compressed) or gz file into a folder, unless that has been done.

    Any number of processes may call this at once. All files get the present time: with the times in the archive, a
    scratch folder that is purged by age would lose them the same night. If files are missing from the folder, because
    such a purge has come, it is unpacked again.

    Args:
        archive: the file. It is not looked at once the folder is complete, and may then be removed.
        folder: where its content goes. A new version of an archive needs a new folder.

    Returns:
        the folder's absolute path.

    Raises:
        DownloadError: the archive is damaged, has members that would land outside of the folder, or the disk is full.
    """
    archive, folder = Path(archive), Path(folder).absolute()
    if complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, threading.Event()):
        if not complete(folder):
            with temporary_folder(folder) as place:
                new = place / folder.name
                new.mkdir()
                try:
                    unpack(archive, new)
                    (new / MARKER).write_text(f"{files_in(new)}\n", encoding="utf-8")
                except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
                    raise DownloadError(f"{archive} can't be unpacked to {folder}: {error}") from error
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(new, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack into an empty folder, after a look at where each member would land."""
    if tarfile.is_tarfile(archive):
        now = time.time()
        with tarfile.open(archive) as tar:
            check_names(tar.getnames())
            while tar.fileobj.read(2**20):  # tarfile stops before the checksum at the end of a compressed file
                pass
            # `data_filter` refuses links to the outside and devices.
            tar.extractall(folder, filter=lambda member, path: tarfile.data_filter(member, path).replace(mtime=now))
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zip_file:
            check_names(zip_file.namelist())
            zip_file.extractall(folder)
    elif archive.suffix == ".gz":
        with gzip.open(archive) as packed, (folder / archive.stem).open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    else:
        raise DownloadError(f"{archive} is no tar, zip or gz file")


def check_names(names: list[str]) -> None:
    """Refuse an archive that names a place outside of the folder it is unpacked to."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise OSError(f"it has a member {name!r}, which would land outside of the folder")


def complete(folder: Path) -> bool:
    """Whether the folder was unpacked here and still has all its files."""
    try:
        return files_in(folder) == int((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def files_in(folder: Path) -> int:
    return sum(name != MARKER for _, _, names in os.walk(folder) for name in names)
