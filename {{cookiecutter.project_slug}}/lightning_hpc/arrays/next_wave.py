"""Where a user's queue is limited, runs are submitted in waves: the first by the user, the next by jobs that end.

There is no process that watches. Each job of the experiment looks, at its end, whether a wave is due; one at a time,
under the lock of submissions. The last one that can look waits until there is room.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from ..clusters.presets import Preset
from ..clusters.resources import Resources
from ..experiments.experiment import Experiment, only_submission
from ..experiments.standing import index_of
from ..experiments.waves import QueueLimit, Waves, read_waves, waiting, waiting_elements
from ..printing import counted
from ..scheduler import sbatch
from ..scheduler.commands import LONG_PAUSES, site_options
from ..scheduler.jobs import Element
from ..settings.errors import SettingsError
from ..settings.places import command
from .calls import array_calls, notified, throttle_beside

PART = 4  # a wave is due when a quarter of the queue is free: so it takes few calls of sbatch

PATIENCE = 600.0  # seconds for other jobs that end at the same time


def queue_limits(preset: Preset, resources: Resources) -> list[QueueLimit]:
    """How many jobs a user may have in the queue; [] where that is not limited, or not known."""
    if resources.over_quota:
        return []
    limits = []
    if preset.jobs_per_user:
        limits.append(QueueLimit(preset.jobs_per_user))
    partition = preset.partitions.get(resources.partition or "", preset.limits)
    if partition.jobs_per_user:
        limits.append(QueueLimit(partition.jobs_per_user, resources.partition))
    return limits


def first_wave(
    indices: Sequence[int], preset: Preset, resources: Resources, elements: Sequence[Element], canary: bool = False
) -> list[int]:
    """Those of some runs for which there is room in the queue now.

    Args:
        indices: of the runs, or numbers of the packs, ascending.
        preset, resources: the cluster, and what each run gets.
        elements: all jobs that are in the queue.
        canary: True if the first run goes ahead in a job of its own.
    """
    limits = queue_limits(preset, resources)
    if not limits:
        return list(indices)
    room = min(limit.room(elements) for limit in limits) - canary - notified(resources)
    return list(indices[: max(0, room)])


def about_waves(todo: Sequence[int], now: Sequence[int], preset: Preset, resources: Resources) -> list[str]:
    """What the user should know of runs for which there is no room now."""
    if len(now) == len(todo):
        return []
    most = min(limit.most for limit in queue_limits(preset, resources))
    what = "runs" if resources.pack == 1 else f"packs of {resources.pack} runs"
    return [
        f"{preset.name} lets a user have {most} jobs in the queue: {len(now)} {what} now, and {len(todo) - len(now)} "
        "wait for the next wave, which the jobs that end submit"
    ]


def note_waves(experiment: Experiment, indices: Sequence[int], preset: Preset, resources: Resources) -> None:
    """Write down what the jobs have to submit that come to their end. Needs `only_submission`."""
    Waves(
        todo=list(indices),
        limits=queue_limits(preset, resources),
        array_limit=preset.array_limit,
        throttle=resources.throttle,
        submit=preset.submit,
        options=site_options(str(experiment.batch)),
        jobs_before=len(experiment.jobs),
        looked=[],
        packed=resources.pack > 1,
    ).write(experiment)


def submit_next_wave(experiment: Experiment, name: str, pauses: Sequence[float] = LONG_PAUSES) -> None:
    """Submit what waits, if a wave is due; called by a job at its end.

    Args:
        experiment: the planned experiment.
        name: what SLURM calls this job.
        pauses: seconds before each new look, where no other job is left that would submit what waits.
    """
    # New jobs inherit the variables of this one, whose restarts are not theirs.
    for variable in ("RESUBMITTED", "RESUBMITTED_FROM"):
        os.environ.pop(variable, None)

    for pause in (*pauses, None):
        try:
            problem = look(experiment, name)
        except SettingsError as error:  # SLURM refuses, or does not answer
            problem = str(error)
        if problem is None:
            return
        if pause is not None:
            time.sleep(pause)
    again = command("SlurmTrain.py", "retry", experiment.folder)
    print(f"error: the next wave was not submitted: {problem}. To continue: {again}", file=sys.stderr, flush=True)


def join_next_wave(experiment: Experiment, number: int, name: str, packed: bool) -> bool:
    """Let a run that was stopped early wait for the next wave: requeue is forbidden, and the queue is full.

    Args:
        experiment: the planned experiment.
        number: the run's index, or the number of its pack.
        name: what SLURM calls the job that has run it, which still has a place in the queue.
        packed: True if it is a pack.

    Returns:
        False if the experiment was not submitted in waves, or in others.

    Raises:
        SettingsError: it could not be written down.
    """
    with only_submission(experiment.folder, PATIENCE):
        waves = read_waves(experiment)
        if waves is None or waves.packed != packed:
            return False
        todo = sorted({*waiting_elements(experiment, waves), number})
        replace(waves, todo=todo, jobs_before=len(experiment.jobs)).write(experiment)

    print(f"the queue is full: the {'pack' if packed else 'run'} waits for the next wave", flush=True)
    submit_next_wave(experiment, name)
    return True


def look(experiment: Experiment, name: str) -> str | None:
    """Submit the next wave if it is due.

    Args:
        experiment: the planned experiment.
        name: what SLURM calls the job that looks.

    Returns:
        None if there is nothing more for this job to do; else why it has to look again.

    Raises:
        SettingsError: SLURM refuses, or does not answer.
    """
    if not waiting(experiment):
        return None

    # A job that has not begun will look too, when it ends. So there is no need to wait for the lock.
    elements = experiment.queue()
    waves = read_waves(experiment)
    others = to_come(experiment, waves, elements, name) if waves else []
    if waves is None or (others_wait(others) and not is_due(waves, elements, others)):
        return None

    with only_submission(experiment.folder, PATIENCE):
        waves = read_waves(experiment)
        elements = experiment.queue()
        if waves is None:
            return None

        # What this job itself has run may be among what waits, see `join_next_wave`.
        batch = experiment.packed if waves.packed else experiment.batch
        arrays = [element for element in experiment.own(elements) if element.is_of(batch)]
        queued = {index_of(element) for element in arrays if element.name != name}
        left = [number for number in waiting_elements(experiment, waves) if number not in queued]
        if not left:
            return None

        others = to_come(experiment, waves, elements, name)
        if is_due(waves, elements, others):
            submit(experiment, left[: waves.room(elements)], waves, others)
            return None
        waves.with_look_of(name, elements).write(experiment)
    return None if others else "the queue is full, and this is the last job that could submit it"


def to_come(experiment: Experiment, waves: Waves, elements: Sequence[Element], name: str) -> list[Element]:
    """The jobs of an experiment that will look for the next wave at their end; that of this name is not among them."""
    found = []
    for element in experiment.own(elements):
        has_looked = element.name == name or element.name in waves.looked
        if element.is_of(*experiment.arrays) and element.state != "COMPLETING" and not has_looked:
            found.append(element)
    return found


def others_wait(others: Sequence[Element]) -> bool:
    """True if one of some jobs has not begun."""
    return any(element.state == "PENDING" for element in others)


def is_due(waves: Waves, elements: Sequence[Element], others: Sequence[Element]) -> bool:
    """True if there is room, and it is time: a part of the queue is free, or SLURM has nothing left to start."""
    least = max(1, min(limit.most for limit in waves.limits) // PART)
    room = waves.room(elements)
    return room >= least or (room > 0 and not others_wait(others))


def submit(experiment: Experiment, indices: Sequence[int], waves: Waves, others: Sequence[Element]) -> None:
    """Submit some runs or packs, as they were asked for."""
    throttle, depends = throttle_beside(waves.throttle, others)
    options = [*waves.options, *depends]
    calls = array_calls(experiment, indices, waves.array_limit, throttle, options, waves.packed)
    submitted = sbatch.submit_calls(calls, waves.submit, experiment.clusters, experiment.note_job)
    what = "pack" if waves.packed else "run"
    print(f"next wave: {counted(len(indices), what)}, job {', '.join(map(str, submitted))}", flush=True)
