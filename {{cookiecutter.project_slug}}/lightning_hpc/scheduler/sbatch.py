"""sbatch: submitting jobs, each of them once even where the answer is lost; and what it takes, as it reads it."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..settings.errors import SettingsError
from . import commands, jobs
from .commands import NoAnswer, call, submission_environment, words

# What a busy controller says: the same call may work in a moment. Everything else is passed on at once.
TRANSIENT = re.compile(
    "timed out|unable to contact|temporarily (unavailable|unable)|zero bytes|connection (refused|reset)|try again",
    re.IGNORECASE,
)


class Job(NamedTuple):
    """A job that was submitted: its id, and the name of its cluster if that is not this machine's own."""

    id: str
    cluster: str | None = None

    def __str__(self) -> str:
        return f"{self.id} on {self.cluster}" if self.cluster else self.id


def submit_job(arguments: Sequence[str], command: str = "sbatch", clusters: Iterable[str] = ()) -> Job:
    """Submit a batch file. A controller that is busy is asked again, a few times, unless the job has arrived.

    Args:
        arguments: options, the batch file, its arguments.
        command: the cluster's own sbatch, such as ghbatch; plain sbatch is used where that is not installed.
        clusters: names of other clusters to which the job may go.

    Raises:
        NoAnswer: it may have been submitted or not, and the queue can't be asked.
        SettingsError: SLURM refuses; what it said, in one line.
    """
    command = command if shutil.which(command) else "sbatch"
    batch = next((argument for argument in arguments if not argument.startswith("-")), "")
    variables = submission_environment(batch)

    # Where a profile sends jobs to other clusters, they are looked for there, too.
    elsewhere = variables.get("SBATCH_CLUSTERS") or variables.get("SLURM_CLUSTERS") or ""
    clusters = {*clusters, *(name for name in elsewhere.split(",") if name and name != "all")}
    try:
        before = {element.job for element in jobs.queue(clusters=clusters, pauses=commands.PAUSES)}
    except NoAnswer:
        before = None  # then one try is all, unless sbatch refuses

    said = ""
    for number, pause in enumerate((*commands.PAUSES, 0)):
        done = call([command, "--parsable", *arguments], variables=variables)
        answer = read_answer(done.stdout) if done.returncode == 0 else None
        if answer:
            # A job of an earlier try can arrive late, beside this one.
            if number and before is not None:
                cancel_others(arguments, before, clusters, answer)
            return answer

        said = words(done).removeprefix("sbatch: error: ")
        if done.returncode != 0 and not TRANSIENT.search(said):
            raise SettingsError(f"{command} refused: {said}")
        if pause:
            print(f"{command}: {said}; looking in the queue in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)

        # The answer may have been lost, and not the question.
        arrived = arrivals(arguments, before, clusters, f"{command}: {said}")
        if arrived:
            return arrived[0]
        if done.returncode == 0:
            raise SettingsError(f"{command} has said no job id, and the queue has no such job. It said: {said}")
    raise SettingsError(f"{command} refused: {said}")


def read_answer(text: str) -> Job | None:
    """The job in what `sbatch --parsable` prints: JOB or JOB;CLUSTER in a line of its own, with notices around it.

    A site's wrapper may not know --parsable: then its sentence is read.
    """
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"(\d+)(?:;(\S+))?", line.strip())
        if match:
            return Job(match[1], match[2])
    match = re.search(r"Submitted batch job (\d+)(?: on cluster (\S+))?", text)
    return Job(match[1], match[2]) if match else None


def arrivals(arguments: Sequence[str], before: set[str] | None, clusters: Iterable[str], said: str) -> list[Job]:
    """The jobs in the queue that a call of sbatch has made, whose answer was lost.

    Args:
        arguments: those of the call.
        before: the jobs that were in the queue before it; None: not known.
        clusters: where to look, beside this machine's own cluster.
        said: what sbatch said.

    Raises:
        NoAnswer: the queue can't be asked, so nobody knows.
    """
    unknown = "so the job may have been submitted or not. Nothing is submitted a second time"
    if before is None:
        raise NoAnswer("squeue", f"{said}; {unknown}")
    try:
        elements = jobs.queue(clusters=clusters, pauses=commands.PAUSES)
    except NoAnswer as error:
        raise NoAnswer("squeue", f"{error.said}. And {said}; {unknown}") from None

    # Others may submit with the same batch file at this moment: the elements of a sweep's agents do.
    tasks, batch = asked_for(arguments)
    found: dict[Job, set[int | None]] = {}
    for element in elements:
        if element.job not in before and element.batch == batch:
            found.setdefault(Job(element.job, element.cluster), set()).add(element.task)
    return sorted((job for job, its in found.items() if its <= tasks), key=lambda job: int(job.id))


