"""Writes what is in an archive into an empty folder, and lets nothing of it out of there.

The folder is new and belongs to this process, so only the archive itself can lead outside: by a member's name, or by a
link. Each name is checked before anything is written under it. Symbolic links are made last, after every file, so that
no file is written through one; and each leads, from the real folder that it is in, only up to the folder that is
unpacked to, and down again. That holds for any path through any number of them.
"""

import gzip
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

# What the standard library raises for archives that are damaged, or made by somebody who wants it to fail.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)

BLOCK = 2**20  # bytes that are copied at once

Parts = tuple[str, ...]  # a path below the folder, name by name


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into an empty folder that nobody else writes to.

    All files get the present time, and no owner or permission of the archive's but to be executed.

    Args:
        archive: zip, tar, also compressed, or a single file with gzip.
        folder: exists, and is empty.

    Raises:
        OSError or another of UNREADABLE: it is no archive, is damaged, or has a member that would land outside.
    """
    members = Members(folder)
    if tarfile.is_tarfile(archive):
        read_tar(archive, members)
    elif zipfile.is_zipfile(archive):
        read_zip(archive, members)
    elif archive.suffix == ".gz":
        with gzip.open(archive) as stream:
            members.add_file(archive.stem, stream)
    else:
        raise OSError("it is no tar, zip or gz file")
    members.make_links()


def note_of(archive: Path) -> str:
    """The name of the file that says, in the folder, what an archive has brought: see unpack.py."""
    return f".{archive.name}.unpacked"


def is_note(parts: Parts) -> bool:
    """True for a name that `note_of` could give: an archive of an unpacked folder has such members."""
    return len(parts) == 1 and parts[0].startswith(".") and parts[0].endswith(".unpacked")


class Members:
    """The members that an archive brings, in the order in which they come; a later one replaces one of the same name.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: set[Parts] = set()
        self.links: dict[Parts, str] = {}  # to be made when all files are there

    def add_folder(self, name: str) -> None:
        self.folder.joinpath(*read_name(name)).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, stream: IO[bytes], executable: bool = False) -> None:
        parts = read_name(name)
        if is_note(parts):
            return  # a note is about a folder on one machine

        file = self.make_room(parts)
        mode = 0o777 if executable else 0o666  # less what the user's umask takes away
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as output:
            shutil.copyfileobj(stream, output, BLOCK)
        self.files.add(parts)

    def add_hard_link(self, name: str, target: str) -> None:
        """Another name of a file that has come before."""
        parts, target_parts = read_name(name), read_name(target)
        if parts == target_parts or is_note(parts):
            return
        if target_parts not in self.files:
            raise OSError(f"its member {name!r} is a link to {target!r}, which is no file of the archive before it")

        file, original = self.make_room(parts), self.folder.joinpath(*target_parts)
        try:
            os.link(original, file)
        except OSError:  # no hard links here
            shutil.copyfile(original, file)
        self.files.add(parts)

    def add_link(self, name: str, target: str) -> None:
        """A symbolic link; it may lead to nothing, but not outside."""
        parts = read_name(name)
        if is_note(parts):
            return
        check_target(name, parts, target)
        self.make_room(parts)
        self.links[parts] = target

    def make_room(self, parts: Parts) -> Path:
        """Where a member goes: its folder is made, and an earlier member of the same name is removed."""
        if not parts:
            raise OSError("it has a member without a name that is no folder")

        file = self.folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        if parts in self.files:
            file.unlink()
            self.files.remove(parts)
        self.links.pop(parts, None)
        return file

    def make_links(self) -> None:
        for parts, target in self.links.items():
            for length in range(1, len(parts)):
                if parts[:length] in self.links:
                    raise OSError(f"its member {'/'.join(parts)!r} is below a link")
            os.symlink(target, self.folder.joinpath(*parts))


def read_name(name: str) -> Parts:
    """The names of the folders on the way to a member, and its own.

    Raises:
        OSError: it would land outside of the folder.
    """
    for spelling in (name, name.replace("\\", "/")):  # as other systems would read it, too
        path = PurePosixPath(spelling)
        if path.is_absolute() or ".." in path.parts:
            raise OSError(f"it has a member {name!r}, which would land outside of the folder")
    return PurePosixPath(name).parts


def check_target(name: str, parts: Parts, target: str) -> None:
    """Raise an OSError for a symbolic link that could lead outside of the folder: more steps up than it has come down.

    Steps up are only allowed at the beginning. Later ones would start from wherever another link has led to.
    """
    steps = PurePosixPath(target).parts
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1

    if not target or target.startswith("/") or up > len(parts) - 1 or ".." in steps[up:]:
        raise OSError(f"its member {name!r} is a link to {target!r}, which could lead outside of the folder")


def read_tar(archive: Path, members: Members) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdir():
                members.add_folder(member.name)
            elif member.issym():
                members.add_link(member.name, member.linkname)
            elif member.islnk():
                members.add_hard_link(member.name, member.linkname)
            elif member.isreg():
                with tar.extractfile(member) as stream:
                    members.add_file(member.name, stream, executable=bool(member.mode & 0o100))
            else:
                raise OSError(f"its member {member.name!r} is no file, folder or link")
        check_end(tar)


def check_end(tar: tarfile.TarFile) -> None:
    """Raise an error for a tar file that is damaged where tarfile does not look.

    tarfile takes a damaged header for the end, and stops before the checksum at the end of a compressed file.
    """
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise OSError(f"it is damaged {tar.offset:,} bytes from its beginning")
    while tar.fileobj.read(BLOCK):
        pass


def read_zip(archive: Path, members: Members) -> None:
    with zipfile.ZipFile(archive) as zip_file:
        for member in zip_file.infolist():
            if member.is_dir():
                members.add_folder(member.filename)
                continue

            if member.flag_bits & 1:
                raise OSError(f"its member {member.filename!r} is encrypted: unpack it by hand and pack it without")
            try:
                stream = zip_file.open(member)
            except NotImplementedError as error:
                raise OSError(
                    f"its member {member.filename!r} is packed in a way that Python can't read ({error}): "
                    "unpack it by hand, with `7z x` for example, and pack it again"
                ) from None
            with stream:
                members.add_file(member.filename, stream)
