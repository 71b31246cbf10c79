"""A place to prepare a file or folder in, before it gets its name: for one process at a time; and files kept young."""

import contextlib
import glob
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..files import write_atomically
from ..locks import Locked, locked

logger = logging.getLogger(__name__)

DAY = 86_400.0  # seconds


class DownloadError(RuntimeError):
    """A file can't be had, or is not what it should be; the message has every mirror and its reason."""


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system, so that what is in it can be renamed in one step."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.part-", dir=path.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def only_process(path: Path, stop: threading.Event) -> Iterator[None]:
    """Keep other processes from downloading or unpacking to the same path; they wait here.

    Where no lock file can be written nobody is kept out: at worst, the file is downloaded twice.

    Args:
        path: the file or folder that is prepared.
        stop: ends the waiting.

    Raises:
        DownloadError: `stop` was set while another process held the lock.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as held:
        waiting = False
        while True:
            try:
                has_locks = held.enter_context(locked(lock, timeout=1))
                break
            except Locked:
                if not waiting:
                    logger.info(f"waiting for another process, which prepares {path}")
                waiting = True
            if stop.is_set():
                raise DownloadError(f"{path.name}: given up")

        # Nobody else is at work, so these folders were left by processes that have been killed.
        if has_locks:
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.part-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


class FailureNote:
    """Tells the processes that wait for a download that it has failed, so that they need not try in turn.

    Only a note that was not there when the waiting began is news. Times would not do: clocks of machines differ, and a
    note from the future would block the download for ever.

    Args:
        path: the file that is downloaded.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f".{path.name}.failed")
        self.at_first = self.identity()

    def identity(self) -> tuple[int, int] | None:
        """What tells one note from the next; None if there is none. A link is none: we leave no links."""
        try:
            status = os.lstat(self.file)
        except FileNotFoundError:
            return None
        return (status.st_ino, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def read(self) -> str | None:
        """Why the download has failed while this process has waited for it; None if it has not. Needs the lock."""
        if self.identity() in (None, self.at_first):
            return None
        try:
            with open(os.open(self.file, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def write(self, reason: str) -> None:
        """Leave a note; the caller holds the lock, and removes it soon."""
        with contextlib.suppress(OSError):  # the disk may be full
            write_atomically(self.file, reason)

    def remove(self, after: float = 0) -> None:
        """Remove the note, after so many seconds without the lock, in which those who wait can read it."""
        time.sleep(after)
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)


def touch(path: Path, days: float = 0) -> int:
    """Set the times of a file, or of all files in a folder, to now: scratch folders of clusters are purged by age.

    Args:
        path: the file or folder.
        days: only of files that are older than so many days.

    Returns:
        How many were touched; files of somebody else, which can't be, are left out.
    """
    limit, count = time.time() - days * DAY, 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone: another process may be unpacking there
            if file.is_file() and min(file.stat().st_mtime, file.stat().st_atime) <= limit:
                os.utime(file)
                count += 1
    return count
