"""How the runs of an experiment stand: by their folders first, then by SLURM's queue, then by who holds their locks."""

import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..locks import Holder
from ..packing.packs import read_pack
from ..printing import counted
from ..runs.folder import RunFolder
from ..runs.identity import another_name
from ..scheduler.jobs import Element, endings
from .experiment import Experiment

STOPPED = ("preempted", "time limit")  # before its end, and to go on


@dataclass(frozen=True)
class Standing:
    """How one run stands.

    Attributes:
        index: its place in the manifest.
        folder: its folder, which may not exist yet.
        state: done, running, pending, failed, stopped, lost (its job has gone without a word) or waiting (no job yet).
        reason: why it is not done, where that is known.
        status: its status.json.
        job: what SLURM calls its job, while there is one.
        remedy: what to type, where its job would wait for ever.
    """

    index: int
    folder: Path
    state: str
    reason: str | None
    status: Mapping[str, Any]
    job: str | None = None
    remedy: str | None = None


def standings(experiment: Experiment, elements: Sequence[Element] | None = None) -> list[Standing]:
    """How every run stands: by its folder first, then by SLURM's queue, then by who holds its lock.

    Args:
        experiment: the planned experiment.
        elements: all jobs of its users, see `Experiment.queue`; None where SLURM does not answer, so that a run whose
            folder says `running` is taken to be.
    """
    # A run can have two elements, after a retry: what runs counts more than what waits, so it comes last.
    own = experiment.own(elements or ())
    waiting_first = sorted(own, key=lambda element: element.state != "PENDING")
    queued = {index: element for element in waiting_first for index in runs_in(experiment, element)}

    users = {*experiment.users, os.getuid()}
    others = [element for element in elements or () if element not in own]
    stand = []
    for row, folder in zip(experiment.rows, folders_of(experiment), strict=True):
        status = RunFolder(folder).status()
        element, holder = queued.get(row["index"]), None
        if element is None and status.get("state") != "done":
            element = job_of_its_own(status, others)
            holder = holder_of(folder, elements, users)
            if holder is None and status.get("state") == "running":
                status = RunFolder(folder).status()  # it may have ended between the two looks
        run = standing(row["index"], folder, status, element, elements is not None, holder)
        if element and element.is_of(experiment.packed) and run.state == "running" and status.get("state") in STOPPED:
            run = replace(run, reason=f"{status['state']}; goes on when the others of its pack have ended")
        stand.append(run)
    return with_endings(experiment, stand)


def folders_of(experiment: Experiment) -> list[Path]:
    """The folder of every run, the same as `existing_folder` finds for one, with a single look at all of them."""
    digits = {row["identity"][:8] for row in experiment.rows}
    identities = {}
    for path in experiment.folder.iterdir():
        if path.name[-8:] in digits and path.is_dir():
            identities[path.name] = RunFolder(path).status().get("identity")

    # One without an identity has not begun, or is of an early version: the digits of its name have to do, if it is
    # not the place of another run.
    planned = {row["folder"] for row in experiment.rows}
    names = {}
    for name, identity in identities.items():
        if identity or name not in planned:
            names[identity or name[-8:]] = name

    folders = []
    for row in experiment.rows:
        name, identity = row["folder"], row["identity"]
        if name not in identities or identities[name] not in (None, identity):
            # Started by hand, a run has another name; and a folder of this name may be that of another run.
            name = names.get(identity) or names.get(identity[:8]) or name
        if identities.get(name) not in (None, identity):
            name = another_name(name, set(identities))
        folders.append(experiment.folder / name)
    return folders


def job_of_its_own(status: Mapping[str, Any], others: Sequence[Element]) -> Element | None:
    """The job of a run that somebody has submitted by itself, with slurm/train.sbatch for example, while it waits.

    One that runs may be an interactive session, which outlives its runs: whether it has this one is said by the lock.

    Args:
        status: the run's status.json.
        others: jobs that are not the experiment's.
    """
    for element in others:
        if element.own_id == status.get("slurm_job") and element.state == "PENDING":
            return element
    return None


