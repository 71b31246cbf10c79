"""Back into the queue: what was stopped early, if nobody has cancelled it, under the same job id or as a new job."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..experiments.experiment import Experiment
from ..runs.owner import restarts
from ..scheduler import jobs, sbatch
from ..scheduler.commands import LONG_PAUSES, NoAnswer
from ..settings.command_line import take_options
from ..settings.errors import SettingsError
from .next_wave import join_next_wave

# What ends a job early and is no reason to give up: the states of runs, and the exit codes of agents.
COMES_BACK = ("preempted", "time limit")


# What sbatch says where a user's queue is full.
FULL = re.compile("MaxSubmitJob|job submit limit")


class NotPutBack(SettingsError):
    """What was stopped early could not be put back into the queue; the message says why."""


def put_back(state: str, arguments: Sequence[str], max_requeues: int, resubmit: Path | None) -> str | None:
    """The one decision whether what has ended goes back into the queue, for runs and agents; and its execution.

    Args:
        state: how it ended, see EXIT_CODES.
        arguments: the job's own, for the case that it is submitted anew.
        max_requeues: how often it may be put back.
        resubmit: the batch file, to be submitted anew where requeue is forbidden.

    Returns:
        why it must be given up, or None.

    Raises:
        NotPutBack: SLURM refuses, or does not answer for minutes.
    """
    if state not in COMES_BACK:
        return None
    # A job that is no longer RUNNING was cancelled, and requeue would undo that, or SLURM itself puts it back.
    if not still_running(state):
        return None
    if restarts() >= max_requeues:
        return f"put back into the queue {restarts()} times, which is max_requeues"

    how = "submitted again" if resubmit else "put back into the queue"
    print(f"{state}: {how}, to resume from the checkpoint", flush=True)
    problem = submit_again(resubmit, arguments) if resubmit else jobs.requeue(element(), LONG_PAUSES)
    if problem:
        raise NotPutBack(f"not {how}: {problem}")
    return None


def still_running(state: str) -> bool:
    """True if SLURM says that this job is running, so that it was not cancelled.

    Raises:
        NotPutBack: SLURM does not answer for minutes.
    """
    # The time limit is announced by a signal that a cancelled job does not get. And there is little time to ask.
    announced = state == "time limit"
    try:
        found = jobs.state_of(element(), () if announced else LONG_PAUSES)
    except NoAnswer as error:
        if announced:
            return True
        raise NotPutBack(f"not put back into the queue: {error}; so nobody knows whether it was cancelled") from None

    if found != "RUNNING":
        print(f"{state}: SLURM has this job as {found or 'unknown'}, so it is left to SLURM", flush=True)
    return found == "RUNNING"


def element() -> str:
    """The name of this job, or of this one element of its array: an array's id alone would mean all elements."""
    job = os.environ
    if "SLURM_ARRAY_TASK_ID" in job:
        return f"{job['SLURM_ARRAY_JOB_ID']}_{job['SLURM_ARRAY_TASK_ID']}"
    return job["SLURM_JOB_ID"]


def submit_again(batch: Path, arguments: Sequence[str]) -> str | None:
    """Submit this job, or this element of its array, anew, counting how often; what SLURM said if it would not."""
    # Of an experiment's batch file, which adds the folder, the index and for a canary the option.
    folders, _ = take_options(arguments, "--run")
    elements, _ = take_options(arguments, "--index", "--pack")
    canaries, _ = take_options(arguments, "--canary")
    packed = "--pack" in arguments

    options, batch_arguments = [], list(arguments)
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if task is not None:
        options = in_its_lane(int(task))
    if task is not None and elements:
        # What the batch file itself gets is where its array starts.
        offset = int(elements[0]) - int(task)
        options += sbatch.log_option(Path(folders[0]) / "logs", offset, packed)
        batch_arguments = [str(offset)] if offset else []

    # sbatch hands the environment on.
    os.environ["RESUBMITTED"] = str(restarts() + 1)
    job_now = os.environ.get("SLURM_JOB_ID")
    if job_now:
        os.environ.setdefault("RESUBMITTED_FROM", job_now)

    try:
        job = sbatch.submit_job([*options, str(batch), *batch_arguments])
        if elements and canaries:
            wait_for_canary(Experiment(folders[0]), job)
    except SettingsError as error:
        may_wait = elements and not canaries and FULL.search(str(error))
        if may_wait and join_next_wave(Experiment(folders[0]), int(elements[0]), element(), packed):
            return None
        return str(error)
    return None


def in_its_lane(task: int) -> list[str]:
    """sbatch's options for an array element that is submitted anew, so that its array's throttle still holds.

    A throttle of K makes K lanes, to begin when the array has ended. Those in a lane have the same name, and SLURM
    starts one of them at a time.

    Args:
        task: the index in the array.
    """
    throttle = jobs.throttle_of(element())
    if throttle is None:
        return [f"--array={task}"]

    name = re.sub(r"-lane\d+$", "", os.environ["SLURM_JOB_NAME"])
    wait = f"afterany:{os.environ['SLURM_ARRAY_JOB_ID']},singleton"
    return [f"--array={task}%{throttle}", f"--job-name={name}-lane{task % throttle}", f"--dependency={wait}"]


def wait_for_canary(experiment: Experiment, canary: sbatch.Job) -> None:
    """Let the arrays of an experiment wait for its canary under the job id that it has now.

    Raises:
        NoAnswer: SLURM refuses, or does not answer.
    """
    # The old canary ends as failed, since it has not got through; SLURM would cancel what waits for it.
    waiting = {part.job for part in jobs.queue(pauses=LONG_PAUSES) if part.is_of(*experiment.arrays) and part.depends}
    for job in sorted(waiting):
        jobs.wait_for(job, f"afterok:{canary.id}", LONG_PAUSES)
