"""What is left to do when a run's processes have ended inside a job: go on later, or say how it ended.

The batch file calls this after srun. Why here and not in a signal handler: a handler that requeues must also save, in
the middle of whatever the ranks are doing, and deadlocks (Lightning #21406). What decides is status.json, which the run
itself has written: srun's exit code can be 0 after a node has failed.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs.folder import EXIT_CODES, RunFolder, restarts
from ..runs.request import request, take_options
from ..runs.settings import SettingsError
from . import sbatch
from .submit import log_option


def finish(arguments: Sequence[str], root: Path, max_requeues: int, resubmit: Path | None = None) -> int:
    """Put a run that was stopped back into the queue; returns the job's exit code.

    Args:
        arguments: what followed `Train.py fit`.
        root: the folder of the code.
        max_requeues: how often the run may be put back; then it counts as failed.
        resubmit: the batch file, to be submitted anew where requeue is forbidden.
    """
    wanted = request("fit", arguments, root)
    folder, status = wanted.folder, wanted.folder.status()
    state, name = status.get("state"), element()
    if state == "done":
        return EXIT_CODES["done"]  # now or before: a canary may have got to the end
    if (status.get("slurm_job"), status.get("restarts")) != (os.environ.get("SLURM_JOB_ID"), restarts()):
        return give_up(folder, f"ended before it began on {os.uname().nodename}: see its log")
    if wanted.settings.flat.get("canary") and status.get("canary") == "passed" and state == "interrupted":
        return 0  # it was only to get through its first validation
    if state in ("failed", "interrupted"):
        return EXIT_CODES[state]
    if state == "running":
        state = "preempted"
        folder.update(state=state, reason="killed without a word: out of memory, or a node has failed")
    # A job that is no longer RUNNING was cancelled, and requeue would undo that, or SLURM itself puts it back.
    if sbatch.state_of(name) != "RUNNING":
        return EXIT_CODES[state]
    if restarts() >= max_requeues:
        return give_up(folder, f"put back into the queue {restarts()} times, which is max_requeues")
    print(
        f"{state}: {'submitted again' if resubmit else 'put back into the queue'}, to go on from the checkpoint",
        flush=True,
    )
    if problem := submit_again(resubmit, arguments) if resubmit else sbatch.requeue(name):
        print(f"error: {problem}. To go on: SlurmTrain.py retry, or submit it again", file=sys.stderr)
    return EXIT_CODES[state]


def element() -> str:
    """The name of this job, or of this one element of its array: an array's id alone would mean all elements."""
    job = os.environ
    if "SLURM_ARRAY_TASK_ID" in job:
        return f"{job['SLURM_ARRAY_JOB_ID']}_{job['SLURM_ARRAY_TASK_ID']}"
    return job["SLURM_JOB_ID"]


def submit_again(batch: Path, arguments: Sequence[str]) -> str | None:
    """Submit this element anew, counting how often; what SLURM said if it would not."""
    task, options, extra = os.environ.get("SLURM_ARRAY_TASK_ID"), [], list(arguments)
    if task is not None:
        offset = int(take_options(arguments, "--index")[0][0]) - int(task)
        logs = Path(take_options(arguments, "--run")[0][0]) / "logs"
        options, extra = [f"--array={task}", *log_option(logs, offset)], [str(offset)] if offset else []
    os.environ["RESUBMITTED"] = str(restarts() + 1)  # sbatch hands the environment on
    try:
        sbatch.submit([*options, str(batch), *extra])
    except SettingsError as error:
        return str(error)
    return None


def give_up(folder: RunFolder, reason: str) -> int:
    """The run has failed: say why, in its folder and in the log."""
    print(f"error: {reason}", file=sys.stderr)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.update(state="failed", reason=reason, exit_code=EXIT_CODES["failed"])
    return EXIT_CODES["failed"]
