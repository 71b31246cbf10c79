"""One trial of a local sweep: its folder, who has run it, and how it ended."""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json, write_atomically
from ..runs.folder import now

GIVEN_UP = 300.0  # seconds without a sign of life after which another host may continue a trial

KILLED = "killed"


@dataclass(frozen=True)
class Trial:
    """One point of the search space, and what has become of it.

    Attributes:
        index: its number in the sweep, from 0 on.
        folder: sweeps/NAME/trials/INDEX; local_sweep.py says what is in it.
    """

    index: int
    folder: Path

    @property
    def parameters(self) -> dict[str, Any]:
        """`overlay`: settings; `point`: for a Bayesian search, where it lies. {} if it was taken and never begun."""
        return read_json(self.folder / "parameters.json")

    @property
    def result(self) -> dict[str, Any]:
        """`state`, `value` (None: there is none), `reason`, `run`: the run's folder; {} while it has not ended."""
        return read_json(self.folder / "result.json")

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Who has run it, in order; `seen`: seconds since the last sign of life."""
        files = sorted(self.folder.glob("attempt-*.json"), key=lambda file: int(file.stem.split("-")[1]))
        return [{"slot": None, **read_json(file), "seen": time.time() - file.stat().st_mtime} for file in files]

    def attempt_file(self, number: int) -> Path:
        """The file of an attempt, counted from 1."""
        return self.folder / f"attempt-{number}.json"

    def take(self, slot: str | None, number: int) -> bool:
        """Make attempt `number` ours; False if somebody else was faster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self.attempt_file(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False

        with os.fdopen(file, "w") as stream:
            json.dump(dict(slot=slot, host=socket.gethostname(), pid=os.getpid(), started=now()), stream)
        return True

    def show_life(self, number: int) -> None:
        """Say that the attempt goes on: the time of its file is the sign of life."""
        os.utime(self.attempt_file(number))

    def choose(self, parameters: dict[str, Any]) -> None:
        """Write down what it tries."""
        # A date becomes the text that Train.py makes of it, too.
        write_atomically(self.folder / "parameters.json", json.dumps(parameters, default=str))

    def leave(self, number: int, reason: str) -> None:
        """Give it back: the run has saved, and anybody may continue it."""
        file = self.attempt_file(number)
        write_atomically(file, json.dumps({**read_json(file), "left": reason}))

    def end(self, **result: Any) -> None:
        """Write down how it ended."""
        write_atomically(self.folder / "result.json", json.dumps(result))


def is_free(attempts: list[dict[str, Any]], slot: str | None) -> bool:
    """True if nobody runs a trial that has not ended: its last agent has left, is gone, or was this one before.

    Args:
        attempts: those of the trial.
        slot: the SLURM job or array element that asks; None without SLURM.
    """
    if not attempts:
        return True

    last = attempts[-1]
    if "left" in last or last["seen"] > GIVEN_UP or is_own(attempts, slot):
        return True

    # Only on our own host can we see whether the agent's process is still there.
    return last.get("host") == socket.gethostname() and not is_alive(last["pid"])


def is_own(attempts: list[dict[str, Any]], slot: str | None) -> bool:
    """True if a trial was last run by this SLURM job or array element, before it was requeued."""
    if slot is None or not attempts or attempts[-1]["slot"] != slot:
        return False

    # Several agents can share a job, an interactive one for example: a trial of one that is there is not the others'.
    last = attempts[-1]
    is_here = last.get("host") == socket.gethostname() and last["pid"] != os.getpid()
    return not (is_here and is_alive(last["pid"]))


def is_alive(pid: int) -> bool:
    """True if a process of this host is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True
