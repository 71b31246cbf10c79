"""Who holds a lock, as its file and the kernel say."""

import contextlib
import fcntl
import getpass
import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOID = 300.0  # seconds without a sign of life, after which nobody holds a lock: network file systems lag by a minute


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or may hold it.

    Attributes:
        owner: see `owner`; {} where the file does not say.
        silent: seconds since the last sign of life.
        certain: True if the kernel says so; False where only the sign of life does.
    """

    owner: dict[str, Any]
    silent: float
    certain: bool

    def __str__(self) -> str:
        if not self.owner:
            return "another process"
        text = f"process {self.owner.get('pid')} on {self.owner.get('host')}"
        if self.owner.get("job"):
            text += f" (job {self.owner['job']})"
        if self.owner.get("user") != user():
            text += f" of {self.owner.get('user')}"
        return f"{text}, last sign of life {max(0, self.silent):.0f} s ago"

    @property
    def has_gone(self) -> bool:
        """True if the owner certainly lives no more, or has been silent for too long."""
        if self.certain:
            return False
        if self.silent > VOID:
            return True
        me = owner()
        same_place = all(self.owner.get(key) == me[key] for key in ("host", "processes"))
        if same_place and not is_alive(self.owner.get("pid")):
            return True

        # SLURM starts a job again only after its last attempt has ended.
        same_job = me["job"] is not None and self.owner.get("job") == me["job"]
        return same_job and self.owner.get("restarts", 0) < me["restarts"]


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock, or may hold it: None if certainly nobody does. Nothing is written and nobody is kept out.

    A lock that the kernel says is free may be held on another machine whose locks it does not know. So an owner who is
    named in the file and has shown life lately counts, but is not certain.

    Args:
        path: the lock file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:  # somebody else's, who lets nobody look
        return Holder({}, time.time() - path.stat().st_mtime, certain=False)

    try:
        # A shared lock, for a moment: it is refused while somebody holds the real one.
        held = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        except OSError:
            pass  # no locks here
        holder = read(descriptor, path, certain=held)
    finally:
        os.close(descriptor)

    if holder is None:
        return Holder({}, 0.0, certain=True) if held else None
    return None if holder.has_gone else holder


def read(descriptor: int, path: Path, certain: bool) -> Holder | None:
    """Who is named in a lock file; None if nobody is."""
    text = os.pread(descriptor, 4096, 0)
    try:
        named = json.loads(text)
    except ValueError:
        return None
    return Holder(named, silence(path, descriptor), certain) if isinstance(named, dict) else None


def silence(path: Path, descriptor: int) -> float:
    """Seconds since a lock file's time, by the clock of its file system: machines' clocks differ."""
    now = time.time()
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
        file.write(b"now")
        now = os.fstat(file.fileno()).st_mtime
    return now - os.fstat(descriptor).st_mtime


def is_alive(pid: Any) -> bool:
    """True if this machine has a process of that number, or might have it."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        return True
    return True


def owner() -> dict[str, Any]:
    """This process as the owner of something: a job and its restart, or a host and a process."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "processes": process_space(),
        "user": user(),
        "uid": os.getuid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def user() -> str:
    """The user's name, or number where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def process_space() -> str:
    """Where process numbers mean the same: a container can have its machine's name and processes of its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
