"""Runs that are done in another experiment, and need not be trained again: their folders are linked.

A link is relative, so that the folder of all runs can be moved as a whole. When an experiment is moved aside, its links
and those into it are made anew; one whose target was deleted counts as no run.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..runs.folder import RunFolder
from .experiment import Experiment


def done_elsewhere(experiment: Path, identities: Iterable[str]) -> dict[str, Path]:
    """Runs that are done in other experiments of the same folder of runs.

    Args:
        experiment: the folder of the experiment that has them too; it need not exist.
        identities: of the runs in question.

    Returns:
        identity → folder of the run; of several the first by name.
    """
    wanted = set(identities)
    digits = {identity[:8] for identity in wanted}
    found: dict[str, Path] = {}
    for other in folders_in(experiment.parent):
        if other.name == experiment.name or other.name.startswith("."):
            continue
        for run in folders_in(other):
            if run.name[-8:] not in digits or run.is_symlink():
                continue
            status = RunFolder(run).status()
            if status.get("state") == "done" and status.get("identity") in wanted:
                found.setdefault(status["identity"], run)
    return found


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders included, sorted; [] where it can't be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []


def link_runs(experiment: Experiment, found: Mapping[str, Path]) -> list[int]:
    """Link runs that are done elsewhere; returns the indices of those that are linked now.

    Args:
        experiment: the planned experiment.
        found: identity → folder, see `done_elsewhere`.
    """
    linked = []
    for row in experiment.rows:
        place = experiment.folder / row["folder"]
        run = found.get(row["identity"])
        if run is not None and not os.path.lexists(place):  # what has begun here stays as it is
            place.symlink_to(os.path.relpath(run.resolve(), experiment.folder))
            linked.append(row["index"])
    return linked


def remove_broken_links(experiment: Experiment) -> list[str]:
    """Remove links whose run was deleted, so that it can be trained here; returns lines that say so."""
    lines = []
    for row in experiment.rows:
        place = experiment.folder / row["folder"]
        if place.is_symlink() and not place.exists():
            lines.append(f"run {row['index']} was linked to {os.readlink(place)}, which is gone")
            place.unlink()
    return lines


def move(folder: Path, target: Path) -> None:
    """Move an experiment's folder, so that its links and those into it still lead to the same runs."""

    def moved(path: Path) -> Path:
        return target / path.relative_to(folder) if path.is_relative_to(folder) else path

    touched = {}
    for link in links_in(folder.parent):
        run = link.resolve()
        if link.is_relative_to(folder) != run.is_relative_to(folder):  # else both move, or neither
            touched[moved(link)] = moved(run)
    folder.rename(target)
    for link, run in touched.items():
        try:
            link.unlink()
            link.symlink_to(os.path.relpath(run, link.parent))
        except OSError as error:  # a colleague's
            print(f"warning: {link} leads to {run} no longer: {error}", file=sys.stderr)


def links_in(runs: Path) -> Iterator[Path]:
    """The links among the runs in a folder of experiments, those that were moved aside included."""
    for experiment in [*folders_in(runs), *folders_in(runs / ".old")]:
        for run in folders_in(experiment):
            if run.is_symlink():
                yield run
