"""The thread of rank 0 that uploads while the run trains: it never blocks a step, and its failures never end a run.

sender = Sender(upload)
sender.start()
checkpoints.on_save.append(sender.offer)     # newest wins: one that waits is replaced
…
line = sender.finish("done")                 # the last upload; how long it is waited for depends on why the run ends
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from .. import signals
from ..remote import StoreError
from ..runs.folder import now
from ..settings.places import command
from ..survive.checkpoint_files import read_meta
from .fence import Taken
from .staging import Staged
from .upload import Ending, Upload

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between two tries, doubled each time

# Seconds for the last upload, by how a run ends. SLURM kills 30 s after SIGTERM; a time limit is announced before.
PATIENCE = {"preempted": 20.0, "interrupted": 20.0, "time limit": 60.0}
RESERVE = 10.0  # seconds before a job's time limit in which it should have ended
TRYING = 120.0  # seconds that a mirror which refuses is asked again, where a run ends by itself
LONGEST = 3600.0  # seconds that the last upload may take, where a run ends by itself


class Sender(threading.Thread):
    """Uploads what it is offered, and gives a sign of life.

    Args:
        upload: does it.

    Attributes:
        taken: the line that says which machine has taken over the run; None while none has.
        sent: bytes that were sent, beside pointers.
    """

    def __init__(self, upload: Upload) -> None:
        super().__init__(name="mirror", daemon=True)
        self.upload = upload
        upload.pause = self._pause  # type: ignore[method-assign]
        self.taken: str | None = None
        self.sent = 0

        self._changed = threading.Condition()
        self._staged: Staged | None = None
        self._best: Staged | None = None
        self._best_seen: Any = None  # what meta.json said of the best one that was staged last
        self._ending = self._complete = False
        self._ending_since = 0.0
        self._problem: str | None = None  # why the last try failed
        self._tries = 0
        self._sending: tuple[Staged | None, ...] = ()

        # Times by the monotonic clock: the last upload, the last one of a checkpoint, the last change in the mirror,
        # and when it may be tried again after a failure.
        self._last = self._last_checkpoint = self._last_put = -1e9
        self._not_before = 0.0

    # From the run's own thread

    def offer(self, entry: Mapping[str, Any]) -> None:
        """Take a checkpoint that has just been written, in place of one that still waits.

        Args:
            entry: what meta.json says about it.
        """
        staged = self.upload.staging.newest(entry)
        best_seen = read_meta(self.upload.folder.path / "checkpoints").get("best")
        best = None
        if best_seen != self._best_seen:
            best = self.upload.staging.best()
        if best is not None:  # where it could not be kept, the next save tries again
            self._best_seen = best_seen
        self._put_in_line(staged, best)

    def catch_up(self) -> None:
        """Take the newest checkpoint on the disk, of an earlier attempt, which may not have got into the mirror."""
        self._put_in_line(self.upload.staging.on_disk(), self.upload.staging.best())

    def _put_in_line(self, staged: Staged | None, best: Staged | None) -> None:
        old = []
        with self._changed:
            if staged is not None:
                old.append(self._staged)
                self._staged = staged
            if best is not None:
                old.append(self._best)
                self._best = best
            left = [waiting for waiting in old if waiting is not None and waiting not in self._sending]
            self._changed.notify()
        for waiting in left:
            waiting.release()

    def finish(self, state: str) -> str:
        """Upload the last state, and wait for that as long as there is time.

        Args:
            state: how the run has ended.

        Returns:
            a line about it.
        """
        with self._changed:
            self._ending = True
            self._ending_since = time.monotonic()
            self._not_before = 0.0
            self._changed.notify()

        end = time.monotonic() + time_left(state)
        asked = signals.received()
        while self.is_alive() and time.monotonic() < end:
            self.join(0.1)
            if asked is None and signals.received() is not None:  # asked to stop while it waited
                asked = signals.received()
                end = min(end, time.monotonic() + time_left(str(asked)))
        return self._last_line()

    def _last_line(self) -> str:
        if self.taken is not None:
            return f"mirror           {self.taken}"
        if self._complete:
            return f"mirror           {self.upload.mirror.address}"
        there = self.upload.pointer.step if self.upload.pointer else 0
        here = self.upload.folder.status().get("step", 0)
        reason = self._problem or "there was no time for the rest"
        finish = command("Train.py", "push", self.upload.folder.path)
        return f"mirror           step {there} is there, and step {here} here: {reason}. To finish it: {finish}"

    # The thread

    def run(self) -> None:
        while not self._complete:
            with self._changed:
                while (wait := self._seconds_until_due()) > 0:
                    self._changed.wait(wait)
                staged, best, ending = self._staged, self._best, self._ending
                self._sending = (staged, best)

            if not self._try(staged, best, ending):
                return

    def _try(self, staged: Staged | None, best: Staged | None, ending: bool) -> bool:
        """Upload once; False if there is no use in going on."""
        began = self._last = time.monotonic()
        if staged is not None:
            self._last_checkpoint = began
        often = self.upload.mirror.store.seconds_between_puts == 0  # else each change counts
        try:
            self.sent += self.upload.send(staged, best, often or ending or staged is not None, released=ending)
        except Ending:
            self._put_down(staged, best)  # `finish` is about to be called
            return True
        except Taken as error:
            self.taken = self.upload.folder.taken = str(error)
            logger.warning("mirror: %s", self.taken)
            return False
        except Exception as error:  # also what a client's library raises: nothing here may end the run
            return self._failed(error, staged, best)

        self._complete = ending
        self._succeeded(staged, best)
        return True

    def _seconds_until_due(self) -> float:
        """How long there is nothing to do."""
        due = self._last + self.upload.settings.every
        if self._staged is not None:
            due = min(due, self._last_checkpoint + self.upload.settings.every)
        if self._ending:
            due = 0.0
        return max(due, self._not_before) - time.monotonic()

    def _pause(self) -> None:
        """Leave the mirror alone for as long as it wants between two changes, unless the run is about to end."""
        with self._changed:
            end = self._last_put + self.upload.mirror.store.seconds_between_puts
            while not self._ending and (seconds := end - time.monotonic()) > 0:
                self._changed.wait(seconds)
        self._last_put = time.monotonic()

    def _succeeded(self, staged: Staged | None, best: Staged | None) -> None:
        was_problem, self._problem, self._tries, self._not_before = self._problem, None, 0, 0.0
        with self._changed:
            self._sending = ()
            if self._staged is staged:
                self._staged = None
            if self._best is best:
                self._best = None
        for sent in (staged, best):
            if sent is not None:
                sent.release()

        if was_problem is not None:
            logger.info("mirror: it works again; step %d is there", self.upload.pointer.step)
        if was_problem is not None or staged is not None or self._complete:
            self._note()

    def _failed(self, error: Exception, staged: Staged | None, best: Staged | None) -> bool:
        """Note why, and when it is tried again; False if it is not."""
        known = isinstance(error, StoreError | OSError)
        problem = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
        permanent, retry_after = getattr(error, "permanent", False), getattr(error, "retry_after", None)
        pause = min(FIRST_PAUSE * 2**self._tries, LONGEST_PAUSE)
        if permanent:
            pause = LONGEST_PAUSE
        self._tries += 1
        self._not_before = time.monotonic() + (retry_after or pause)
        with self._changed:
            if isinstance(error, FileNotFoundError) and self._staged is staged:
                self._staged = None  # where there are no hard links, it may have been removed; the next one is whole
        self._put_down(staged, best)
        if self._problem is None:
            logger.warning("mirror: %s; the run continues, and this is tried again", problem)
        if self._problem != problem:
            self._problem = problem
            self._note()

        tried_for = time.monotonic() - self._ending_since
        return not (self._ending and (permanent or tried_for > TRYING))

    def _put_down(self, *unsent: Staged | None) -> None:
        """Leave in line what could not be sent, unless something later has taken its place."""
        with self._changed:
            self._sending = ()
            replaced = [old for old in unsent if old not in (None, self._staged, self._best)]
        for old in replaced:
            old.release()

    def _note(self) -> None:
        """Write into status.json how far the mirror is."""
        folder = self.upload.folder
        note = note_of(self.upload, self._problem)
        try:
            if not folder.is_lost():
                folder.update(mirror=note)
        except (OSError, RuntimeError) as error:  # a full disk, or another process has begun in the folder
            logger.debug("the state of the mirror could not be noted: %s", error)


def note_of(upload: Upload, problem: str | None = None) -> dict[str, Any]:
    """What status.json says about the mirror."""
    there = upload.pointer
    step, state = (there.step, there.state) if there else (None, None)
    return dict(url=upload.mirror.store.address, step=step, state=state, time=now(), problem=problem)


def time_left(state: str) -> float:
    """Seconds for the last upload.

    Args:
        state: how the run has ended, or why it is asked to end.
    """
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if state == "time limit" and end.isdigit():
        return max(0.0, int(end) - time.time() - RESERVE)
    return PATIENCE.get(state, LONGEST)
