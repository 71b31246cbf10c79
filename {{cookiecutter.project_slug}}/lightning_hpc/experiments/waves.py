"""Experiments that are larger than a user's queue may be: which runs still wait to be submitted.

waves.json in the experiment's folder says what was asked for and how; jobs.jsonl, which gets a line with each call of
sbatch, says what of it was submitted since. What is in the one and not in the other waits. So no moment at which a
process may be killed leaves a run in both, or in none.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..files import write_json
from ..packing.packs import read_pack
from ..scheduler.jobs import Element
from ..scheduler.sbatch import asked_for
from .experiment import Experiment

WAVES = "waves.json"


@dataclass(frozen=True)
class QueueLimit:
    """How many jobs of one user may be in the queue, elements of arrays included; partition None: in all partitions."""

    most: int
    partition: str | None = None

    def room(self, elements: Sequence[Element]) -> int:
        """How many more jobs of this user may be submitted.

        Args:
            elements: all jobs that are in the queue.
        """
        mine = [element for element in elements if element.uid == os.getuid()]
        if self.partition is not None:
            mine = [element for element in mine if self.partition in element.partition.split(",")]
        return max(0, self.most - len(mine))


@dataclass(frozen=True)
class Waves:
    """What was asked to be submitted, and what the job that submits a part of it has to know.

    Attributes:
        todo: indices of the runs, or numbers of the packs, ascending.
        limits: of the user's queue; all of them hold.
        array_limit: most elements of one array.
        throttle: most elements at a time; None: no limit.
        submit: the cluster's own sbatch.
        options: for sbatch, what the submitting shell had set by variables.
        jobs_before: how many lines jobs.jsonl had before.
        looked: names of jobs that were at their end and have looked whether a wave is due: they do so no more.
        packed: True if an element of their arrays is a pack of runs.
    """

    todo: list[int]
    limits: list[QueueLimit]
    array_limit: int
    throttle: int | None
    submit: str
    options: list[str]
    jobs_before: int
    looked: list[str]
    packed: bool = False

    def room(self, elements: Sequence[Element]) -> int:
        """How many more jobs may be submitted beside those in the queue."""
        return min(limit.room(elements) for limit in self.limits)

    def write(self, experiment: Experiment) -> None:
        """Write it into the experiment's folder."""
        write_json(experiment.folder / WAVES, asdict(self))

    def with_look_of(self, name: str, elements: Sequence[Element]) -> "Waves":
        """The same after a job has looked; those that have left the queue are forgotten."""
        there = {element.name for element in elements}
        return replace(self, looked=sorted({each for each in self.looked if each in there} | {name}))


def read_waves(experiment: Experiment) -> Waves | None:
    """What an experiment has noted for its next waves; None where all was submitted at once."""
    try:
        text = (experiment.folder / WAVES).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    noted = json.loads(text)
    limits = [QueueLimit(**limit) for limit in noted.pop("limits")]
    return Waves(limits=limits, **noted)


def forget_waves(experiment: Experiment) -> None:
    """Let nothing more be submitted by itself."""
    with contextlib.suppress(FileNotFoundError):
        (experiment.folder / WAVES).unlink()


def waiting(experiment: Experiment) -> list[int]:
    """The indices of the runs that wait for the next wave, ascending."""
    waves = read_waves(experiment)
    if waves is None:
        return []
    left = waiting_elements(experiment, waves)
    if not waves.packed:
        return left
    return [index for number in left for index in read_pack(experiment.folder, number).left]


def waiting_elements(experiment: Experiment, waves: Waves) -> list[int]:
    """What waits for the next wave as the arrays have it: runs or packs."""
    batch = experiment.packed if waves.packed else experiment.batch
    submitted: set[int] = set()
    for row in experiment.jobs[waves.jobs_before :]:
        submitted |= elements_of(row["arguments"], batch.name)
    return [number for number in waves.todo if number not in submitted]


def elements_of(arguments: Sequence[str], batch: str) -> set[int]:
    """The runs, or the packs, that a call of sbatch has submitted.

    Args:
        arguments: those of the call.
        batch: the name of the batch file of arrays: a canary stops early, and a message is no run.
    """
    tasks, _ = asked_for(arguments)
    for position, argument in enumerate(arguments):
        if not argument.startswith("-"):
            if Path(argument).name != batch:
                return set()
            offset = int(arguments[position + 1]) if len(arguments) > position + 1 else 0
            return {offset + task for task in tasks if task is not None}
    return set()
