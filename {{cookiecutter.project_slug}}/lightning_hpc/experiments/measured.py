"""How long a start of a run and a save took, as the runs of a project have measured it in their jobs."""

from dataclasses import dataclass
from pathlib import Path

from ..runs.folder import RunFolder
from .links import folders_in

EXPERIMENTS, RUNS = 10, 50  # how many are looked at, the newest first: a folder may have thousands


@dataclass(frozen=True)
class Measured:
    """The longest start and the longest save of the runs of one experiment.

    Attributes:
        start: seconds from the beginning of a job to the end of the run's first batch.
        save: seconds that a checkpoint took to be written.
        experiment: the experiment's name.
    """

    start: float
    save: float
    experiment: str


def last_measured(runs: Path, experiment: str | None = None) -> Measured | None:
    """What was measured last in a folder of experiments; None if nothing was.

    Args:
        runs: the folder of all experiments.
        experiment: name of the one to look at first.
    """
    newest = sorted(folders_in(runs), key=lambda folder: folder.stat().st_mtime, reverse=True)
    newest.sort(key=lambda folder: folder.name != experiment)
    for folder in newest[:EXPERIMENTS]:
        starts, saves = [], []
        for run in folders_in(folder)[-RUNS:]:
            status = RunFolder(run).status()
            if status.get("start_seconds") is not None and status.get("save_seconds") is not None:
                starts.append(status["start_seconds"])
                saves.append(status["save_seconds"])
        if starts:
            return Measured(max(starts), max(saves), folder.name)
    return None
