"""sftp://USER@HOST/FOLDER: a folder of a host that one can log in to.

The connection is OpenSSH's own, so ~/.ssh/config, agents, jump hosts and the check of host keys are those of the user;
paramiko only speaks SFTP over it. (paramiko's own connections know little of that, and fsspec's accept any host key.)
Nothing is asked: `ssh HOST` has to work without a password, as from a job.
"""

import contextlib
import errno
import itertools
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..processes import SSH_OPTIONS
from ..settings.errors import SettingsError
from .ssh import Connection
from .store import ABANDONED, Missing, StoreError, check_size, is_part, part_of, relative, whole

OPTIONS = (*SSH_OPTIONS, "-o", "BatchMode=yes")

# Signals that ask a run to stop go to the whole job. ssh has to outlive them, so that the last upload can end.
DEAF = "trap '' HUP INT TERM USR1 USR2; exec ssh \"$@\""

# What ssh says where trying again is in vain.
REFUSED = "Permission denied|Host key verification failed|HOST IDENTIFICATION HAS CHANGED|Could not resolve hostname"

# Bytes of one question for a part of a file, and how many are asked for before an answer is waited for.
REQUEST = 32768
WINDOW = 128 * REQUEST


class Sftp:
    """A folder of a host as a place for files. One connection serves all calls; it is opened again when it has ended.

    Args:
        address: sftp://USER@HOST:PORT/FOLDER, or with /~/ before a folder below the home folder. HOST may be a name
            of ~/.ssh/config. The folder has to be there.

    Raises:
        SettingsError: the address is none, or paramiko is not installed.
    """

    seconds_between_puts = 0.0

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"sftp://((?:[\w.-]+@)?[\w.-]+)(?::(\d+))?/(.+)", address)
        if not found or found[1].startswith("-"):
            raise SettingsError(f"{address}: an sftp address is sftp://USER@HOST/FOLDER, or /~/FOLDER for one at home")
        try:
            import paramiko  # noqa: F401
        except ImportError:
            raise SettingsError('a mirror at sftp:// needs paramiko: pip install -e ".[remote]"') from None

        self.address = address
        self.host, port, path = found.groups()
        self.port = ["-p", port] if port else []
        self.root = path.removeprefix("~/") if path.startswith("~/") else f"/{path}"
        self.lock = threading.RLock()
        self.connection: Connection | None = None

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`; file by file."""
        for name, source in files.items():
            path = self._path(name)
            with source.open("rb") as file:
                self._ask(name, lambda client, path=path, file=file: _put(client, path, file))

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        path = self._path(name)
        with whole(target) as part:
            size = self._ask(name, lambda client: _get(client, path, part))
            check_size(self.address, name, part, size)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`; parts of files are not shown."""
        start = self._path(folder) if folder else self.root
        found = self._ask(folder, lambda client: dict(_below(client, start)))
        return {path.removeprefix(f"{self.root}/"): size for path, size in found.items()}

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`, with what is left of uploads of these files; a folder that is empty then goes, too."""
        for name in names:
            path = self._path(name)
            self._ask(name, lambda client, path=path: _delete(client, path, self.root))

    def _path(self, name: str) -> str:
        return f"{self.root}/{relative(name)}"

    def _ask(self, name: str, act: Callable[[Any], Any]) -> Any:
        """Do something with the client, on a new connection if there is none or the last one has ended.

        Raises:
            Missing, StoreError: as `Store` says.
            OSError: of the disk here.
        """
        from paramiko import SSHException
        from paramiko.sftp import SFTPError

        with self.lock:
            for may_be_old in (self.connection is not None, False):
                try:
                    if self.connection is None:
                        self.connection = Connection(self._command())
                        self.connection.greet()
                    self._check_there(self.connection.client)
                    return act(self.connection.client)
                except (EOFError, SSHException, SFTPError):
                    said = self._close()
                    if not may_be_old:
                        raise self._lost(said) from None
                except FileNotFoundError:
                    raise Missing(self.address, name) from None
                except OSError as error:
                    # What the host says has no errno, or this one; the rest is of the disk here.
                    if error.errno in (None, errno.EACCES) and not error.filename:
                        raise self._explain(error) from None
                    self._close()  # in the middle of a file
                    raise
        raise AssertionError("the second time is the last")

    def _close(self) -> str:
        """End the connection; returns the last that was said."""
        connection, self.connection = self.connection, None
        return connection.close()

    def _command(self) -> tuple[str, ...]:
        return ("sh", "-c", DEAF, "sh", *OPTIONS, *self.port, "-s", "--", self.host, "sftp")

    def _check_there(self, client: Any) -> None:
        """A folder that is not there is no empty one: its disk may not be mounted.

        Raises:
            StoreError: it is not there.
        """
        try:
            client.stat(self.root)
        except FileNotFoundError:
            raise StoreError(
                f"{self.address}: there is no such folder there. To make it: ssh {self.host} mkdir -p {self.root}",
                permanent=True,
            ) from None

    def _lost(self, said: str) -> StoreError:
        """What to do about a connection that has ended, or never began.

        Args:
            said: the last line of ssh's.
        """
        advice = f"`ssh {self.host}` has to work without being asked for anything"
        return StoreError(f"{self.address}: no connection ({said}); {advice}", permanent=bool(re.search(REFUSED, said)))

    def _explain(self, error: OSError) -> StoreError:
        """What the host's refusal means."""
        if error.errno == errno.EACCES:
            return StoreError(f"{self.address}: permission denied there; look whose folder it is", permanent=True)
        # SFTP has one word, "Failure", for nearly all that can go wrong with a disk.
        return StoreError(
            f"{self.address}: the host could not do it ({error}); its disk, or your quota there, may be full"
        )


