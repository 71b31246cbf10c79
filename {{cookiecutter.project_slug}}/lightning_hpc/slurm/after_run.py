"""What is left to do when a run's processes have ended inside a job: put it back into the queue, or say how it ended.

The batch file calls this after srun, or after an agent of a sweep. Why here and not in a signal handler: a handler that
requeues must also save, in the middle of whatever the ranks are doing, and deadlocks (Lightning #21406). What decides
is status.json, which the run itself has written: srun's exit code can be 0 after a node has failed. An agent runs
through many folders, so there it is the agent's exit code.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arrays.next_wave import submit_next_wave
from ..arrays.put_back import NotPutBack, element, put_back
from ..experiments.experiment import Experiment
from ..experiments.waves import waiting
from ..failures import noted_cause
from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.owner import owner, restarts
from ..runs.run import Run, read_command_line
from ..scheduler import jobs
from ..scheduler.commands import LONG_PAUSES, NoAnswer
from ..settings.command_line import take_options
from ..settings.errors import SettingsError

# How a job is that SLURM has finished with.
ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)


def finish(
    arguments: Sequence[str], root: Path, max_requeues: int, resubmit: Path | None = None, sliced: str | None = None
) -> int:
    """Put a run that was stopped back into the queue; after one that has ended, submit the next wave if it is due.

    Args, returns: see `end_of_run`.
    """
    code = end_of_run(arguments, root, max_requeues, resubmit, sliced)
    if code in (EXIT_CODES["done"], EXIT_CODES["failed"]):
        make_room(arguments)
    return code


def make_room(arguments: Sequence[str]) -> None:
    """Submit more runs of this one's experiment where its queue is limited; not after a canary or a `scancel`.

    Args:
        arguments: what followed `Train.py fit`; or those of a pack.
    """
    folders, rest = take_options(arguments, "--run")
    elements, rest = take_options(rest, "--index", "--pack")
    canary, _ = take_options(rest, "--canary")
    if not (folders and elements) or canary or "SLURM_JOB_ID" not in os.environ:
        return

    experiment = Experiment(folders[0])
    if not waiting(experiment):
        return
    try:
        cancelled = jobs.state_of(element(), LONG_PAUSES) != "RUNNING"
    except NoAnswer as error:
        print(f"error: the next wave was not submitted: {error}", file=sys.stderr)
        return
    if not cancelled:
        submit_next_wave(experiment, element())


def end_of_run(
    arguments: Sequence[str], root: Path, max_requeues: int, resubmit: Path | None = None, sliced: str | None = None
) -> int:
    """Put a run that was stopped back into the queue.

    Args:
        arguments: what followed `Train.py fit`.
        root: the folder of the code.
        max_requeues: how often the run may be put back; then it counts as failed.
        resubmit: the batch file, to be submitted anew where requeue is forbidden.
        sliced: how long this job was allowed to be, where the run goes on from one short job to the next; None: it had
            all of the run's time.

    Returns:
        the job's exit code.
    """
    run = read_command_line("fit", arguments, root)
    state = state_after(run, sliced)
    return put_runs_back({run.folder: state}, state, arguments, max_requeues, resubmit)


def state_after(run: Run, sliced: str | None = None) -> str:
    """How a run stands after its processes have ended in this job: one of EXIT_CODES, written down where it was not.

    Args:
        run: the run, as its command line was read.
        sliced: see `end_of_run`.
    """
    folder, status = run.folder, run.folder.status()
    state = status.get("state")
    if state == "done":
        return state  # now or before: a canary may have got to the end

    # Only its owner writes a run's status.
    this_attempt = (os.environ.get("SLURM_JOB_ID"), restarts())
    if (status.get("slurm_job"), status.get("restarts")) != this_attempt:
        return never_began(folder)
    if run.settings.flat.get("canary") and status.get("canary") == "passed" and state == "interrupted":
        return "done"  # it was only to get through its first validation
    cause = noted_cause(folder.path) if state == "running" else None
    if cause is not None and not cause.killed:  # rank 0 was ended with the others, before it could say why
        return give_up(folder, cause.reason)
    if state == "running":
        state = "preempted"
        folder.update(state=state, reason="killed without a word: out of memory, or a node has failed")
    if sliced and state == "time limit" and not folder.advanced():
        return give_up(folder, no_progress(status, sliced))
    return state


def put_runs_back(
    states: Mapping[RunFolder, str], state: str, arguments: Sequence[str], max_requeues: int, resubmit: Path | None
) -> int:
    """Put a job back into the queue for the runs that were stopped early; returns the job's exit code.

    Args:
        states: the runs of the job that go on with it, and how each was stopped.
        state: how the job was stopped.
        arguments, max_requeues, resubmit: see `put_back`.
    """
    try:
        problem = put_back(state, arguments, max_requeues, resubmit)
    except NotPutBack as error:
        print(f"error: {error}. To continue: SlurmTrain.py retry, or submit it again", file=sys.stderr)
        for folder, stopped in states.items():
            folder.update(reason=f"{stopped}; {error}")
        return EXIT_CODES[state]
    if problem:
        for folder in states:
            give_up(folder, problem)
        return EXIT_CODES["failed"]
    return EXIT_CODES[state]


def finish_agent(code: int, arguments: Sequence[str], max_requeues: int, resubmit: Path | None = None) -> int:
    """Put an agent of a sweep that was stopped back into the queue.

    Args:
        code: the agent's exit code.
        arguments: what followed SweepAgent.py.
        max_requeues: how often the agent may be put back.
        resubmit: the batch file, to be submitted anew where requeue is forbidden.

    Returns:
        the job's exit code, which is the agent's.
    """
    states = {number: state for state, number in EXIT_CODES.items()}
    try:
        problem = put_back(states.get(code, "failed"), arguments, max_requeues, resubmit)
    except NotPutBack as error:
        problem = f"{error}. To continue: submit it again"
    if problem:
        print(f"error: {problem}", file=sys.stderr)
    return code


def never_began(folder: RunFolder) -> str:
    """Note that this job has ended before its run began, unless the run is another's; returns the state, failed."""
    status = folder.status()
    other = status.get("slurm_job")
    if other and other != os.environ.get("SLURM_JOB_ID") and status.get("state") != "failed":
        try:
            found = jobs.state_of(other, LONG_PAUSES)
        except NoAnswer as error:
            found = str(error)
        if found is not None and found not in ENDED:
            print(f"error: this job has not begun: the run is that of job {other} ({found})", file=sys.stderr)
            return "failed"

    # Whoever runs it by hand, or in another job, holds its lock.
    try:
        with folder.locked():
            return give_up(folder, f"ended before it began on {os.uname().nodename}: see its log")
    except SettingsError as error:
        print(f"error: this job has not begun: {error}", file=sys.stderr)
        return "failed"


def no_progress(status: Mapping[str, Any], sliced: str) -> str:
    """Why a run that has saved nothing new in a whole slice has failed.

    Args:
        status: the run's status.json.
        sliced: how long the slice was.
    """
    start = status.get("start_seconds")
    measured = "no batch was reached" if start is None else f"this one took {start:.3g} s"
    return (
        f"no progress in a slice of {sliced}: still at step {status.get('step', 0)}. It has to hold a start "
        f"({measured}), a save, and a whole validation or test: ask for a longer --slice"
    )


def give_up(folder: RunFolder, reason: str) -> str:
    """Note in the run's folder and in the log that the run has failed, and why; returns the state, failed."""
    print(f"error: {reason}", file=sys.stderr)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.update(state="failed", reason=reason, exit_code=EXIT_CODES["failed"], **owner())
    return "failed"