def holder_of(folder: Path, elements: Sequence[Element] | None, users: Container[int]) -> Holder | None:
    """Who runs in a folder, outside the experiment's own jobs; None if nobody does.

    Args:
        folder: the run's folder.
        elements: all jobs of some users; None where SLURM does not answer.
        users: numeric ids of these users.
    """
    holder = RunFolder(folder).holder()
    if holder is None or holder.certain or elements is None:
        return holder

    # SLURM knows better than a file what has become of its job.
    job = holder.owner.get("job")
    has_started = {element.own_id for element in elements if element.state != "PENDING"}
    if job and holder.owner.get("uid") in users and job not in has_started:
        return None
    return holder


def standing(
    index: int,
    folder: Path,
    status: Mapping[str, Any],
    element: Element | None,
    asked: bool,
    holder: Holder | None = None,
) -> Standing:
    """One run's state from its status.json, its job and its lock. Unknown is not failed.

    Args:
        index: its place in the manifest.
        folder: its folder.
        status: its status.json.
        element: its job, as far as SLURM has not finished with it.
        asked: True if SLURM has answered, so that no job means that there is none.
        holder: who runs it by hand.
    """
    state, reason, remedy = status.get("state"), status.get("reason"), None

    # The folder is the truth: what is done stays done, whatever SLURM still has of it.
    if state == "done":
        shown, why = "done", None
    # A job that waits or runs will decide what becomes of the run, whatever the folder says of its last attempt.
    elif element and element.state == "PENDING":
        shown = "pending"
        why, remedy = why_it_waits(state, element)
    elif element:
        shown, why = "running", None if state == "running" else "starting or ending"
    elif holder:
        shown, why = "running", f"by hand: {holder}"
    # No job, so the folder has the last word.
    elif state is None:
        shown, why = "waiting", reason
    elif state == "failed":
        shown, why = "failed", reason
    elif state == "running" and status.get("fetched"):
        shown, why = "running", f"on {status['fetched']['host']}, as its mirror said at {status['fetched']['time']}"
    elif state == "running" and asked:
        shown, why = "lost", "its job has gone without a word: killed, out of memory or out of time"
    elif state == "running":
        shown, why = "running", None
    else:
        shown, why = "stopped", reason or state
    return Standing(index, folder, shown, why, status, element.name if element else None, remedy)


def why_it_waits(state: str | None, element: Element) -> tuple[str, str | None]:
    """Why a job waits, and what to type if it would wait for ever."""
    cluster = f" --clusters={element.cluster}" if element.cluster else ""
    word = element.reason.lower()
    if "held" in word or "hold" in word:
        return f"held by SLURM: {element.reason}", f"scontrol{cluster} release {element.name}"
    if element.reason == "DependencyNeverSatisfied":
        return "what it waits for can never come about", f"scancel{cluster} {element.name}"
    if state:
        return f"resumes after: {state} ({element.reason})", None
    return element.reason, None


def with_endings(experiment: Experiment, stand: Sequence[Standing]) -> list[Standing]:
    """The same, where SLURM keeps accounts with how the jobs of lost runs have ended."""
    jobs = {run.index: run.status["slurm_job"] for run in stand if run.state == "lost" and run.status.get("slurm_job")}

    # The same number can be another job on another cluster.
    clusters = {row["cluster"] for row in experiment.jobs} or {None}
    if len(clusters) > 1:
        return list(stand)

    ended = endings(list(jobs.values()), clusters.pop())
    completed = []
    for run in stand:
        ending = ended.get(jobs.get(run.index, ""))
        completed.append(replace(run, reason=f"its job has ended: {ending}") if ending else run)
    return completed


def index_of(element: Element) -> int:
    """The run, or the pack, that is an element of an array: its task plus the batch file's argument, the offset."""
    last = element.batch.rpartition(" ")[2]
    return (element.task or 0) + (int(last) if last.isdigit() else 0)


def runs_in(experiment: Experiment, element: Element) -> list[int]:
    """The indices of the runs that one of an experiment's jobs has to do; [] for one that only says how it ended."""
    if element.is_of(experiment.notify):
        return []
    if element.is_of(experiment.packed):
        return read_pack(experiment.folder, index_of(element)).left
    return [index_of(element)]


ORDER = ("done", "running", "pending", "stopped", "lost", "failed", "waiting")


def counts(stand: Sequence[Standing]) -> str:
    """`108 runs: 40 done, 10 running, 58 pending`."""
    number = Counter(run.state for run in stand)
    return f"{counted(len(stand), 'run')}: " + ", ".join(f"{number[state]} {state}" for state in ORDER if number[state])
