"""What a small run asks of a shared file system in a minute of training: files, opens, writes, fsyncs, changed names.

    python benchmarks/footprint.py [--epochs 10] [--seconds 6] [--before COMMIT] [--json FILE]

strace counts the calls of a run and of all that it starts, in three parts: until the first batch is done, until
training ends, and after that. An epoch takes as long on every machine: the run sleeps for the rest of it. Counted are
calls about files in the project and in the home folder, since both lie on a cluster's shared file system; /tmp and the
system's own folders do not (here, /dev/shm stands for /tmp). Python's packages are counted apart: they are read at the
start.

The peer is a project of one file with LightningCLI that keeps its last and its best checkpoint. With `--before`, the
template of an earlier commit is measured, too. `--json FILE` also writes FILE with `_places` and `_start` in its name.
"""

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from figures import this_machine, write_figures
from footprint_cases import DEFAULT, EARLIER, PACE, PEERS, Project, all_cases
from system_calls import calls, trace

# What is counted, and what it is called: files that are opened, pieces that are written, content or names that are
# brought to disk, and files and folders that are made, renamed, linked, or removed, or get other rights.
COUNTED = {"opens": "opens", "writes": "writes", "syncs": "fsyncs", "names": "names"}

# Which part of a run's folder a file belongs to, by the beginning of its path there without a dot; the first that fits.
PLACES = {
    "status.json": "status.json",
    "metrics.csv": "metrics.csv",
    "checkpoints": "checkpoints",
    "cka": "maps and pictures of CKA",
    "wandb": "W&B's folder",
    "lock": "the lock",
    "logs": "the log file",
    "fingerprints.jsonl": "fingerprints of the weights",
    "": "the rest of the run's folder",
}
CODE, HOME = "the project's code and settings", "the home folder"
PACKAGES = tuple({f"{path}/" for path in (sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"])})


@dataclass
class Footprint:
    """What one run has asked for.

    Attributes:
        files: how many it has left behind.
        own: part of the run → place → kind of call → number.
        packages: the same of files of Python's packages, over the whole run.
    """

    files: int
    own: dict[str, dict[str, Counter]] = field(default_factory=dict)
    packages: Counter = field(default_factory=Counter)

    def total(self, part: str) -> Counter:
        """The calls of a part, in all places."""
        return sum(self.own.get(part, {}).values(), Counter())


def files_in(*folders: Path) -> set[Path]:
    """All files and links below some folders, without what Python compiles."""
    found = {path for folder in folders for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return {path for path in found if "__pycache__" not in path.parts}


def measure(project: Project, settings: list[str], here: str, epochs: int, seconds: float) -> Footprint:
    """Count what a run asks for, in a project in which one has been before.

    Args:
        project: the project, alone in its folder.
        settings: of the run.
        here: a folder of the node, on another file system: what is made there and then moved is written twice.
        epochs, seconds: how many epochs it trains, and how long each lasts.
    """
    scratch = project.folder.parent
    home, file = scratch / "home", scratch / "calls.txt"
    home.mkdir()
    (scratch / "pace.py").write_text(PACE)

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PYTHON"))}
    kept |= dict(HOME=str(home), WANDB_MODE="offline", OMP_NUM_THREADS="1", PYTHONPATH=str(scratch))
    kept |= dict(TMPDIR=tempfile.mkdtemp(dir=here))
    command = [*project.command, *settings]

    # The first run: modules are compiled, fonts are found, the code is kept.
    trace([*command, "--trainer.max_epochs=1"], project.folder, {**kept, "SECONDS_AN_EPOCH": "0"}, file)
    before = files_in(project.folder, home)
    paced = {**kept, "SECONDS_AN_EPOCH": str(seconds)}
    trace([*command, f"--trainer.max_epochs={epochs}"], project.folder, paced, file)
    return counted(project, file, home, before)


def counted(project: Project, file: Path, home: Path, before: set[Path]) -> Footprint:
    """What strace has written, by parts and places.

    Args:
        project: whose run it was.
        file: what strace has written.
        home: the home folder.
        before: the files that were there before the run.
    """
    found, part = Footprint(len(files_in(project.folder, home) - before)), "start"
    runs = {str(path) for path in project.folder.glob(project.runs)}
    for call in calls(file, project.folder):
        if call.path.startswith("/part/"):
            part = call.path.removeprefix("/part/")
        elif call.path.startswith(PACKAGES):
            found.packages[call.kind] += 1
        else:
            place = place_of(call.path, project, runs, home)
            if place is not None:
                found.own.setdefault(part, {}).setdefault(place, Counter())[call.kind] += 1
    return found


def place_of(path: str, project: Project, runs: set[str], home: Path) -> str | None:
    """What a path belongs to; None if it is on no shared file system.

    Args:
        path: the path.
        project: whose run has asked for it.
        runs: the folders of the project's runs.
        home: the home folder.
    """
    if path.startswith(f"{home}/"):
        return HOME
    if not path.startswith(f"{project.folder}/"):
        return None
    for run in runs:
        if path == run or path.startswith(f"{run}/"):
            inside = path[len(run) + 1 :].removeprefix(".")  # a file that is being written begins with a dot
            return next(place for start, place in PLACES.items() if inside.startswith(start))
    return CODE


def of_training(found: Mapping[str, Footprint], minutes: float) -> list[dict[str, Any]]:
    """Rows: what each run has asked for in a minute of training, and how many files it has left."""
    rows = []
    for name, footprint in found.items():
        calls_a_minute = {kind: footprint.total("training")[kind] / minutes for kind in COUNTED}
        together = sum(calls_a_minute.values())
        peer = found[PEERS + ("W&B" if "W&B" in name else "CSV file")].total("training")
        of_peer = sum(peer[kind] for kind in COUNTED) / minutes
        row: dict[str, Any] = {"a run": name, "files left": footprint.files}
        row |= {f"{COUNTED[kind]} a minute": round(number) for kind, number in calls_a_minute.items()}
        rows.append(row | {"all four": round(together), "ratio to LightningCLI": round(together / of_peer, 2)})
    return rows


def of_places(now: Footprint, before: Footprint | None, minutes: float) -> list[dict[str, Any]]:
    """Rows: where the default run asks for it, now and before."""
    rows = []
    for place in [*PLACES.values(), CODE, HOME]:
        cells = {}
        for kind, name in COUNTED.items():
            cell = f"{now.own['training'].get(place, Counter())[kind] / minutes:.0f}"
            if before is not None:
                cell = f"{before.own['training'].get(place, Counter())[kind] / minutes:.0f} → {cell}"
            cells[f"{name} a minute"] = cell
        if any(set(cell) & set("123456789") for cell in cells.values()):
            rows.append({"the default run's": place} | cells)
    return rows


def of_start(found: Mapping[str, Footprint]) -> list[dict[str, Any]]:
    """Rows: what a run asks for until its first batch is done, and of packages until its end."""
    rows = []
    for name, footprint in found.items():
        start = footprint.total("start")
        row: dict[str, Any] = {"a run": name, "looks": start["looks"]}
        row |= {label: start[kind] for kind, label in COUNTED.items()}
        packages = footprint.packages
        rows.append(row | {"opens of packages": packages["opens"], "looks at packages": packages["looks"]})
    return rows


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6, help="how long an epoch lasts")
    parser.add_argument("--before", metavar="COMMIT", help="measure the template of this commit, too")
    parser.add_argument("--json", type=Path, help="write the figures to this file and two beside it")
    arguments = parser.parse_args()
    minutes = arguments.epochs * arguments.seconds / 60
    if shutil.which("strace") is None:
        raise SystemExit("this needs strace: apt-get install strace")

    on_node = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir=on_node if on_node.is_dir() else None) as here,
        ThreadPoolExecutor(2) as threads,
    ):
        cases = all_cases(arguments.before, Path(folder))
        waiting = {}
        for name, (project, settings) in cases.items():
            waiting[name] = threads.submit(measure, project, settings, here, arguments.epochs, arguments.seconds)
        found = {name: one.result() for name, one in waiting.items()}

    tables = {
        "": of_training(found, minutes),
        "_places": of_places(found[DEFAULT], found.get(EARLIER), minutes),
        "_start": of_start(found),
    }
    command = f"python benchmarks/footprint.py --epochs {arguments.epochs} --seconds {arguments.seconds:g}"
    if arguments.before:
        command += f" --before {arguments.before}"
    for ending, rows in tables.items():
        print(*("  ".join(f"{name} {value}" for name, value in row.items()) for row in rows), "", sep="\n")
        if arguments.json:
            file = arguments.json.with_stem(arguments.json.stem + ending)
            write_figures(file, this_machine(f"wandb {version('wandb')}"), command, rows)


if __name__ == "__main__":
    main()
