"""What every place has in common where files of runs can be put: four operations, and two ways to say no.

A place answers in three ways: it is there, it is not there, and "could not look". The last two must never be taken for
each other: who takes a server that is down for an empty one starts a run anew, and writes over what it had.
"""

import contextlib
import fnmatch
import glob
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

# Seconds after which nobody is writing a part any more, if it has not changed; both times are the file system's own.
ABANDONED = 3600.0


class StoreError(Exception):
    """A place could not do what it was asked for; the message is one line: what is wrong, where, and what to do.

    Args:
        message: the line, without any secret.
        permanent: trying again does not help: a key, a right or a quota is missing, or the place is not there.
        retry_after: seconds that the server wants to be left alone; None: it has not said.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class Missing(StoreError):
    """The place has been asked, and has no such file."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(f"{address} has no {name}", permanent=True)


class Store(Protocol):
    """A place for files. A name is relative to it, with slashes: `3f9c2a71/checkpoints/last.ckpt`.

    No operation tries again for longer than some seconds: who calls it knows how long there is time.

    Attributes:
        address: its URL; it holds no secret.
        seconds_between_puts: how long to wait from one `put` to the next, so that the server does not mind.
    """

    address: str
    seconds_between_puts: float

    def put(self, files: Mapping[str, Path]) -> None:
        """Copy finished local files there, in this order; what is there under a name is replaced.

        Each appears whole or not at all; where the place can, all of them or none.

        Args:
            files: name there → file here.

        Raises:
            StoreError: it did not work.
            OSError: a file here can't be read.
        """
        ...

    def get(self, name: str, target: Path) -> None:
        """Copy a file from there; the target appears whole or not at all.

        Raises:
            Missing: it is not there.
            StoreError: it did not work.
            OSError: the target can't be written, because the disk here is full for example.
        """
        ...

    def list(self, folder: str) -> dict[str, int]:
        """Every whole file below a folder: its name → its size in bytes. {} says that there really is none.

        Args:
            folder: relative to the place; "" is all of it.

        Raises:
            StoreError: nobody knows what is there.
        """
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are none of its business.

        Raises:
            StoreError: it did not work.
        """
        ...


def relative(name: str) -> str:
    """The same name, if it stays inside the place. Names also come from files that somebody else can have written.

    Raises:
        StoreError: it is absolute, or leads out.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise StoreError(f"{name!r} is no name of a file in a mirror", permanent=True)
    return "/".join(parts)


def part_of(name: str) -> str:
    """The name under which a file is written before it is whole: beside it, new each time, and known by its end.

    Two machines can write the same file, so the process's id would not do.
    """
    path = PurePosixPath(name)
    return str(path.with_name(f".{path.name}.{secrets.token_hex(4)}.part"))


def is_part(name: str, of: str = "*") -> bool:
    """Whether this is the name of a file that was being written, of a certain one if told."""
    last = PurePosixPath(name).name
    return fnmatch.fnmatchcase(last, f".{of if of == '*' else glob.escape(of)}.{'[0-9a-f]' * 8}.part")


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A file to download into; it gets the target's name once the block has ended without an error."""
    part = target.with_name(part_of(target.name))
    try:
        yield part

        # Without this, a power cut after the rename could leave an empty file under the name.
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def check_size(address: str, name: str, part: Path, size: int) -> None:
    """Hold what has arrived against what the place has said: not every client notices a connection that ends early.

    Raises:
        StoreError: it is shorter or longer.
    """
    arrived = part.stat().st_size
    if arrived != size:
        raise StoreError(f"{address}: of {name} only {arrived:,} of {size:,} bytes have arrived; it is tried again")
