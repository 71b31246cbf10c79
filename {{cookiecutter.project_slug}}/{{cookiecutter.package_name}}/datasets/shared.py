"""What downloading and unpacking have in common: one process at a time, temporary folders, and files kept young."""

import contextlib
import glob
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

DAY = 86_400.0  # seconds


class DownloadError(RuntimeError):
    """A file can't be had, or is not what it should be; the message has every mirror and its reason."""


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.part-", dir=path.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def locked(path: Path, stop: threading.Event) -> Iterator[None]:
    """Keep other processes from downloading or unpacking to the same path; they wait here.

    Temporary folders that killed processes have left there are removed.
    """
    lock, waiting = FileLock(path.with_name(f".{path.name}.lock")), False
    while True:
        try:
            lock.acquire(timeout=1)
            for left in path.parent.glob(f".{glob.escape(path.name)}.part-*"):
                shutil.rmtree(left, ignore_errors=True)
            break
        except Timeout:
            if not waiting:
                logger.info(f"waiting for another process, which prepares {path}")
            waiting = True
            if stop.is_set():
                raise DownloadError(f"{path.name}: given up") from None
        except (NotImplementedError, OSError):  # no locks on this file system: at worst, it is downloaded twice
            break
    try:
        yield
    finally:
        lock.release()


def touch(path: Path, days: float = 0) -> int:
    """Set the times of a file, or of all files in a folder, to now: scratch folders of clusters are purged by age.

    Args:
        path: the file or folder.
        days: only of files that are older than so many days.

    Returns:
        how many were touched; files of somebody else, which can't be, are left out.
    """
    limit, count = time.time() - days * DAY, 0
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and min(file.stat().st_mtime, file.stat().st_atime) <= limit:
            with contextlib.suppress(OSError):
                os.utime(file)
                count += 1
    return count
