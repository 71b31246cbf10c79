"""How an experiment stands, as a table for the terminal, and what the user may want to do next."""

import shutil
from collections.abc import Sequence

from .experiment import Experiment
from .standing import Standing


def table(stand: Sequence[Standing], width: int | None = None) -> str:
    """A line for each run: index, state, how far it is, its best metric, its name, and why it is not done.

    Args:
        stand: how the runs stand.
        width: columns of the terminal; longer lines are cut.
    """
    monitored = [run.status["monitor"] for run in stand if run.status.get("monitor")]
    best_name = f"best {monitored[0]}" if monitored else "best"
    rows = [("run", "state", "epoch", "step", best_name, "attempt", "name")]
    for run in stand:
        best = run.status.get("best")
        progress = [str(run.status.get(key, "")) for key in ("epoch", "step")]
        number = "" if best is None else f"{best:.4g}"
        reason = f"  ({run.reason})" if run.reason else ""
        attempt = str(run.status.get("attempt", ""))
        rows.append((str(run.index), run.state, *progress, number, attempt, run.folder.name + reason))

    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    width = width or shutil.get_terminal_size((160, 24)).columns
    lines = []
    for row in rows:
        cells = [cell.ljust(size) for cell, size in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[6]])[:width].rstrip())
    return "\n".join(lines)


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
    states = {run.state for run in stand}
    failed = [run for run in stand if run.state == "failed"]

    # The canary is the first run; the others wait for ever for one that has failed.
    first = stand[0]
    if experiment.canary.exists() and first.state == "failed" and "waiting" in states:
        lines.append(f"the canary (run {first.index}) has failed, so the others were not started: {first.reason}")
    if failed:
        lines.append(f"why run {failed[0].index} failed: {experiment.log(failed[0].index)}")
    if states & {"failed", "stopped", "lost", "waiting"}:
        lines.append(f"to continue: python SlurmTrain.py retry {experiment.shown}")
    return lines
