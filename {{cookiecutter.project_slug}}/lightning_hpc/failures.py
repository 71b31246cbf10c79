"""Why a run has failed: the first cause among all of its ranks; what is no fault of its code; and what may fail.

When one rank fails, the others lose their connection to it and fail too, with errors that say nothing. So each rank but
the first leaves a note in the run's folder, logs/rank-N.failure.json. Rank 0 reads them: it alone writes status.json.
"""

import functools
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .files import read_json, write_json

logger = logging.getLogger(__name__)

# What PyTorch says of a DataLoader worker that has ended without an exception of its own. It also says of which signal,
# but wherever the process is at that moment; so this is lost if something there catches errors.
LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal: (?P<signal>\w+)|exited unexpect)"
)

# What PyTorch makes of an exception in a worker: one of the same class, whose message is the worker's whole traceback.
CAUGHT = re.compile(r"Caught \w+ in (?P<place>[^\n]+)\.\nOriginal (?P<traceback>Traceback.*)", re.DOTALL)

# What communication says when another rank has gone, and the libraries it comes from.
GONE = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|remote process exited|closed by peer", re.I)
COMMUNICATION = re.compile(r"gloo|nccl|mpi|tcpstore|processgroup", re.I)

# Names of W&B's errors that say that its service is gone, beside ConnectionResetError; they have no common parent.
WITHOUT_SERVICE = ("HandleAbandonedError", "MailboxClosedError", "WandbServiceConnectionError")

# Methods of Lightning's loggers that write something.
WRITE = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")

NOTES = "logs/rank-*.failure.json"

WAIT = 10.0  # seconds for the notes of other ranks: they have written them before their connections close

WITHOUT_A_WORD = "another rank has gone without a word: killed, out of memory, or its node has failed"

NO_FAILURE = (0, 75, 76, 130)  # exit codes of ranks that have ended together with rank 0


@dataclass(frozen=True)
class Cause:
    """Why a rank has ended.

    Attributes:
        reason: the error in one line.
        killed: True if something from outside has ended it or its workers, so that it can be tried again.
        lost: True if it has only lost the connection to another rank, which has the cause.
    """

    reason: str
    killed: bool = False
    lost: bool = False


def cause_of(error: BaseException) -> Cause:
    """Why an error has ended this rank."""
    reason = in_one_line(error)
    if a_worker_was_killed(error):
        return Cause(f"{reason}: out of memory?", killed=True)

    kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
    of_communication = "DistError" in kinds or COMMUNICATION.search(str(error))
    return Cause(reason, lost=bool(of_communication and GONE.search(str(error))))


def in_one_line(error: BaseException) -> str:
    """An error's class and message; of one in a DataLoader worker those of the worker's, not its traceback."""
    text = str(error)
    caught = CAUGHT.match(text)
    if caught:
        lines = caught["traceback"].splitlines()
        frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
        after = lines[frames[-1] + 1 :] if frames else lines
        while after and after[0].startswith("    "):  # the code of the last frame
            after = after[1:]
        return f"{' '.join(' '.join(after).split())} (in {caught['place']})"
    return f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")


def a_worker_was_killed(error: BaseException) -> bool:
    """True if a DataLoader worker has gone, and neither by an exception nor by a crash of its own."""
    gone = False
    for earlier in chain(error):
        match = LOST_WORKER.search(str(earlier))
        if match is None:
            continue
        if match["signal"] not in (None, "Killed"):
            return False
        gone = True
    return gone


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def service_has_died(error: Exception) -> bool:
    """True if an error of W&B's says that its service, a process of its own, is no longer there."""
    return isinstance(error, ConnectionError) or type(error).__name__ in WITHOUT_SERVICE


def leave_note(folder: Path, rank: int, cause: Cause) -> None:
    """Leave a note of what has ended this rank, in the run's folder."""
    note = dict(asdict(cause), rank=rank, time=time.time(), start=this_start())
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    write_json(folder / "logs" / f"rank-{rank}.failure.json", note)


