"""An experiment's folder: what was planned, the code it runs from, and how each run stands.

runs/EXPERIMENT/
    spec.yaml     the request, as it was given        manifest.jsonl   one line for each run
    configs/      the settings of all runs, frozen    request.yaml     the cluster and the resources asked for
    code/         the code that the jobs run          job.sbatch       the batch file; array index = manifest index
    logs/         what the jobs print                 NNN-NAME-HASH8/  the runs

manifest.jsonl is written last and never changed: a folder that has one is complete, whatever happened before.
"""

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..runs.code import note_version
from ..runs.folder import RunFolder, write_atomically
from ..runs.plan import Plan
from ..runs.request import MANIFEST, frozen_layers
from ..runs.settings import Settings, SettingsError, dump, read
from .sbatch import Element, endings, queue

# Folders of the project that a snapshot leaves out: results, data, what other programs make. So it does with hidden
# folders and with environments, wherever they are.
NOT_CODE = {"runs", "data", "wandb", "sweeps", "slurm", "docs", "tests", "build", "dist", "kubernetes"}
CODE = {".py", ".yaml", ".yml", ".json", ".toml", ".j2", ".txt", ".cfg", ".ini"}
LARGEST = 1_000_000  # bytes; a larger file is data


@dataclass(frozen=True)
class Standing:
    """How one run stands.

    Attributes:
        index: its place in the manifest.
        folder: its folder, which may not exist yet.
        state: done, running, pending, failed, stopped, lost (its job has gone without a word) or waiting (no job yet).
        reason: why it is not done, where that is known.
        status: its status.json.
        job: what SLURM calls its job, while there is one.
    """

    index: int
    folder: Path
    state: str
    reason: str | None
    status: Mapping[str, Any]
    job: str | None = None


class Experiment:
    """A planned experiment.

    Args:
        folder: its folder.
        planned: whether it has to be there already.

    Raises:
        SettingsError: it is not there.
    """

    def __init__(self, folder: str | Path, planned: bool = True) -> None:
        self.folder = Path(folder).resolve()
        self.batch, self.canary, self.logs = (self.folder / name for name in ("job.sbatch", "canary.sbatch", "logs"))
        if planned and not (self.folder / MANIFEST).is_file():
            raise SettingsError(f"{folder} is no planned experiment: it has no {MANIFEST}")

    @property
    def shown(self) -> Path:
        """Its folder as one would type it."""
        here = Path.cwd()
        return self.folder.relative_to(here) if self.folder.is_relative_to(here) else self.folder

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The manifest: index, identity, folder and overlay of each run."""
        return [json.loads(line) for line in (self.folder / MANIFEST).read_text(encoding="utf-8").splitlines()]

    @property
    def code(self) -> Path:
        """The newest snapshot of the code: code, code-2, …"""
        return max(self.folder.glob("code*"), key=lambda path: (len(path.name), path.name))

    def take_code(self, root: Path) -> None:
        """Make a new snapshot of the code in `root` beside the older ones, from which jobs may be running."""
        number = 1 + sum(1 for _ in self.folder.glob("code*"))
        snapshot(root, self.folder / (f"code-{number}" if number > 1 else "code"), without=self.folder.parent)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all its runs share."""
        found = Settings()
        for layer, source in frozen_layers(self.folder):
            found.add(layer, source)
        return found.flat

    def log(self, index: int) -> Path:
        """What the jobs of one run have printed, requeued and submitted again ones included."""
        for file in self.logs.glob("*+*.log"):  # of an array that does not start at run 0
            if sum(int(part) for part in file.stem.split("+")) == index:
                return file
        return self.logs / f"{index}.log"

    def elements(self, patient: bool = False) -> list[Element] | None:
        """What SLURM has queued or running of it; None where it does not answer."""
        return queue(self.batch, self.canary, self.folder / "notify.sbatch", patient=patient)

    def known_elements(self) -> list[Element]:
        """The same, for what must not be done without knowing.

        Raises:
            SettingsError: SLURM does not answer.
        """
        if (found := self.elements(patient=True)) is None:
            raise SettingsError("squeue does not answer, so nobody knows what is queued or running: try again later")
        return found

    @property
    def request(self) -> dict[str, Any]:
        """The cluster and the resources that were asked for, submission's command line included."""
        return read(self.folder / "request.yaml")

    def standings(self, elements: Sequence[Element] | None = None) -> list[Standing]:
        """How every run stands: by its folder first, then by SLURM's queue.

        Args:
            elements: the queue, see `sbatch.queue`; None where it can't be asked, so that a run whose folder says
                `running` is taken to be.
        """
        batches = [each for each in elements or () if "notify.sbatch" not in each.batch]
        queued = {index_of(each): each for each in sorted(batches, key=lambda each: each.state != "PENDING")}
        there = {path.name: path for path in self.folder.iterdir()}
        by_identity = {name[-8:]: path for name, path in there.items() if path.is_dir()}
        found = []
        for row in self.rows:
            folder = there.get(row["folder"]) or by_identity.get(row["identity"][:8]) or self.folder / row["folder"]
            status = RunFolder(folder).status()
            found.append(standing(row["index"], folder, status, queued.get(row["index"]), elements is not None))
        ended = endings(
            [each.status["slurm_job"] for each in found if each.state == "lost" and each.status["slurm_job"]]
        )
        return [
            replace(each, reason=f"its job has ended: {ended[each.status['slurm_job']]}")
            if each.state == "lost" and each.status["slurm_job"] in ended
            else each
            for each in found
        ]


