"""How an experiment stands, as text."""

import shutil
from collections import Counter
from collections.abc import Sequence

from .experiment import Experiment, Standing

ORDER = ("done", "running", "pending", "stopped", "lost", "failed", "waiting")


def counts(standings: Sequence[Standing]) -> str:
    """`108 runs: 40 done, 10 running, 58 pending`."""
    number = Counter(each.state for each in standings)
    return f"{len(standings)} runs: " + ", ".join(f"{number[state]} {state}" for state in ORDER if number[state])


def table(experiment: Experiment, standings: Sequence[Standing], width: int | None = None) -> str:
    """A line for each run: index, state, how far it is, its best metric, its name, and why it is not done.

    Args:
        width: columns of the terminal; longer lines are cut.
    """
    rows = [("run", "state", "epoch", "step", best_name(standings), "attempt", "name")]
    for each in standings:
        status, best = each.status, each.status.get("best")
        rows.append(
            (
                str(each.index), each.state, *(str(status.get(key, "")) for key in ("epoch", "step")),
                "" if best is None else f"{best:.4g}", str(status.get("attempt", "")),
                each.folder.name + (f"  ({each.reason})" if each.reason else ""),
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    width = width or shutil.get_terminal_size((160, 24)).columns
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[6]]) for row in rows]
    return "\n".join(line[:width].rstrip() for line in lines)


def best_name(standings: Sequence[Standing]) -> str:
    """What the column of best values is called: `best val/loss`."""
    return next((f"best {each.status['monitor']}" for each in standings if each.status.get("monitor")), "best")


def advice(experiment: Experiment, standings: Sequence[Standing], queue_known: bool) -> list[str]:
    """What the user may want to know or do next."""
    lines = [] if queue_known else ["squeue does not answer here, so only the runs' folders are shown"]
    states = {each.state for each in standings}
    failed = [each for each in standings if each.state == "failed"]
    first = standings[0]
    if experiment.canary.exists() and first.state == "failed" and "waiting" in states:
        lines.append(f"the canary (run {first.index}) has failed, so the others were not started: {first.reason}")
    if failed:
        lines.append(f"why run {failed[0].index} failed: {experiment.log(failed[0].index)}")
    if states & {"failed", "stopped", "lost", "waiting"}:
        lines.append(f"to go on: python SlurmTrain.py retry {experiment.shown}")
    return lines