def forget_notes(folder: Path, until: str) -> None:
    """Remove what ranks have noted in earlier starts: in an interactive job, those have the same number as this one.

    Args:
        folder: the run's folder.
        until: when an earlier attempt wrote its status.json last, to the millisecond.
    """
    end = datetime.fromisoformat(until).timestamp() + 0.001
    for file in folder.glob(NOTES):
        if read_json(file).get("time", 0.0) < end:
            file.unlink(missing_ok=True)


def noted_cause(folder: Path) -> Cause | None:
    """The first cause that a rank has noted in this start of the run; None if there is no note of a cause."""
    notes = [read_json(file) for file in folder.glob(NOTES)]
    causes = [note for note in notes if note.get("start") == this_start() and not note["lost"]]
    if not causes:
        return None
    first = min(causes, key=lambda note: note["time"])
    return Cause(f"rank {first['rank']}: {first['reason']}", killed=first["killed"])


def first_cause(folder: Path, own: Cause, wait: float = WAIT) -> Cause:
    """Why the run has failed, as far as rank 0 can learn.

    Args:
        folder: the run's folder.
        own: why rank 0 itself has ended.
        wait: seconds to wait for a note of another rank.
    """
    if not own.lost:
        return own
    end = time.monotonic() + wait
    while True:
        noted = noted_cause(folder)
        if noted is not None:
            return noted
        if time.monotonic() >= end:
            return Cause(WITHOUT_A_WORD, killed=True)
        time.sleep(0.1)


def this_start() -> str:
    """What all ranks of one start of a run have in common, and no other start has."""
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")
    if "SLURM_JOB_ID" not in os.environ:
        names = ("TORCHELASTIC_RUN_ID", "MASTER_PORT")
    return "/".join(os.environ.get(name, "") for name in names)


class RankWatch:
    """Watches the ranks that rank 0 has started, in place of Lightning's observer.

    That one kills rank 0 within 5 s after another rank has ended with an exit code, also while rank 0 still saves, and
    leaves no word. Here rank 0 gets the time to notice by itself; only if it hangs without the others, it is ended.

    Args:
        leave: ends this process when another rank has failed and this one has not noticed for `patience`.
        patience: seconds.
    """

    def __init__(self, leave: Callable[[], None], patience: float = 60.0) -> None:
        self.leave, self.patience = leave, patience
        self.ended = threading.Event()  # training has ended in this process
        self.children: Sequence[subprocess.Popen] = ()

    def start(self, children: Sequence[subprocess.Popen]) -> None:
        """Begin to watch, in a thread."""
        self.children = children
        threading.Thread(target=self.run, daemon=True, name="rank-watch").start()

    def run(self) -> None:
        """Wait until training has ended here, or another rank has failed."""
        while not has_failed(child.poll() for child in self.children):
            if self.ended.wait(1.0):
                return
        if self.ended.wait(self.patience):
            return

        for child in self.children:
            if child.poll() is None:
                child.kill()
        self.leave()


def has_failed(codes: Iterable[int | None]) -> bool:
    """True if a process has ended with an exit code that is not one of NO_FAILURE."""
    return any(code is not None and code not in NO_FAILURE for code in codes)


def may_fail(tracker: Any) -> None:
    """Let a tracker fail without ending the run: a full disk, or a service or a server that is gone, is one warning."""
    for name in WRITE:
        setattr(tracker, name, _without_errors(getattr(tracker, name), type(tracker).__name__))


def _without_errors(method: Callable[..., Any], tracker: str) -> Callable[..., Any]:
    """A method of a tracker that warns, once, instead of raising an OSError."""
    warned = False

    @functools.wraps(method)
    def guarded(*arguments: Any, **keywords: Any) -> Any:
        nonlocal warned
        try:
            return method(*arguments, **keywords)
        except OSError as error:  # that of a connection too
            if not warned:
                logger.warning(f"warning: {tracker} has lost something, and the run continues: {error}")
            warned = True
            return None

    return guarded