def standing(index: int, folder: Path, status: Mapping[str, Any], element: Element | None, asked: bool) -> Standing:
    """One run's state from its status.json and its job. Unknown is not failed."""
    state, reason, job = status.get("state"), status.get("reason"), element.name if element else None
    if state == "done":
        return Standing(index, folder, "done", None, status, job)
    if element and element.state == "PENDING":
        again = f"goes on after: {state}" if state else None
        return Standing(index, folder, "pending", again or element.reason, status, job)
    if element:
        return Standing(index, folder, "running", None if state == "running" else "starting or ending", status, job)
    if state in ("failed", None):
        return Standing(index, folder, state or "waiting", reason, status)
    if state == "running":
        lost = "its job has gone without a word: killed, out of memory or out of time"
        return Standing(index, folder, "lost" if asked else "running", lost if asked else None, status)
    return Standing(index, folder, "stopped", reason or state, status)


def index_of(element: Element) -> int:
    """The index in the manifest of an array element: its task plus the batch file's argument, the offset."""
    last = element.batch.rpartition(" ")[2]
    return (element.task or 0) + (int(last) if last.isdigit() else 0)


def write(plan: Plan, root: Path, request: Mapping[str, Any], spec: str, overwrite: bool = False) -> Experiment:
    """Write an experiment's folder, all but its batch files; the manifest comes last.

    Args:
        plan: the runs.
        root: the project's folder, from which the code is copied.
        request: cluster and resources.
        spec: the text of the request's file.
        overwrite: move an experiment of the same name aside; nothing is deleted.

    Raises:
        SettingsError: there is one of that name, and runs of it are in the queue or it may not be overwritten.
    """
    folder = plan.folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{plan.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(f"{plan.name} is being submitted by another process at this moment") from None
    except (NotImplementedError, OSError):  # a file system without locks
        pass
    try:
        if (folder / MANIFEST).exists():
            set_aside(Experiment(folder), overwrite)
        for part in ("configs", "logs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for number, (layer, source) in enumerate(plan.layers):
            name = f"{number:02d}-{Path(source).stem.replace(' ', '-')}.yaml"
            (folder / "configs" / name).write_text(f"# {source}\n{dump(layer)}", encoding="utf-8")
        (folder / "spec.yaml").write_text(spec, encoding="utf-8")
        (folder / "request.yaml").write_text(dump(request), encoding="utf-8")
        shutil.rmtree(folder / "code", ignore_errors=True)  # half made by a submission that was killed
        Experiment(folder, planned=False).take_code(root)
        lines = [
            json.dumps(dict(index=r.index, identity=r.identity, folder=r.folder, overlay=r.overlay), default=str)
            for r in plan.runs
        ]
        write_atomically(folder / MANIFEST, "\n".join(lines) + "\n")
    finally:
        lock.release()
    return Experiment(folder)


def set_aside(experiment: Experiment, overwrite: bool) -> None:
    """Move an experiment to runs/.old/NAME-K, if that was asked for and nothing of it is in the queue."""
    folder = experiment.folder
    if not overwrite:
        raise SettingsError(
            f"{folder.name} is there already, with {len(experiment.rows)} runs: see `status {folder}`, go on with "
            f"`retry {folder}`, give this one another --name, or start over with --overwrite (the old one is kept)"
        )
    if active := experiment.known_elements():
        raise SettingsError(f"{len(active)} runs of {folder.name} are queued or running: `cancel {folder}` first")
    old = folder.parent / ".old"
    old.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in old.glob(f"{folder.name}-*"))
    folder.rename(old / f"{folder.name}-{number}")


def snapshot(root: Path, target: Path, without: Path) -> None:
    """Copy the project's code: small text files, without results, data and environments; and note the git commit.

    Args:
        root: the project's folder.
        target: where the copy goes.
        without: the folder of runs, wherever it is.
    """
    for folder, folders, files in os.walk(root):
        inside = Path(folder)
        folders[:] = [
            name for name in folders
            if not name.startswith(".") and name != "__pycache__" and not (inside == root and name in NOT_CODE)
            and inside / name != without
            and not any((inside / name / mark).exists() for mark in ("pyvenv.cfg", "conda-meta"))
        ]  # fmt: skip
        for name in files:
            file = inside / name
            if file.suffix in CODE and not name.startswith(".") and file.stat().st_size <= LARGEST:
                copy = target / file.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)
    note_version(root, target)
