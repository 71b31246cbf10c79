"""Sweeps without W&B: a folder on the file system that all agents share. No server, no database, no lock.

sweeps/NAME/
    sweep.yaml               the sweep's file, as checked
    trials/00007/
        parameters.json      what this trial tries
        attempt-1.json       who runs it; its time is a sign of life; written once more when the agent leaves in order
        attempt-2.json       the one who goes on with it
        result.json          how it ended: done, stopped (early termination) or failed, and the value of the metric

An agent takes a trial by making the file of its next attempt, which the file system lets only one agent do. So no trial
is lost and none runs twice. The run of a trial is a run like any other, in runs/NAME, and knows nothing of the sweep.
"""

import csv
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..runs import space
from ..runs.expand import trials as random_trials
from ..runs.folder import RunFolder, now, write_atomically
from ..runs.request import request
from ..runs.settings import Flat, SettingsError, read_yaml
from ..training.crossvalidation import collect
from .sweep_file import Sweep

SWEEPS = "sweeps"
ENDLESS = 100_000  # trials of a random or Bayesian sweep without run_cap
SIGN_OF_LIFE = 30.0  # seconds between two
GIVEN_UP = 300.0  # seconds without a sign of life after which another host may go on with a trial
KILLED = "killed"
MOST_LOST = 3  # attempts that were killed, with their agent or without: then the trial itself is to blame


