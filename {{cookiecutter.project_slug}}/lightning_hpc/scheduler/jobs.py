"""The jobs that SLURM has: which there are, how they are, how they have ended; to cancel them and to put them back."""

import os
import pwd
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings.errors import SettingsError
from .commands import NoAnswer, ask, call, words

MARK = "@|"  # begins each line that was asked for: a site's wrapper may print notices around them


@dataclass(frozen=True)
class Element:
    """A job, or one element of an array, that SLURM has not finished with.

    Attributes:
        job: job id; for an array that of the whole array.
        task: array index; None for a job without array.
        state: SLURM's word, such as PENDING, RUNNING or COMPLETING.
        reason: why it waits, as SLURM says it.
        batch: the batch file and its arguments.
        own_id: the job id of this element alone, as SLURM_JOB_ID has it inside; before it has started, the array's.
        uid: whose it is, as a number.
        depends: the jobs that it waits for, as SLURM writes them.
        cluster: the cluster's name; None: the one that this machine belongs to.
        partition: the partitions that may run it, with commas between them.
    """

    job: str
    task: int | None
    state: str
    reason: str
    batch: str
    own_id: str = ""
    uid: int | None = None
    depends: str = ""
    cluster: str | None = None
    partition: str = ""

    @property
    def name(self) -> str:
        """What scontrol and scancel call it: 123_7 for element 7 of array 123, whose own job id is another number."""
        return self.job if self.task is None else f"{self.job}_{self.task}"

    @property
    def user(self) -> str:
        """Whose it is, by name."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except (KeyError, TypeError):
            return str(self.uid)

    def is_of(self, *batches: str | Path) -> bool:
        """True if it runs one of these batch files, whatever its arguments are."""
        return any(self.batch == str(batch) or self.batch.startswith(f"{batch} ") for batch in batches)


# One line of squeue: MARK, then the attributes of an element; the command comes last, since it may hold anything.
FORMAT = MARK + "%F|%K|%T|%r|%A|%U|%P|%E|%o"


def queue(users: Iterable[int] = (), clusters: Iterable[str] = (), pauses: Sequence[float] = ()) -> list[Element]:
    """All jobs of some users that SLURM has not finished with.

    Args:
        users: their numeric ids; this user is always one of them.
        clusters: names of clusters to ask beside this machine's own.
        pauses: seconds before each new try, see `ask`.

    Raises:
        NoAnswer: one of the clusters does not answer. That is not an empty queue.
    """
    people = ",".join(str(user) for user in sorted({os.getuid(), *users}))
    options = ["--all", "--noheader", "--array", f"--user={people}", f"--format={FORMAT}"]
    elements = []
    for cluster in (None, *sorted(set(clusters))):
        where = [f"--clusters={cluster}"] if cluster else []
        for line in ask(["squeue", *where, *options], pauses).splitlines():
            if line.startswith(MARK):
                elements.append(read_element(line, cluster))
    return elements


def read_element(line: str, cluster: str | None) -> Element:
    """An element from its line of squeue."""
    job, task, state, reason, own_id, uid, partition, depends, batch = line.removeprefix(MARK).split("|", 8)
    index = int(task) if task.isdigit() else None
    depends = depends.replace("(null)", "")
    return Element(job, index, state, reason, batch, own_id, int(uid), depends, cluster, partition)


def state_of(name: str, pauses: Sequence[float] = ()) -> str | None:
    """The state of a job or array element, such as RUNNING or COMPLETING; None: SLURM has no such job.

    Raises:
        NoAnswer: nobody knows.
    """
    try:
        said = ask(["squeue", "--all", "--noheader", "--states=all", f"--jobs={name}", f"--format={MARK}%T"], pauses)
    except NoAnswer as error:
        if "invalid job id" in error.said.lower():
            return None
        raise
    states = [line.removeprefix(MARK) for line in said.splitlines() if line.startswith(MARK)]
    return states[0] if states else None


def throttle_of(name: str) -> int | None:
    """How many elements of its array may run at a time beside an array element; None: no limit, or nobody knows."""
    try:
        said = ask(["scontrol", "show", "job", name, "--oneliner"])
    except NoAnswer:
        return None
    match = re.search(r"\bArrayTaskThrottle=(\d+)", said)
    return int(match[1]) if match else None


def endings(jobs: Sequence[str], cluster: str | None = None) -> dict[str, str]:
    """How jobs have ended, such as OUT_OF_MEMORY, by their own ids; {} where nobody knows.

    Where no accounts are kept, SLURM still knows for some minutes.

    Args:
        jobs: ids as SLURM_JOB_ID has them.
        cluster: where they were; None: on this machine's cluster.
    """
    if not jobs:
        return {}
    where = [f"--clusters={cluster}"] if cluster else []
    those = f"--jobs={','.join(jobs)}"
    if shutil.which("sacct"):
        lines = ["--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,State"]
        done = call(["sacct", *where, *lines, those])
        if done.returncode == 0:
            return dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)

    try:
        said = ask(["squeue", *where, "--all", "--noheader", "--array", "--states=all", f"--format={MARK}%A|%T", those])
    except NoAnswer:
        return {}
    return dict(line.removeprefix(MARK).split("|", 1) for line in said.splitlines() if line.startswith(MARK))


def requeue(name: str, pauses: Sequence[float] = ()) -> str | None:
    """Put a running job or array element back into the queue; what SLURM said if it would not."""
    try:
        ask(["scontrol", "requeue", name], pauses)
    except NoAnswer as error:
        return f"scontrol: {error.said}"
    return None


def wait_for(job: str, dependency: str, pauses: Sequence[float] = ()) -> None:
    """Let a job that is in the queue wait for others than before.

    Args:
        job: its id; that of an array means all its elements.
        dependency: as sbatch's --dependency has it.
        pauses: see `ask`.

    Raises:
        NoAnswer: SLURM refuses, or does not answer.
    """
    ask(["scontrol", "update", f"JobId={job}", f"Dependency={dependency}"], pauses)


def cancel(names: Iterable[str], cluster: str | None = None) -> None:
    """Cancel jobs and array elements.

    Raises:
        SettingsError: SLURM refuses.
    """
    where = [f"--clusters={cluster}"] if cluster else []
    done = call(["scancel", *where, *names])
    if done.returncode != 0:
        raise SettingsError(f"scancel refused: {words(done)}")
