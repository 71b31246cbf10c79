"""The run folder and its status.json: what every launcher, report and restart reads. The folder is the truth.

runs/EXPERIMENT/NNN-SHORTNAME-HASH8/
    config.yaml   resolved settings    overlay.yaml  what this run changes    status.json  state, reason, attempt, …
    metrics.csv   checkpoints/         cka/          logs/                    the trackers' own files
"""

import contextlib
import glob
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .settings import SettingsError

# How a run can end, and the exit code that says so. 75 (EX_TEMPFAIL of sysexits.h) and 76 ask to be started again.
EXIT_CODES = {"done": 0, "failed": 1, "preempted": 75, "time limit": 76, "interrupted": 130}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a kill at any moment, finds the old text or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def now() -> str:
    """The local time with its UTC offset, to the second: 2026-02-03T04:05:06+00:00."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def restarts() -> int:
    """How often this job has been put back into the queue by itself: 0 for a job that somebody has submitted."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("RESUBMITTED") or 0)


class RunFolder:
    """A run's folder. Only rank 0 writes; every other process, and every other program, reads.

    Args:
        path: the folder; it is made by `start`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.status_file = self.path / "status.json"
        self.started = False  # an attempt, by this object

    def status(self) -> dict[str, Any]:
        """What status.json says; {} for a run that has never been started.

        Raises:
            OSError, ValueError: the file is there and can't be read, which is not the same as no run.
        """
        try:
            return json.loads(self.status_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def update(self, **fields: Any) -> None:
        """Change fields of status.json; `updated` is set to now."""
        write_atomically(self.status_file, json.dumps({**self.status(), **fields, "updated": now()}, indent=2) + "\n")

    def start(self, **fields: Any) -> int:
        """Begin an attempt; returns its number, 1 for the first.

        Args:
            fields: what else to note: name, identity, command, git commit.
        """
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        before = self.status()
        attempt = before.get("attempt", 0) + 1
        self.update(
            **{"state": "running", "reason": None, "exit_code": None, "attempt": attempt, **fields},
            host=socket.gethostname(),
            pid=os.getpid(),
            slurm_job=os.environ.get("SLURM_JOB_ID"),
            restarts=restarts(),
            attempt_step=before.get("step", 0),
            started=before.get("started") or now(),
            attempt_started=now(),
            seconds=before.get("seconds", 0.0),
        )
        self._seconds_before, self._clock = before.get("seconds", 0.0), time.monotonic()
        self.started = True
        return attempt

    def stuck(self) -> str | None:
        """Why a run must not be restarted once more: its last attempt, itself a restart, has saved nothing new."""
        before = self.status()
        step = before.get("step", 0)
        if restarts() < 2 or before.get("restarts") != restarts() - 1 or step > before.get("attempt_step", 0):
            return None
        return f"no progress between two restarts: still at step {step}. A longer time limit may help, or more memory"

    def end(self, state: str, reason: str | None = None, **fields: Any) -> int:
        """Note how the attempt ended; returns the exit code for that state (see EXIT_CODES)."""
        seconds = round(self._seconds_before + time.monotonic() - self._clock, 1)
        self.update(state=state, reason=reason, exit_code=EXIT_CODES[state], seconds=seconds, **fields)
        return EXIT_CODES[state]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the folder while this one runs in it; what is left empty is removed.

        Raises:
            SettingsError: another process holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock_file = self.path / ".lock"
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            status = self.status()
            raise SettingsError(
                f"{self.path} is in use: process {status.get('pid')} on {status.get('host')} is running it. "
                "Wait for it, or give this run another --name or --trial"
            ) from None
        except (NotImplementedError, OSError):  # a file system without locks: nothing to check with
            lock = None
        try:
            yield
        finally:
            if list(self.path.iterdir()) == [lock_file]:
                lock_file.unlink()
                self.path.rmdir()
                with contextlib.suppress(OSError):  # other runs are in it
                    self.path.parent.rmdir()
            if lock is not None:
                lock.release()

    def move_aside(self) -> Path | None:
        """Move earlier results to EXPERIMENT/.old/FOLDER-K, so that the run can start afresh; nothing is deleted.

        Returns:
            where they are now; None if there were none.
        """
        if not self.status_file.exists():
            return None
        old = self.path.parent / ".old"
        number = 1 + sum(1 for _ in old.glob(f"{glob.escape(self.path.name)}-*"))
        target = old / f"{self.path.name}-{number}"
        target.mkdir(parents=True)
        # The folder itself stays, with its lock; status.json goes last, so that a kill in between is noticed.
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry == self.status_file):
            if entry.name != ".lock":
                entry.rename(target / entry.name)
        return target
