"""Packs: the runs that share one job. In an experiment's folder packs/N.json says which runs element N of an array has.

The manifest stays one line for each run. A pack gets a number that no other has, and a retry makes new packs of what is
left; so a number means the same runs for ever. Beside them stands which of them the job still has to do.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..files import write_json
from ..settings.errors import SettingsError

PACKS = "packs"


@dataclass(frozen=True)
class Pack:
    """The runs of one element.

    Attributes:
        size: how many runs share a job of this kind; the last pack may hold fewer.
        runs: indices in the manifest, ascending.
        left: those that the job still has to do. A run that is done, or has failed, is not among them.
        unstarted: those of `left` that this start of the job has not begun yet.
    """

    size: int
    runs: list[int]
    left: list[int]
    unstarted: list[int]

    def write(self, folder: Path, number: int) -> None:
        """Write it into an experiment's folder."""
        write_json(file_of(folder, number), asdict(self))

    def begun(self, index: int) -> "Pack":
        """The same after one of its runs was started."""
        return replace(self, unstarted=[each for each in self.unstarted if each != index])

    def without(self, index: int) -> "Pack":
        """The same after one of its runs has ended for good."""
        return replace(self.begun(index), left=[each for each in self.left if each != index])


def file_of(folder: Path, number: int) -> Path:
    """Where an experiment has a pack."""
    return folder / PACKS / f"{number}.json"


def read_pack(folder: Path, number: int) -> Pack:
    """A pack of an experiment.

    Raises:
        SettingsError: there is none of that number.
    """
    file = file_of(folder, number)
    try:
        return Pack(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SettingsError(f"{folder} has no pack {number}: there is no {file}") from None


def numbers(folder: Path) -> list[int]:
    """The numbers of an experiment's packs, ascending; [] where no runs were packed."""
    try:
        names = os.listdir(folder / PACKS)
    except FileNotFoundError:
        return []
    return sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit())


def grouped(indices: Sequence[int], size: int) -> list[list[int]]:
    """Runs in groups of so many; the last one may be smaller."""
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def new_numbers(taken: Sequence[int], indices: Sequence[int], size: int) -> list[int]:
    """The numbers that new packs of some runs get.

    Args:
        taken: the numbers that the experiment has, ascending.
        indices: of the runs, ascending.
        size: most runs of a pack.
    """
    first = taken[-1] + 1 if taken else 0
    return list(range(first, first + len(grouped(indices, size))))


def write_packs(folder: Path, new: Sequence[int], indices: Sequence[int], size: int) -> None:
    """Pack some runs.

    Args:
        folder: the experiment's.
        new: the numbers of the packs, see `new_numbers`; nobody else may take them at the same time.
        indices, size: see `new_numbers`.
    """
    (folder / PACKS).mkdir(exist_ok=True)
    for number, runs in zip(new, grouped(indices, size), strict=True):
        pack = Pack(size, runs, left=runs, unstarted=[])

        # No job has it yet, but `status` reads all packs. To wait for the disk each time would take minutes.
        part = folder / PACKS / f".{number}.part"
        part.write_text(json.dumps(asdict(pack)), encoding="utf-8")
        part.replace(file_of(folder, number))


def newest_of_runs(folder: Path) -> dict[int, int]:
    """For each run that a pack still has to do, the newest such pack."""
    newest = {}
    for number in numbers(folder):
        newest |= dict.fromkeys(read_pack(folder, number).left, number)
    return newest
