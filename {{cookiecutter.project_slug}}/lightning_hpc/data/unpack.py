"""Unpacks archives once, for many processes, and whole or not at all; nothing that is there is overwritten or removed.

What an archive has brought is noted in the folder, in a file named after the archive. So several archives can share a
folder, with each other and with files of the user's.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..files import write_atomically
from .members import UNREADABLE, note_of, unpack
from .staging import DownloadError, only_process, temporary_folder

Listing = dict[str, list[str]]  # folder, "." for the first → names of the files and links in it

END = 2**20  # bytes at each end of an archive by which it is known


def extract(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a zip, tar (also compressed) or gz file into a folder, unless that has been done.

    Any number of processes may call this at once. All files get the present time: with the times in the archive, a
    scratch folder that is purged by age would lose them the same night. If files of the archive are missing from the
    folder, because such a purge has come, these are unpacked again. Files that are in the folder are never overwritten
    or removed, whoever has put them there.

    Args:
        archive: the file. It is not needed once the folder is complete, and may then be removed.
        folder: where its content goes. Other archives may be unpacked there too, but a new version of one needs a new
            folder.

    Returns:
        The folder's absolute path.

    Raises:
        DownloadError: the archive is damaged, has members that would land outside of the folder, or that are in the
            folder with another content; or the folder has another archive of the same name; or the disk is full.
    """
    archive, folder = Path(archive), Path(folder).absolute()
    try:
        extract_once(archive, folder.resolve())  # it may be a link, to a disk with more room for example
    except DownloadError:
        raise
    except UNREADABLE as error:
        raise DownloadError(f"{archive} can't be unpacked to {folder}: {str(error) or type(error).__name__}") from error
    return folder


def extract_once(archive: Path, folder: Path) -> None:
    """Do what `extract` does, with the errors of the archive and of the disk as they are."""
    if is_unpacked(archive, folder):
        return

    # On the disk where the files will be: beside a folder that is new, inside one that is there.
    workplace = folder / archive.name if folder.is_dir() else folder
    workplace.parent.mkdir(parents=True, exist_ok=True)
    with only_process(workplace, threading.Event()):
        if is_unpacked(archive, folder):  # another process was quicker
            return

        with temporary_folder(workplace) as staging:
            unpacked = staging / "unpacked"
            unpacked.mkdir()
            fingerprint = fingerprint_of(archive)
            unpack(archive, unpacked)
            put_in_place(unpacked, folder, archive, fingerprint)


def is_unpacked(archive: Path, folder: Path) -> bool:
    """True if a folder has all files of an archive.

    Raises:
        DownloadError: it has those of another archive with the same name.
    """
    note = read_note(folder / note_of(archive))
    if note is None:
        return False

    fingerprint, listing = note
    with contextlib.suppress(FileNotFoundError):  # removed, since all is unpacked
        if fingerprint_of(archive) != fingerprint:
            raise DownloadError(
                f"{folder} has the files of another {archive.name}, or of an earlier version: unpack this one to a new "
                f"folder, or remove the old files and {note_of(archive)} there"
            )
    return not any(missing_names(folder, listing).values())


def read_note(file: Path) -> tuple[str, Listing] | None:
    """Fingerprint and listing of an archive that was unpacked; None if there is no such note, or a damaged one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        fingerprint, listing = content["fingerprint"], content["files"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None

    is_listing = isinstance(listing, dict) and all(isinstance(names, list) for names in listing.values())
    return (fingerprint, listing) if is_listing else None


def fingerprint_of(archive: Path) -> str:
    """What tells an archive from another: a hash of its size, beginning and end, where formats have their checksums."""
    with archive.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        digest = hashlib.sha256(f"{size} ".encode())
        for start in (0, max(0, size - END)):
            stream.seek(start)
            digest.update(stream.read(END))
    return digest.hexdigest()


def listing_of(folder: Path) -> Listing:
    """All files and links in a folder, by the folders they are in."""
    listing = {}
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        listing[os.path.relpath(place, folder)] = sorted(files + links)
    return listing


def missing_names(folder: Path, listing: Listing) -> Listing:
    """What of a listing is not in a folder. Folders are listed, and no file is looked at: there may be a million."""
    missing = {}
    for place, names in listing.items():
        there: set[str] = set()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            there.update(os.listdir(folder / place))
        missing[place] = [name for name in names if name not in there]
    return missing


def put_in_place(unpacked: Path, folder: Path, archive: Path, fingerprint: str) -> None:
    """Move what was unpacked to where it belongs, with a note of what it is.

    A folder that is new appears whole. In one that is there the note comes last: after a kill it is done again.

    Raises:
        OSError: the folder has a file of the same name with another content; then nothing is moved.
    """
    listing = listing_of(unpacked)
    text = json.dumps({"archive": archive.name, "fingerprint": fingerprint, "files": listing}) + "\n"
    note = note_of(archive)

    if not folder.is_dir():
        write_atomically(unpacked / note, text)
        try:
            os.rename(unpacked, folder)
            return
        except OSError:  # another archive has made the folder meanwhile
            if not folder.is_dir():
                raise

    missing = missing_names(folder, listing)
    if read_note(folder / note) is None:
        # Files that are there may be anybody's. Those of an interrupted attempt are the same as in the archive.
        check_same(unpacked, folder, listing, missing)
    for place, names in missing.items():
        with opened(folder, place, make=True) as descriptor:
            for name in names:
                os.rename(unpacked / place / name, name, dst_dir_fd=descriptor)
    write_atomically(folder / note, text)


def check_same(unpacked: Path, folder: Path, listing: Listing, missing: Listing) -> None:
    """Raise an OSError if a file that is in both folders is not the same in both."""
    for place, names in listing.items():
        there = set(names) - set(missing[place])
        if not there:
            continue
        with opened(folder, place) as descriptor:
            for name in sorted(there):
                if not is_same(unpacked / place / name, name, descriptor):
                    raise OSError(
                        f"the folder has another {PurePosixPath(place, name)}, and nothing is overwritten: "
                        "choose another folder, or remove that file"
                    )


def is_same(file: Path, name: str, descriptor: int) -> bool:
    """True if a file or link is the same as the one with a name in another folder, of which this is the descriptor."""
    mine, other = file.lstat(), os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    if stat.S_IFMT(mine.st_mode) != stat.S_IFMT(other.st_mode) or mine.st_size != other.st_size:
        return False
    if file.is_symlink():
        return os.readlink(file) == os.readlink(name, dir_fd=descriptor)

    there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
    with file.open("rb") as my_stream, open(there, "rb") as other_stream:
        for _ in range(0, mine.st_size, END):
            if my_stream.read(END) != other_stream.read(END):
                return False
    return True


@contextlib.contextmanager
def opened(folder: Path, place: str, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder in a folder, reached without following a link: somebody could have put one there.

    Args:
        folder: the outer one.
        place: the way from it to the inner one.
        make: make what is missing on the way.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in PurePosixPath(place).parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)
