"""Sweeps without W&B: a folder on the file system that all agents share. No server, no database, no lock.

sweeps/NAME/
    sweep.yaml               the sweep's file, as checked
    trials/00007/
        parameters.json      what this trial tries
        attempt-1.json       who runs it; its time is a sign of life; written once more when the agent leaves in order
        attempt-2.json       the one who continues it
        result.json          how it ended: done, stopped (early termination) or failed, and the value of the metric

An agent takes a trial by making the file of its next attempt, which the file system lets only one agent do. So no trial
is lost and none runs twice. The run of a trial is a run like any other, in runs/NAME, and knows nothing of the sweep.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..planning import space
from ..planning.specification import random_trials
from ..printing import WIDE, as_text
from ..runs.folder import RunFolder
from ..runs.folds import read_cross_validations
from ..runs.run import read_command_line
from ..settings.errors import SettingsError
from ..settings.flat import Flat
from ..settings.yaml_files import dump, read_yaml
from .search import suggest
from .sweep_file import Sweep
from .trial import KILLED, Trial, is_free, is_own

SWEEPS = "sweeps"

ENDLESS = 100_000  # trials of a random or Bayesian sweep without run_cap

MOST_LOST = 3  # attempts that were killed, with their agent or without: then the trial itself is to blame


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
        """Make a new folder for a sweep: sweeps/NAME, or NAME-2 and so on if there is one.

        Raises:
            SettingsError: a local sweep can't do what the file says.
        """
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
            write_atomically(folder / "sweep.yaml", dump(sweep.config))
            return cls(folder, root)
        raise SettingsError(f"{root / SWEEPS} has too many sweeps of the name {sweep.name}")

    @classmethod
    def exists(cls, name: str, root: Path) -> bool:
        """True if `open` would find it."""
        return any((base / name / "sweep.yaml").is_file() for base in (Path(), root, root / SWEEPS))

    @classmethod
    def open(cls, name: str, root: Path) -> "LocalSweep":
        """Open an existing sweep: its name, or the path of its folder.

        Raises:
            SettingsError: there is none.
        """
        for base in (Path(), root, root / SWEEPS):
            if (base / name / "sweep.yaml").is_file():
                return cls((base / name).absolute(), root)
        there = sorted(path.parent.name for path in (root / SWEEPS).glob("*/sweep.yaml"))
        raise SettingsError(f"there is no local sweep {name}; {SWEEPS}/ has {', '.join(there) or 'none'}")

    # Trials

    @cached_property
    def length(self) -> int:
        """How many trials there are in all."""
        cap = self.sweep.config.get("run_cap") or ENDLESS
        if self.sweep.method == "grid":
            return min(cap, len(self.planned))
        return cap

    @cached_property
    def planned(self) -> list[Flat]:
        """Settings of all trials of a grid, or of a random search as far as it has been asked for."""
        return space.grid(self.sweep.parameters) if self.sweep.method == "grid" else []

    @property
    def has_ended(self) -> bool:
        """True if all trials have ended."""
        return sum(bool(self.result(trial)) for trial in self.trials()) >= self.length

    def trial(self, index: int) -> Trial:
        """The trial of a number, whether or not somebody has taken it."""
        return Trial(index, self.folder / "trials" / f"{index:05d}")

    def trials(self) -> Iterator[Trial]:
        """All trials that somebody has taken, in order."""
        for path in sorted((self.folder / "trials").glob("[0-9]*")):
            yield Trial(int(path.name), path)

    def result(self, trial: Trial) -> dict[str, Any]:
        """A trial's result, read once; {} while it has not ended."""
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
        unfinished = [(trial, trial.attempts) for trial in taken if not self.result(trial)]
        free = [(trial, attempts) for trial, attempts in unfinished if is_free(attempts, slot)]

        # An agent writes the result down before it goes; it may have done both since the look at the results.
        free = [(trial, attempts) for trial, attempts in free if not self.result(trial)]

        # Our own first: after a requeue, an agent continues what it was doing.
        free.sort(key=lambda entry: not is_own(entry[1], slot))
        for trial, attempts in free:
            killed = sum(attempt.get("left", KILLED) == KILLED for attempt in attempts)
            if killed >= MOST_LOST:
                trial.end(state="failed", value=None, reason=f"killed {MOST_LOST} times", run=None)
            elif trial.take(slot, len(attempts) + 1):
                return trial, len(attempts) + 1

        # A new one: the next number that no other agent takes before us.
        index = taken[-1].index + 1 if taken else 0
        while index < self.length:
            trial = self.trial(index)
            if trial.take(slot, 1):
                return trial, 1
            index += 1
        return None

    def choose(self, trial: Trial) -> dict[str, Any] | None:
        """Return what the trial tries, decided when it is first asked for; None if a random search has no new point."""
        if parameters := trial.parameters:
            return parameters

        if self.sweep.method == "bayes":
            parameters = suggest(self.sweep.parameters, self.known_points(), trial.index, self.sweep.maximize)
        else:
            if self.sweep.method == "random" and len(self.planned) <= trial.index:
                # An endless search is drawn a part at a time: the first points stay the same.
                most = self.length if self.length < ENDLESS else 2 * trial.index + 10
                self.planned = random_trials(self.sweep.parameters, most, 0)
            if trial.index >= len(self.planned):
                return None
            parameters = dict(overlay=self.planned[trial.index])

        trial.choose(parameters)
        return parameters

    def known_points(self) -> list[tuple[dict[str, float], float | None]]:
        """Return what a search knows: point and value (None while it runs) of each trial that has not failed."""
        known = []
        for trial in self.trials():
            point, result = trial.parameters.get("point"), self.result(trial)
            if point is not None and result.get("state") != "failed":
                known.append((point, result.get("value")))
        return known

    # Results

    def run_folders(self, overlay: Flat) -> list[RunFolder]:
        """Return the folder of the run with these settings; of a cross-validation, those of its folds."""
        arguments = self.sweep.arguments(overlay)
        first = read_command_line("fit", arguments, self.root)
        if self.sweep.verb == "fit":
            return [first.folder]

        folds = range(first.settings.flat.get("data.folds", 5))
        return [read_command_line("fit", [*arguments, f"--data.fold={fold}"], self.root).folder for fold in folds]

    def history(self, run: Path) -> list[float]:
        """Return all values of the metric that a run has logged so far; of a cross-validation, that of its folds."""
        metric = self.sweep.metric or ""
        if self.sweep.verb != "fit":
            return fold_means(run, metric)

        from ..results.curves import logged  # late: NumPy takes a moment, and most commands need no curves

        return logged(run, metric)

    def best(self) -> tuple[Trial, dict[str, Any]] | None:
        """Return the trial with the best value, and its result."""
        ended = [(trial, self.result(trial)) for trial in self.trials()]
        measured = [(trial, result) for trial, result in ended if result.get("value") is not None]
        sign = -1 if self.sweep.maximize else 1
        return min(measured, key=lambda entry: sign * entry[1]["value"], default=None)

    def table(self) -> str:
        """Return one line for each trial, and the best."""
        rows = [self.row(trial) for trial in self.trials()]
        names = ("trial", "state", self.sweep.metric or "value", "parameters, run")
        columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
        text = [as_text(columns, WIDE, free=names[-1])]

        if best := self.best():
            trial, result = best
            text.append(f"best: trial {trial.index}, {self.sweep.metric} {result['value']:.5g}, {result['run']}")
        total = self.length if self.length < ENDLESS else "any number of"
        text.append(f"{len(self.ended)} of {total} trials have ended")
        return "\n".join(text)

    def row(self, trial: Trial) -> tuple[int, str, float | None, str]:
        """Return a trial's line of the table: number, state, value, and its parameters with the run or the reason."""
        result = self.result(trial)
        state = result.get("state")
        if state is None:
            state = "waiting" if is_free(trial.attempts, None) else "running"

        overlay = ", ".join(f"{key}={setting}" for key, setting in trial.parameters.get("overlay", {}).items())
        outcome = result.get("reason") or result.get("run") or ""
        return trial.index, state, result.get("value"), f"{overlay}: {outcome}" if outcome else overlay


def fold_means(run: Path, metric: str) -> list[float]:
    """Return the mean of a metric over the folds that a run is one of; [] until all of them are done."""
    try:
        cross_validations = read_cross_validations(run.parent)
    except SettingsError:  # it was ended before its first fold had a folder
        return []

    values = []
    for folds in cross_validations:
        if folds.complete() and run.name in folds.runs.values() and metric in folds.metrics():
            values.append(folds.metrics()[metric])
    return values
