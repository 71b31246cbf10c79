"""Training a run again: a fresh folder with its settings, its split and its code, and a process that trains there."""

import os
import shutil
import sys
from pathlib import Path

from .. import signals
from ..files import write_atomically
from ..processes import Child, wait_and_hand_on
from ..runs.folder import EXIT_CODES, RunFolder
from ..settings.yaml_files import dump, read_yaml
from .kept import Kept, write_code

REPRODUCED = ".reproduced"  # in the folder of runs; hidden, so that no table has these runs beside the others
CODE = "code"  # in the folder of a run that is trained again

# States in which a reproduction has ended early, and goes on when it is started again.
UNFINISHED = ("preempted", "time limit", "interrupted")


def place_of(run: Kept) -> Path:
    """The folder in which a run is trained again: a new one, or that of a reproduction that has ended early."""
    parent = run.runs / REPRODUCED
    name = f"{run.folder.resolve().parent.name}-{run.folder.resolve().name}"
    number = 1
    while (parent / f"{name}-{number}").exists():
        folder = parent / f"{name}-{number}"
        if RunFolder(folder).status().get("state") in UNFINISHED:
            return folder
        number += 1
    return parent / f"{name}-{number}"


def prepare(run: Kept, root: Path, target: Path) -> None:
    """Write what is needed to train a run again into a new folder.

    Trackers are left out: to them it would be the same run.

    Args:
        run: what it has kept.
        root: the folder of today's code.
        target: the folder.

    Raises:
        OSError: it can't be written.
    """
    target.mkdir(parents=True)
    write_code(run, root, target / CODE)

    settings = read_yaml(run.folder / "config.yaml")
    settings["trainer"] = {**(settings.get("trainer") or {}), "logger": False}
    write_atomically(target / "config.yaml", f"# Those of {run.folder}, without trackers\n{dump(settings)}")
    for name in ("overlay.yaml", "splits.npz"):
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, target / name)


def command_of(target: Path) -> list[str]:
    """The command that trains in a folder that is prepared."""
    return [sys.executable, str(target / CODE / "Train.py"), "fit", "--run", str(target)]


def environment_of(run: Kept) -> dict[str, str]:
    """The environment of that command: with as many threads as the run had, since sums depend on them."""
    environment = dict(os.environ)
    threads = run.environments[0].get("threads")
    if isinstance(threads, int):
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def train(run: Kept, target: Path) -> int:
    """Train in a folder that is prepared, and hand on the signal that is to stop it; returns the exit code."""
    signals.install()
    child = Child(command_of(target), environment_of(run), own_group=False)
    wait_and_hand_on(child)
    return child.exit_code(EXIT_CODES)