def asked_for(arguments: Sequence[str]) -> tuple[set[int | None], str]:
    """The array indices of a call of sbatch, {None} without an array, and the command as squeue shows it."""
    tasks: set[int | None] = {None}
    for position, argument in enumerate(arguments):
        if argument.startswith("--array="):
            tasks = set(read_array(argument.removeprefix("--array=")))
        if not argument.startswith("-"):
            batch = " ".join([os.path.abspath(argument), *arguments[position + 1 :]])
            return tasks, batch
    return tasks, ""


def read_array(text: str) -> list[int]:
    """The indices in sbatch's way of writing them, see `array`."""
    indices: list[int] = []
    for span in text.partition("%")[0].split(","):
        first, _, last = span.partition("-")
        indices += range(int(first), int(last or first) + 1)
    return indices


def cancel_others(arguments: Sequence[str], before: set[str], clusters: Iterable[str], kept: Job) -> None:
    """Cancel what earlier tries of the same call have submitted beside the job that is kept."""
    for job in arrivals(arguments, before, clusters, "more than one try has arrived"):
        if job.id != kept.id:
            jobs.cancel([job.id], job.cluster)


def submit_calls(
    calls: Sequence[Sequence[str]],
    command: str,
    clusters: Iterable[str] = (),
    note: Callable[[Job, Sequence[str]], None] = lambda job, arguments: None,
) -> list[Job]:
    """Make sbatch calls that depend on each other; returns the jobs.

    Args:
        calls: arguments of each. In an option --dependency, ID stands for the first job, or after `afterany:` for all
            jobs so far.
        command: see `submit_job`.
        clusters: see `submit_job`.
        note: told of each job as soon as it is submitted.

    Raises:
        SettingsError: SLURM refused one; what was submitted before it is cancelled where it would be of no use.
    """
    submitted: list[Job] = []
    for arguments in calls:
        after_all = any("afterany:ID" in argument for argument in arguments)
        ids = [job.id for job in submitted]
        depends = ":".join(ids if after_all else ids[:1])
        known = []
        for argument in arguments:  # only there: a folder's name may hold :ID too
            known.append(argument.replace(":ID", f":{depends}") if argument.startswith("--dep") else argument)
        try:
            job = submit_job(known, command, clusters)
        except NoAnswer as error:  # what was submitted may be waited for
            raise SettingsError(f"{error}{withdrawn(submitted, useless=False)}") from None
        except SettingsError as error:
            canary_alone = "afterok:ID" in " ".join(arguments)
            raise SettingsError(f"{error}{withdrawn(submitted, useless=canary_alone)}") from None
        submitted.append(job)
        note(job, known)
    return submitted


def withdrawn(submitted: Sequence[Job], useless: bool) -> str:
    """Cancel what was submitted before a call that was refused, if it is of no use alone; returns the message's end."""
    if not submitted:
        return ""
    names = ", ".join(str(job) for job in submitted)
    if not useless:
        return f"; submitted before that: {names}"
    try:
        for job in submitted:
            jobs.cancel([job.id], job.cluster)
    except SettingsError as error:  # it must not hide why
        return f"; submitted before that, and still there: {names} ({error})"
    return f"; submitted before that, and cancelled: {names}"


def array(indices: Sequence[int], throttle: int | None) -> str:
    """sbatch's way of writing indices: 0-7,12,14%4."""
    spans: list[list[int]] = []  # first and last of each
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    written = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    limited = throttle is not None and throttle < len(indices)
    return ",".join(written) + (f"%{throttle}" if limited else "")


def chunks(indices: Sequence[int], limit: int, throttle: int | None) -> list[tuple[int, str]]:
    """Indices as few arrays as a cluster allows: each array's offset, and its indices counted from there.

    Args:
        indices: of runs, ascending.
        limit: the cluster's MaxArraySize: array indices must be smaller.
        throttle: most elements at a time over all arrays; shared out among them.
    """
    # Indices below the limit are the run's own in the first array, so most experiments need no offset.
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(index // limit * limit, []).append(index % limit)
    share = max(1, throttle // len(groups)) if throttle and groups else None
    return [(offset, array(group, share)) for offset, group in groups.items()]


def log_option(logs: Path, offset: int, pack: bool = False) -> list[str]:
    """sbatch's option for the logs of an array that does not start at 0; the batch file has that of the first.

    Args:
        logs: the folder.
        offset: the run, or the pack, at which the array starts.
        pack: True if its elements are packs.
    """
    name = f"{'pack-' if pack else ''}{offset}+%a.log"
    return [f"--output={str(logs).replace('%', '%%')}/{name}"] if offset else []
