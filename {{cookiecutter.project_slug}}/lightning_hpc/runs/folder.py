"""The run folder and its status.json: what every launcher, report and restart reads. The folder is the truth.

runs/EXPERIMENT/NNN-SHORTNAME-HASH8/
    config.yaml   resolved settings    overlay.yaml  what this run changes    status.json  state, reason, attempt, …
    metrics.csv   checkpoints/         cka/          logs/                    the trackers' own files
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import place_aside, remove_parts, write_json
from ..locks import Holder, Locked, holder_of, locked
from ..settings.errors import SettingsError
from .owner import TakenOver, first_job, owner, restarts
from .status import understood

# How a run can end, and the exit code that says so. 75 (EX_TEMPFAIL of sysexits.h) and 76 ask to be started again.
EXIT_CODES = {"done": 0, "failed": 1, "preempted": 75, "time limit": 76, "interrupted": 130}

RESERVE = 2**16  # bytes that a running run keeps for its status.json, which is far smaller
_writing = threading.RLock()  # threads that save and upload write status.json too; so may a signal's handler


def now() -> str:
    """The local time with its UTC offset: 2026-02-03T04:05:06.789+00:00. A start and the next differ in it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class RunFolder:
    """A run's folder. Only rank 0 writes; every other process, and every other program, reads.

    Args:
        path: the folder; it is made by `start`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.status_file = self.path / "status.json"
        self.lock_file = self.path / ".lock"
        self.reserve = self.path / ".reserve"
        self.started = False  # an attempt, by this object
        self.taken: str | None = None  # why this process must end: another machine has the run
        self._lock: tuple[int, int] | None = None  # which file it is, while this object holds it

    def status(self) -> dict[str, Any]:
        """What status.json says; {} for a run that has never been started.

        A file that is cut off or overwritten has the state `unknown`, with what the checkpoints tell of the run.

        Raises:
            OSError: the file is there and can't be read, which is not the same as no run.
        """
        try:
            text = self.status_file.read_bytes()
        except FileNotFoundError:
            return {}

        return understood(text, self.path)

    def update(self, **fields: Any) -> None:
        """Change fields of status.json; `updated` is set to now. On a full disk the reserve makes room for it.

        A change of the state is known after a power cut, too; of another field, the value before may be there again.

        Raises:
            TakenOver: this object has begun an attempt, and another one has begun since.
        """
        with _writing:
            status = self.status()
            if self.started:
                self._check_owner(status)

            content = {**status, **fields, "updated": now()}
            try:
                write_json(self.status_file, content, lasting="state" in fields)
            except OSError:
                if not self.reserve.exists():
                    raise
                self.reserve.unlink()
                write_json(self.status_file, content, lasting="state" in fields)

            if self.started:
                self._keep_reserve()

    def _check_owner(self, status: Mapping[str, Any]) -> None:
        """Only its owner writes a run's status: a node that was given up may come back with its processes."""
        theirs = {key: status[key] for key in self._owner if key in status}
        if theirs and theirs != self._owner:
            raise TakenOver(
                f"{self.path} is no longer this process's: process {status.get('pid')} on {status.get('host')} "
                f"(job {status.get('slurm_job')}) has begun another attempt of the run"
            )

    def _keep_reserve(self) -> None:
        """Take the space that status.json may need once the disk is full."""
        if self.reserve.exists():
            return
        with contextlib.suppress(OSError):
            self.reserve.write_bytes(os.urandom(RESERVE))  # zeros could take no space at all

    def start(self, **fields: Any) -> int:
        """Begin an attempt, in a folder that this process has locked.

        Args:
            fields: what else to note: name, identity, command, git commit.

        Returns:
            the attempt's number, 1 for the first.

        Raises:
            SettingsError: another run has begun in it, whose identity only begins with the same digits.
        """
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        for name in ("status.json", "config.yaml", "overlay.yaml"):  # an attempt may have been killed writing them
            remove_parts(self.path / name)

        before = self.status()  # its time is added up
        identities = {before.get("identity"), fields.get("identity")} - {None}
        if len(identities) > 1:
            raise SettingsError(f"{self.path} has become the folder of another run: start this one again")
        attempt = before.get("attempt", 0) + 1
        self._seconds_before = before.get("seconds", 0.0)
        self._clock, begun = time.monotonic(), now()

        self._owner, self.started = owner(), False
        self.update(
            **{"state": "running", "reason": None, "exit_code": None, "attempt": attempt, **fields},
            **self._owner,
            first_job=first_job(),
            **({"fetched": None} if "fetched" in before else {}),
            attempt_step=fields.get("step", before.get("step", 0)),  # for `stuck`: a later step is progress
            started=before.get("started") or begun,
            attempt_started=begun,
            seconds=self._seconds_before,
            lightning_hpc=__version__,
        )
        self.started = True
        self._keep_reserve()
        return attempt

    def resume_now(self, resume: str) -> str:
        """What --resume means for this start: `never`, or a checkpoint, is a wish of a job's first start only.

        The command of a job stays the same when it is put back into the queue. To start over each time would lose the
        work of all its attempts. The wish for a checkpoint stays until the run has saved one of its own after it.

        Args:
            resume: the setting.
        """
        if resume in ("auto", "must") or restarts() == 0:
            return resume

        before = self.status()
        if first_job() is None or before.get("first_job") != first_job():  # another job has begun it
            return resume
        return before.get("resume") or "auto"

    def advanced(self) -> bool:
        """True if the last attempt has saved a later step than the one from which it resumed."""
        status = self.status()
        return status.get("step", 0) > status.get("attempt_step", 0)

    def stuck(self) -> str | None:
        """Why a run must not be restarted once more: its last attempt, itself a restart, has saved nothing new."""
        # A single restart says nothing, the job may have begun just before its end; so may a trial in an agent's job.
        # After a submission by hand, or where attempts are missing, the count does not fit: the run gets its chance.
        before = self.status() if restarts() >= 2 else {}
        is_restart = before.get("attempt", 1) >= 2 and before.get("restarts") == restarts() - 1
        if not is_restart or self.advanced():
            return None
        step = before.get("step", 0)
        return f"no progress between two restarts: still at step {step}. A longer time limit may help, or more memory"

    def end(self, state: str, reason: str | None = None, **fields: Any) -> int:
        """Note how the attempt ended; returns the exit code for that state (see EXIT_CODES)."""
        # A monotonic clock, since the time of day may be set while a run lasts.
        seconds = round(self._seconds_before + time.monotonic() - self._clock, 1)
        try:
            self.update(state=state, reason=reason, exit_code=EXIT_CODES[state], seconds=seconds, **fields)
        except TakenOver as error:
            # How this attempt has ended is of no interest any more, and the reserve is the other's.
            print(f"error: {error}", file=sys.stderr)
            return EXIT_CODES[state]
        except OSError as error:  # the exit code still says it
            print(f"warning: the state {state} could not be written to {self.status_file}: {error}", file=sys.stderr)

        self.reserve.unlink(missing_ok=True)
        return EXIT_CODES[state]

    def holder(self) -> Holder | None:
        """Who runs in the folder, or may do so; None if certainly nobody does."""
        return holder_of(self.lock_file)

    @contextlib.contextmanager
    def locked(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Keep a second process out of the folder while this one runs in it; what is left empty is removed.

        Args:
            stop: ends the waiting for a process that may have been killed, on a file system without locks.

        Raises:
            SettingsError: another process holds the lock, or nothing can be written in the folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the run's folder can't be made: {error.filename}: {error.strerror}. Give it another place with "
                "--runs_dir, or mend that one"
            ) from None
        with contextlib.ExitStack() as stack:
            # A second: `status` looks at locks for a moment.
            try:
                can_lock = stack.enter_context(locked(self.lock_file, timeout=1, until_certain=True, stop=stop))
            except Locked as error:
                raise SettingsError(
                    f"{self.path} is in use: {error.holder}. Wait for it, or give this run another --name or --trial",
                    page="configure.md#name-trial-folder-identity",
                ) from None
            if not can_lock and not self.path.exists():  # a start that never began has removed it as we waited
                stack.enter_context(self.locked(stop))
                yield
                return
            if not can_lock:
                raise SettingsError(f"no file can be written in {self.path}: is the disk full? Is it your folder?")

            self._lock = self._lock_now()
            try:
                yield
            finally:
                self._remove_if_empty()
                self._lock = None

    def _lock_now(self) -> tuple[int, int] | None:
        """Device and number of the lock file; None if there is none."""
        try:
            status = self.lock_file.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def is_lost(self) -> bool:
        """True if the folder has been deleted or replaced since this object locked it: it may be another process's."""
        return self._lock is not None and self._lock_now() != self._lock

    def _remove_if_empty(self) -> None:
        """Remove the folder of a run that never began, and the experiment's if nothing else is in it."""
        if self.is_lost() or not set(self.path.iterdir()) <= {self.lock_file}:
            return

        self.lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another start is in it by now; or other runs are in the experiment's
            self.path.rmdir()
            self.path.parent.rmdir()

    def move_aside(self) -> Path | None:
        """Move earlier results to EXPERIMENT/.old/FOLDER-K, so that the run can start afresh; nothing is deleted.

        Returns:
            where they are now; None if there were none.
        """
        if not self.status_file.exists():
            return None

        target = place_aside(self.path)
        target.mkdir()

        self.reserve.unlink(missing_ok=True)

        # The folder itself stays, with its lock. status.json goes last, so that a kill in between is noticed.
        entries = [entry for entry in self.path.iterdir() if entry not in (self.lock_file, self.status_file)]
        for entry in [*sorted(entries), self.status_file]:
            entry.rename(target / entry.name)
        return target
