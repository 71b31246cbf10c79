"""How an experiment stands, as a table for the terminal, and what the user may want to do next."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from ..printing import as_text
from ..settings.places import command
from .experiment import Experiment
from .standing import Standing
from .waves import read_waves, waiting


def table(stand: Sequence[Standing], width: int | None = None) -> str:
    """A line for each run: index, state, how far it is, its best metric, its name, and why it is not done.

    Args:
        stand: how the runs stand.
        width: columns of the terminal; longer lines are cut.
    """
    columns: dict[str, list[Any]] = {"run": [run.index for run in stand], "state": [run.state for run in stand]}
    monitored = [run.status["monitor"] for run in stand if run.status.get("monitor")]
    labels = {"best": f"best {monitored[0]}"} if monitored else {}
    for key in ("epoch", "step", "best", "attempt"):
        columns[labels.get(key, key)] = [run.status.get(key) for run in stand]

    columns["name"] = []
    for run in stand:
        reason = f" ({run.reason})" if run.reason else ""
        target = f" -> {os.readlink(run.folder)}" if run.folder.is_symlink() else ""
        columns["name"].append(run.folder.name + target + reason)
    return as_text(columns, width or shutil.get_terminal_size((160, 24)).columns, free="name")


def advice(experiment: Experiment, stand: Sequence[Standing], silence: str | None = None) -> list[str]:
    """What the user may want to know or do next.

    Args:
        experiment: the planned experiment.
        stand: how its runs stand.
        silence: why SLURM could not be asked, if it could not.
    """
    lines = []
    if silence:
        lines.append(f"{silence}. So only the runs' folders are shown, and what waits is not known")
    blocked = [run for run in stand if run.remedy]
    for run in blocked[:5]:
        lines.append(f"run {run.index} will not start by itself, {run.reason}: {run.remedy}")
    if len(blocked) > 5:
        lines.append(f"… and {len(blocked) - 5} more like these")
    in_waves = {run.index for run in waiting_for_a_wave(experiment, stand)}
    lines += about_waves(experiment, stand, len(in_waves), silence is None)
    active = any(run.job for run in stand)
    states = {run.state for run in stand if not (active and run.index in in_waves)}
    failed = [run for run in stand if run.state == "failed"]

    # The canary is the first run; the others wait for ever for one that has failed.
    first = stand[0]
    if experiment.canary.exists() and first.state == "failed" and "waiting" in states:
        lines.append(f"the canary (run {first.index}) has failed, so the others were not started: {first.reason}")
    if failed:
        lines.append(f"why run {failed[0].index} failed: {experiment.log(failed[0].index)}")
    behind = [run for run in stand if (run.status.get("mirror") or {}).get("problem")]
    if behind:
        problem = behind[0].status["mirror"]["problem"]
        push = command("Train.py", "push", behind[0].folder)
        lines.append(
            f"the mirror lacks the newest checkpoint of {len(behind)} run(s): {problem}. When it is mended: {push}"
        )
    if states & {"failed", "stopped", "lost", "waiting"}:
        lines.append(f"to continue: {command('SlurmTrain.py', 'retry', experiment.shown)}")
    return lines


def waiting_for_a_wave(experiment: Experiment, stand: Sequence[Standing]) -> list[Standing]:
    """The runs that are submitted when there is room in the queue."""
    left = set(waiting(experiment))
    return [run for run in stand if run.index in left and run.state not in ("done", "running", "pending")]


def about_waves(experiment: Experiment, stand: Sequence[Standing], count: int, queue_known: bool) -> list[str]:
    """What is to be known of runs that wait for the next wave.

    Args:
        experiment: the planned experiment.
        stand: how its runs stand.
        count: how many wait.
        queue_known: True if SLURM has answered.
    """
    waves = read_waves(experiment)
    if not count or waves is None:
        return []
    most = min(limit.most for limit in waves.limits)
    said = f"{count} wait for the next wave: one user may have {most} jobs in the queue"
    if queue_known and not any(run.job for run in stand):
        return [f"{said}, and no job is left that would submit them"]
    return [f"{said}, so jobs that end submit them"]