@dataclass(frozen=True)
class Trial:
    """One point of the search space, and what has become of it."""

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

    def take(self, slot: str | None, number: int) -> bool:
        """Make attempt `number` ours; False if somebody else was faster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self.attempt(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(file, "w") as stream:
            json.dump(dict(slot=slot, host=socket.gethostname(), pid=os.getpid(), started=now()), stream)
        return True

    def attempt(self, number: int) -> Path:
        return self.folder / f"attempt-{number}.json"

    def leave(self, number: int, reason: str) -> None:
        """Give it back: the run has saved and anybody may go on with it."""
        write_atomically(self.attempt(number), json.dumps({**read_json(self.attempt(number)), "left": reason}))

    def end(self, **result: Any) -> None:
        """Write down how it ended."""
        write_atomically(self.folder / "result.json", json.dumps(result))


class LocalSweep:
    """A sweep's folder.

    Args:
        folder: sweeps/NAME.
        root: the project's folder.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.sweep = Sweep(read_yaml(folder / "sweep.yaml"), folder / "sweep.yaml")
        self.ended: dict[int, dict[str, Any]] = {}  # results, which never change

    @classmethod
    def create(cls, sweep: Sweep, root: Path) -> "LocalSweep":
        """A new folder for a sweep: sweeps/NAME, or NAME-2 and so on if there is one."""
        if sweep.verb != "fit" and "early_terminate" in sweep.config:
            raise SettingsError(
                "early_terminate compares runs while they train, which a cross-validation has several of"
            )
        (root / SWEEPS).mkdir(exist_ok=True)
        for number in range(1, 10_000):
            folder = root / SWEEPS / (sweep.name if number == 1 else f"{sweep.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            write_atomically(folder / "sweep.yaml", yaml.safe_dump(dict(sweep.config), sort_keys=False))
            return cls(folder, root)
        raise SettingsError(f"{root / SWEEPS} has too many sweeps of the name {sweep.name}")

    @classmethod
    def exists(cls, name: str, root: Path) -> bool:
        return any((base / name / "sweep.yaml").is_file() for base in (Path(), root, root / SWEEPS))

    @classmethod
    def open(cls, name: str, root: Path) -> "LocalSweep":
        """An existing sweep: its name, or the path of its folder.

        Raises:
            SettingsError: there is none.
        """
        for base in (Path(), root, root / SWEEPS):
            if (base / name / "sweep.yaml").is_file():
                return cls((base / name).absolute(), root)
        there = sorted(path.parent.name for path in (root / SWEEPS).glob("*/sweep.yaml"))
        raise SettingsError(f"there is no local sweep {name}; {SWEEPS}/ has {', '.join(there) or 'none'}")

    # Trials

    def trial(self, index: int) -> Trial:
        return Trial(index, self.folder / "trials" / f"{index:05d}")

    def trials(self) -> Iterator[Trial]:
        """All trials that somebody has taken, in order."""
        for path in sorted((self.folder / "trials").glob("[0-9]*")):
            yield Trial(int(path.name), path)

    def result(self, trial: Trial) -> dict[str, Any]:
        """A trial's result, read once."""
        if trial.index not in self.ended and (result := trial.result):
            self.ended[trial.index] = result
        return self.ended.get(trial.index, {})

    def claim(self, slot: str | None) -> tuple[Trial, int] | None:
        """Take the next trial: one that waits for its agent to come back, or a new one.

        Args:
            slot: the SLURM job or array element of this agent, whose trials are its own again after a requeue.

        Returns:
            the trial and the number of this attempt; None if there is nothing left to do.
        """
        taken = list(self.trials())
        waiting = [(trial, trial.attempts) for trial in taken if not self.result(trial)]
        waiting = [each for each in waiting if is_free(each[1], slot)]
        for trial, attempts in sorted(waiting, key=lambda each: not is_own(each[1], slot)):
            if sum(attempt.get("left", KILLED) == KILLED for attempt in attempts) >= MOST_LOST:
                trial.end(state="failed", value=None, reason=f"killed {MOST_LOST} times", run=None)
            elif trial.take(slot, len(attempts) + 1):
                return trial, len(attempts) + 1
        index = taken[-1].index + 1 if taken else 0
        while index < self.length:
            if (trial := self.trial(index)).take(slot, 1):
                return trial, 1
            index += 1
        return None

    @cached_property
    def length(self) -> int:
        """How many trials there are in all."""
        cap = self.sweep.config.get("run_cap") or ENDLESS
        return min(cap, len(self.planned)) if self.sweep.method == "grid" else cap

    @property
    def has_ended(self) -> bool:
        """Whether all trials have ended."""
        return sum(bool(self.result(trial)) for trial in self.trials()) >= self.length

    @cached_property
    def planned(self) -> list[Flat]:
        """Settings of all trials of a grid, or of a random search as far as it has been asked for."""
        return space.grid(self.sweep.parameters) if self.sweep.method == "grid" else []

    def parameters(self, trial: Trial) -> dict[str, Any] | None:
        """What the trial tries, decided when it is first asked for; None if a random search has no new point."""
        if found := trial.parameters:
            return found
        if self.sweep.method == "bayes":
            from .bayes import suggest

            chosen = suggest(self, trial.index)
        else:
            if self.sweep.method == "random" and len(self.planned) <= trial.index:
                most = self.length if self.length < ENDLESS else 2 * trial.index + 10
                self.planned = random_trials(self.sweep.parameters, most, 0)  # the first ones stay the same
            if trial.index >= len(self.planned):
                return None
            chosen = dict(overlay=self.planned[trial.index])
        write_atomically(trial.folder / "parameters.json", json.dumps(chosen))
        return chosen

    # Results

    def run_folders(self, overlay: Flat) -> list[RunFolder]:
        """The folder of the run with these settings; of a cross-validation, those of its folds."""
        arguments = self.sweep.arguments(overlay)
        first = request("fit", arguments, self.root)
        if self.sweep.verb == "fit":
            return [first.folder]
        folds = range(first.settings.flat.get("data.folds", 5))
        return [request("fit", [*arguments, f"--data.fold={fold}"], self.root).folder for fold in folds]

    def history(self, run: Path) -> list[float]:
        """All values of the metric that a run has logged so far; of a cross-validation, that of its folds together."""
        if self.sweep.verb != "fit":
            mine = [
                each for each in collect(run.parent) if run.name in each.runs.values() and len(each.runs) == each.folds
            ]
            return [value for each in mine if (value := each.metrics().get(self.sweep.metric or "")) is not None]
        try:
            with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
                values = [row.get(self.sweep.metric or "") for row in csv.DictReader(file)]
        except FileNotFoundError:
            return []
        return [float(value) for value in values if value and math.isfinite(float(value))]

    def best(self) -> tuple[Trial, dict[str, Any]] | None:
        """The trial with the best value, and its result."""
        found = [(trial, result) for trial in self.trials() if (result := self.result(trial)).get("value") is not None]
        sign = -1 if self.sweep.maximize else 1
        return min(found, key=lambda each: sign * each[1]["value"], default=None)

    def table(self) -> str:
        """One line for each trial, and the best."""
        lines = [("trial", "state", self.sweep.metric or "", "parameters, run")]
        for trial in self.trials():
            result, attempts = self.result(trial), trial.attempts
            waiting = "waiting" if is_free(attempts, None) else "running"
            value = result.get("value")
            overlay = ", ".join(f"{key}={each}" for key, each in trial.parameters.get("overlay", {}).items())
            where = result.get("reason") or result.get("run") or ""
            shown = "" if value is None else f"{value:.5g}"
            lines.append((str(trial.index), result.get("state", waiting), shown, f"{overlay}  {where}"))
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        text = ["  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in lines]
        if best := self.best():
            text.append(f"best: trial {best[0].index}, {self.sweep.metric} {best[1]['value']:.5g}, {best[1]['run']}")
        total = self.length if self.length < ENDLESS else "any number of"
        text.append(f"{len(self.ended)} of {total} trials have ended")
        return "\n".join(text)


def is_free(attempts: list[dict[str, Any]], slot: str | None) -> bool:
    """Whether nobody runs a trial that has not ended: its last agent has left, is gone, or was this one before."""
    if not attempts:
        return True
    last = attempts[-1]
    if "left" in last or last["seen"] > GIVEN_UP or is_own(attempts, slot):
        return True
    return last.get("host") == socket.gethostname() and not is_alive(last["pid"])


def is_own(attempts: list[dict[str, Any]], slot: str | None) -> bool:
    """Whether a trial was last run by this SLURM job or array element, before it was requeued."""
    return slot is not None and bool(attempts) and attempts[-1]["slot"] == slot


def is_alive(pid: int) -> bool:
    """Whether a process of this host is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; {} if it is not there, or was being written when its writer was killed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
