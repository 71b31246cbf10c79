"""The small files of many run folders, found without a recursive search and read by a few threads."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

STATUS, CONFIG, OVERLAY, METRICS = "status.json", "config.yaml", "overlay.yaml", "metrics.csv"
EVALUATIONS = ("test.json", "validate.json")

# Busy cluster file systems take a millisecond to open a file: threads wait side by side. More of them gain little, and
# are not kind to the other users.
THREADS = 8

FEW = 64  # folders that one thread reads at a time

SLOW = 0.001  # seconds a folder; a file system that answers faster is read faster by one thread than by several

Signature = tuple[tuple[int, int, int], ...]


class RunFiles(NamedTuple):
    """What was read of one run's folder.

    Attributes:
        folder: the run's folder.
        texts: file name → content; only of files that are there.
        reason: why the folder or a file in it could not be read; None if all could.
    """

    folder: Path
    texts: dict[str, bytes]
    reason: str | None = None


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs in these folders, in the order of their names.

    Args:
        folders: each is a folder of experiments (runs/), an experiment's folder, or a run's own.

    Returns:
        folders with a status.json. A folder that can't be listed is returned as if it were a run's, so that whoever
        reads it notices. Nothing deeper is looked into, and no hidden folder: .old holds what was moved aside. A run
        that an experiment has only linked from another is left out if it is among them itself: it is one run.
    """
    runs: dict[Path, None] = {}  # as an ordered set: a run may be named twice
    links: list[Path] = []
    for folder in folders:
        for run in runs_below(folder, 2, links):
            runs[run] = None
    if links:
        real = {run.resolve() for run in runs if run not in links}
        for link in links:
            if link.resolve() in real:
                runs.pop(link, None)
    return list(runs)


def runs_below(folder: Path, levels: int, links: list[Path]) -> list[Path]:
    """The run folders in a folder and so many levels below it; those that are links are added to `links`, too."""
    if os.path.exists(f"{folder}/{STATUS}"):  # to make a Path of it takes longer than to look
        return [folder]
    if levels == 0:
        return []

    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return [folder]

    runs = []
    for entry in sorted(found, key=lambda entry: entry.name):
        place = folder / entry.name
        below = runs_below(place, levels - 1, links)
        if entry.is_symlink() and below == [place]:
            links += below
        runs += below
    return runs


def signature(folder: Path, names: Sequence[str]) -> Signature:
    """Time, size and number of files in a folder: while they are the same, so is what is in the files."""
    marks = []
    start = f"{folder}/"
    for name in names:
        try:
            stat = os.stat(start + name)
            marks.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)


def signatures(folders: Sequence[Path], names: Sequence[str]) -> list[Signature]:
    """The signature of every folder."""
    return for_each(folders, lambda folder: signature(folder, names))


def read_run(folder: Path, names: Sequence[str]) -> RunFiles:
    """Read files of one folder; nothing is raised, the reason stands in the result."""
    texts = {}
    reason = None
    for name in names:
        try:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                texts[name] = file.readall()
        except FileNotFoundError:
            continue  # such as the results of a test that nobody has made
        except OSError as error:
            reason = f"{name} can't be read: {error.strerror}"
    return RunFiles(folder, texts, reason)


def read_runs(folders: Sequence[Path], names: Sequence[str]) -> list[RunFiles]:
    """Read the same files of many folders, in the order of the folders."""
    return for_each(folders, lambda folder: read_run(folder, names))


def for_each(folders: Sequence[Path], function: Callable[[Path], Any]) -> list[Any]:
    """Call a function for each folder, in a few threads if the first ones are slow; results in the folders' order."""
    begin = time.perf_counter()
    results = [function(folder) for folder in folders[:FEW]]
    is_slow = time.perf_counter() - begin > SLOW * len(results)

    rest = folders[FEW:]
    if not is_slow:
        return results + [function(folder) for folder in rest]

    # Many folders at a time: to hand over a single one takes as long as to read it.
    batches = [rest[start : start + FEW] for start in range(0, len(rest), FEW)]
    with ThreadPoolExecutor(THREADS) as threads:
        for batch in threads.map(lambda batch: [function(folder) for folder in batch], batches):
            results += batch
    return results
