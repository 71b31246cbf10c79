"""SLURM's own commands. Every call of sbatch, squeue, scontrol and scancel is made here."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runs.settings import SettingsError

# What a busy controller says: the same call may work in a moment. Everything else is passed on at once.
TRANSIENT = re.compile(
    "timed out|unable to contact|temporarily (unavailable|unable)|zero bytes|connection (refused|reset)|try again",
    re.IGNORECASE,
)
PAUSES = (1, 5, 15, 45)  # seconds before each new try


@dataclass(frozen=True)
class Element:
    """A job, or one element of an array, that SLURM has not finished with.

    Attributes:
        job: job id; for an array that of the whole array.
        task: array index; None for a job without array.
        state: SLURM's word, such as PENDING, RUNNING or COMPLETING.
        reason: why it waits, as SLURM says it.
        batch: the batch file and its arguments.
    """

    job: str
    task: int | None
    state: str
    reason: str
    batch: str

    @property
    def name(self) -> str:
        """What scontrol and scancel call it: 123_7 for element 7 of array 123, whose own job id is another number."""
        return self.job if self.task is None else f"{self.job}_{self.task}"


def call(command: Sequence[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands.

    Raises:
        SettingsError: it is not installed here.
    """
    # A job submitted inside a job must not inherit that job's options; SLURM_CONF says where the cluster is.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_")) or k == "SLURM_CONF"}
    try:
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
    except FileNotFoundError:
        raise SettingsError(f"{command[0]} is not installed here: go to a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"timed out after {timeout:.0f} s")


def patiently(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands, again and again while the controller is busy. For calls that may be repeated."""
    for pause in (*PAUSES, None):
        done = call(command)
        if done.returncode == 0 or pause is None or not TRANSIENT.search(done.stderr):
            break
        time.sleep(pause)
    return done


def submit(arguments: Sequence[str], command: str = "sbatch") -> str:
    """Submit a batch file; returns the job id. A controller that is busy is asked again, a few times.

    Args:
        arguments: options, the batch file, its arguments.
        command: the cluster's own sbatch, such as ghbatch; plain sbatch is used where that is not installed.

    Raises:
        SettingsError: SLURM refuses, or has not answered; what it said, in one line.
    """
    command = command if shutil.which(command) else "sbatch"
    batch = next((each for each in arguments if not each.startswith("-")), "")
    before = {each.job for each in queue(batch) or []}
    for pause in (*PAUSES, None):
        done = call([command, "--parsable", *arguments])
        if done.returncode == 0:
            return done.stdout.strip().split("\n")[-1].split(";")[0]  # JOB;CLUSTER where there are several
        said = " ".join((done.stderr or done.stdout).split())
        if pause is None or not TRANSIENT.search(said):
            raise SettingsError(f"{command} refused: {said.removeprefix('sbatch: error: ')}")
        print(f"{command}: {said}; trying again in {pause} s", file=sys.stderr)
        time.sleep(pause)
        if arrived := {each.job for each in queue(batch) or []} - before:  # it had been heard after all
            return min(arrived)
    raise AssertionError("unreachable")


def queue(*batches: str | Path, patient: bool = False) -> list[Element] | None:
    """What SLURM still has of some batch files; None where it does not answer.

    Args:
        batches: paths, without arguments.
        patient: ask a busy controller again, up to a minute.
    """
    if not shutil.which("squeue"):
        return None
    done = (patiently if patient else call)(["squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%r|%o"])
    if done.returncode != 0:
        return None
    found = []
    for line in done.stdout.splitlines():
        job, task, state, reason, command = line.split("|", 4)
        if any(command == str(batch) or command.startswith(f"{batch} ") for batch in batches):
            found.append(Element(job, int(task) if task.isdigit() else None, state, reason, command))
    return found


def state_of(name: str) -> str | None:
    """The state of a job or array element, such as RUNNING or COMPLETING; None if SLURM does not answer."""
    done = patiently(["squeue", "--noheader", "--states=all", f"--jobs={name}", "--format=%T"])
    return done.stdout.strip() or None if done.returncode == 0 else None


def endings(jobs: Sequence[str]) -> dict[str, str]:
    """How jobs have ended, such as OUT_OF_MEMORY, by their own ids; {} on a cluster that keeps no accounts."""
    if not jobs or not shutil.which("sacct"):
        return {}
    done = call(
        ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}", "--format=JobIDRaw,State"]
    )
    return dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)


def requeue(name: str) -> str | None:
    """Put a running job or array element back into the queue; what SLURM said if it would not."""
    done = patiently(["scontrol", "requeue", name])
    return " ".join((done.stderr or done.stdout).split()) if done.returncode else None


def cancel(names: Sequence[str]) -> None:
    """Cancel jobs and array elements.

    Raises:
        SettingsError: SLURM refuses.
    """
    done = call(["scancel", *names])
    if done.returncode != 0:
        raise SettingsError(f"scancel refused: {' '.join(done.stderr.split())}")
