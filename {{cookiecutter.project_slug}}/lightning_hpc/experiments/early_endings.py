"""Jobs that ended before their runs began, while they set up modules for example: told by what the batch file notes."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .experiment import Experiment
from .standing import Standing


def with_early_endings(experiment: Experiment, stand: Sequence[Standing], queue_known: bool) -> list[Standing]:
    """How runs stand, with those whose last job ended before Train.py began, while it set up modules for example.

    Args:
        experiment: the planned experiment.
        stand: how its runs stand.
        queue_known: True if SLURM has answered; otherwise that job may still be there.
    """
    completed = []
    for run in stand:
        has_no_job = queue_known and run.job is None and run.state not in ("done", "running")
        if has_no_job and ended_early(experiment, run):
            last = experiment.last_job(run.index)
            why = f"job {last['job']} ended on {last['node']} before Train.py began: {last_line(Path(last['log']))}"
            run = replace(run, state="failed", reason=why)
        completed.append(run)
    return completed


def ended_early(experiment: Experiment, run: Standing) -> bool:
    """True if the last job of a run has begun and its Train.py has not."""
    last = experiment.last_job(run.index)
    if len(last) < 4:
        return False
    if (run.status.get("slurm_job"), str(run.status.get("restarts"))) == (last["job"], last["restarts"]):
        return False

    # Afterwards, somebody may have started the run by hand, or the job itself has found out what this function does.
    note, status = experiment.note(run.index), run.folder / "status.json"
    return not status.exists() or note.stat().st_mtime > status.stat().st_mtime


def last_line(log: Path) -> str:
    """The last line of a log with something in it, cut to a readable length."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return f"its log, {log}, can't be read"
    written = [line.strip() for line in lines if line.strip()]
    if not written:
        return f"its log, {log}, is empty"
    return re.sub(r"^\S*/slurm_script: ", "", written[-1])[:200]  # SLURM's own copy of the batch file