def _put(client: Any, path: str, source: Any) -> None:
    """Write a part beside the file, then give it the name: what is there before and after is whole."""
    source.seek(0)  # it may be the second time
    part = part_of(path)
    _make_folders(client, str(PurePosixPath(path).parent))
    try:
        client.putfo(source, part)  # asks for its size afterwards
        client.posix_rename(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            client.remove(part)
        raise

    written = client.stat(path).st_mtime
    for name, attributes in _parts(client, path):
        if attributes.st_mtime < written - ABANDONED:
            with contextlib.suppress(FileNotFoundError):
                client.remove(name)


def _get(client: Any, path: str, part: Path) -> int:
    """Fetch a file; returns the size that it has there."""
    there = client.stat(path)
    if stat.S_ISDIR(there.st_mode):
        raise FileNotFoundError(path)
    with client.open(path, "rb") as source, part.open("xb") as file:
        for start in range(0, there.st_size, WINDOW):
            ends = [*range(start, min(start + WINDOW, there.st_size), REQUEST), min(start + WINDOW, there.st_size)]
            for block in source.readv([(begin, end - begin) for begin, end in itertools.pairwise(ends)]):
                file.write(block)
    return there.st_size


def _below(client: Any, folder: str) -> Iterator[tuple[str, int]]:
    """Path and size of every whole file below a folder."""
    try:
        entries = client.listdir_attr(folder)
    except FileNotFoundError:
        return  # there is none, or it has just gone
    for entry in entries:
        path = f"{folder}/{entry.filename}"
        if stat.S_ISDIR(entry.st_mode):
            yield from _below(client, path)
        elif not is_part(path):
            yield path, entry.st_size


def _delete(client: Any, path: str, root: str) -> None:
    """Remove a file, its parts, and folders that are empty then."""
    for name in (path, *(name for name, _ in _parts(client, path))):
        with contextlib.suppress(FileNotFoundError):
            client.remove(name)
    folder = str(PurePosixPath(path).parent)
    with contextlib.suppress(OSError):  # it is not empty, or not there
        while folder != root:
            client.rmdir(folder)
            folder = str(PurePosixPath(folder).parent)


def _parts(client: Any, path: str) -> list[tuple[str, Any]]:
    """What uploads of a file have left beside it."""
    folder, last = str(PurePosixPath(path).parent), PurePosixPath(path).name
    try:
        entries = client.listdir_attr(folder)
    except FileNotFoundError:
        return []
    return [(f"{folder}/{entry.filename}", entry) for entry in entries if is_part(entry.filename, of=last)]


def _make_folders(client: Any, folder: str) -> None:
    """Make a folder, and those above it."""
    try:
        client.stat(folder)
    except FileNotFoundError:
        _make_folders(client, str(PurePosixPath(folder).parent))
        try:
            client.mkdir(folder)
        except OSError:
            client.stat(folder)  # somebody else was faster
