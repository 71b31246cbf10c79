"""Taking a lock, and holding it."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .holder import Holder, owner, read, silence

BEAT = 60.0  # seconds between two signs of life

POLL = 0.1  # seconds between two tries

# How a file system says that it has no locks.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class Locked(RuntimeError):
    """Another process holds the lock.

    Args:
        path: the lock.
        holder: who holds it.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder


@contextlib.contextmanager
def locked(
    path: Path, timeout: float = 0, until_certain: bool = False, stop: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock, so that no other process does at the same time, on this or another machine.

    Args:
        path: the lock file; its folder exists.
        timeout: seconds to wait for a process that holds it.
        until_certain: wait longer where the file system has no locks, until the holder shows life or the lock is void.
        stop: ends the waiting when it says True.

    Yields:
        True; False where no file can be written, so that nobody can be kept out.

    Raises:
        Locked: another process holds it, and has held it for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    first_life: float | None = None
    while True:
        try:
            lock = Lock.take(path)
            break
        except Locked as error:
            holder = error.holder
        except OSError:
            yield False
            return

        # A holder that shows life while we wait is alive; one that does not may become void.
        shown = time.monotonic() - holder.silent
        first_life = shown if first_life is None else first_life
        undecided = until_certain and not holder.certain and shown - first_life < BEAT / 10
        if stop() or (time.monotonic() >= deadline and not undecided):
            raise Locked(path, holder)
        time.sleep(POLL)

    try:
        yield True
    finally:
        lock.release()


class Lock:
    """A lock that this process holds, and its signs of life. Made by `take`.

    Args:
        path: the lock file.
        descriptor: it, open.
        kernel: True if the file system has locks.
    """

    def __init__(self, path: Path, descriptor: int, kernel: bool) -> None:
        self.path, self.descriptor, self.kernel = path, descriptor, kernel
        text = json.dumps({**owner(), "kernel": kernel}).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        except OSError:  # the disk is full; where the kernel knows the owner, the text may be missing
            if not kernel:
                path.unlink()
                os.close(descriptor)
                raise

        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="lock", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, path: Path) -> "Lock":
        """Take a lock that is free.

        Raises:
            Locked: it is not.
            OSError: the file can't be written.
        """
        while True:
            if not has_locks(path):
                return cls(path, create(path), kernel=False)

            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

                # Another machine may see this file system without locks.
                holder = read(descriptor, path, certain=False)
                if holder and holder.owner.get("kernel") is False and not holder.has_gone:
                    raise Locked(path, holder)

                # The one before us may have removed the file after we had opened it.
                if is_still(path, descriptor):
                    return cls(path, descriptor, kernel=True)
            except BlockingIOError:
                holder = read(descriptor, path, certain=True)
                os.close(descriptor)
                raise Locked(path, holder or Holder({}, 0.0, certain=True)) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _show_life(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.descriptor)

    def release(self) -> None:
        """Let others have it."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self.kernel:
                os.ftruncate(self.descriptor, 0)
            elif is_still(self.path, self.descriptor):  # else it was void, and is another's by now
                self.path.unlink()
        os.close(self.descriptor)


def create(path: Path) -> int:
    """Create the file that is a lock by itself, where the file system has no others; returns it, open.

    Raises:
        Locked: there is one, of a process that may be alive.
        OSError: it can't be written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return create_new(path)
    try:
        holder = read(descriptor, path, certain=False) or Holder({}, silence(path, descriptor), certain=False)
        if not holder.has_gone:
            raise Locked(path, holder)

        # It is void. Another process may see that too, and be faster: what is moved away must be what was looked at.
        aside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.void")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            if not is_still(aside, descriptor):
                os.rename(aside, path)
                raise Locked(path, Holder({}, 0.0, certain=False))
            aside.unlink()
    finally:
        os.close(descriptor)
    return create_new(path)


def create_new(path: Path) -> int:
    """Create a lock file that nobody else has; returns it, open."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    except FileExistsError:  # in this moment
        raise Locked(path, Holder({}, 0.0, certain=False)) from None


def has_locks(path: Path) -> bool:
    """True if the file system on which a lock is to be has locks of its own.

    Raises:
        OSError: no file can be written there.
    """
    with tempfile.TemporaryFile(dir=path.parent) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
    return True


def is_still(path: Path, descriptor: int) -> bool:
    """True if a path is still that of an open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
