"""An experiment's folder: what was planned, the code it runs from, and how each run stands.

runs/EXPERIMENT/
    spec.yaml     the specification, as given         manifest.jsonl   one line for each run
    configs/      the settings of all runs, frozen    resources.yaml   the cluster and the resources asked for
    code/         the code that the jobs run          job.sbatch       the batch file; array index = manifest index
    logs/         what the jobs print                 jobs.jsonl       one line for each job that was submitted
    packs/        which runs share a job              pack.sbatch      their batch file; array index = pack
    NNN-NAME-HASH8/  the runs                         waves.json       what the queue had no room for

manifest.jsonl is written last and never changed: a folder that has one is complete, whatever happened before.
"""

import contextlib
import functools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..code.snapshot import take_snapshot
from ..files import write_atomically
from ..locks import Locked, locked
from ..packing.packs import newest_of_runs
from ..runs.folder import now
from ..runs.manifest import MANIFEST, frozen_layers
from ..scheduler.jobs import Element, queue
from ..scheduler.sbatch import Job
from ..settings.errors import SettingsError
from ..settings.layers import Settings
from ..settings.places import quoted, shown
from ..settings.yaml_files import dump, read_yaml

RESOURCES = "resources.yaml"

RESOURCES_BEFORE = "request.yaml"  # its name in experiments of version 0

JOBS = "jobs.jsonl"

WAIT = 60.0  # seconds for another submission of the same experiment


class Experiment:
    """A planned experiment.

    Args:
        folder: its folder.
        planned: True if it has to be there already.

    Raises:
        SettingsError: it is not there.
    """

    def __init__(self, folder: str | Path, planned: bool = True) -> None:
        self.folder = Path(folder).resolve()
        self.batch = self.folder / "job.sbatch"
        self.packed = self.folder / "pack.sbatch"
        self.arrays = (self.batch, self.packed)
        self.canary = self.folder / "canary.sbatch"
        self.notify = self.folder / "notify.sbatch"
        self.logs = self.folder / "logs"
        if planned and not (self.folder / MANIFEST).is_file():
            raise SettingsError(f"{folder} is no planned experiment: it has no {MANIFEST}")

    @property
    def shown(self) -> Path:
        """Its folder as one would type it."""
        return shown(self.folder)

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The manifest: index, identity, folder and overlay of each run."""
        return [json.loads(line) for line in (self.folder / MANIFEST).read_text(encoding="utf-8").splitlines()]

    @functools.cached_property
    def packs(self) -> dict[int, int]:
        """The pack of each run that shares a job with others and has not ended."""
        return newest_of_runs(self.folder)

    @property
    def code(self) -> Path:
        """The newest snapshot of the code: code, code-2, …"""
        return max(self.folder.glob("code*"), key=lambda path: (len(path.name), path.name))

    def take_code(self, root: Path) -> None:
        """Make a new snapshot of the code in `root` beside the older ones, from which jobs may be running."""
        # A name that none of the older ones has, also where somebody has deleted some: code, code-2, code-3, …
        newest = 0
        for path in self.folder.glob("code*"):
            number = path.name.removeprefix("code").removeprefix("-") or "1"
            if number.isdigit():
                newest = max(newest, int(number))
        name = f"code-{newest + 1}" if newest else "code"

        # It gets the name when it is whole: the newest one is what jobs run from.
        part = self.folder / ".code.part"
        shutil.rmtree(part, ignore_errors=True)
        take_snapshot(root, part, without=self.folder.parent)
        part.rename(self.folder / name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all its runs share."""
        settings = Settings()
        for layer, source in frozen_layers(self.folder):
            settings.add(layer, source)
        return settings.flat

    @property
    def resources(self) -> dict[str, Any]:
        """The cluster and the resources that were asked for, submission's command line included."""
        file = self.folder / RESOURCES
        return read_yaml(file if file.exists() else self.folder / RESOURCES_BEFORE)

    def write_resources(self, resources: Mapping[str, Any]) -> None:
        """Note what is asked for, for `retry` and `eval`."""
        as_yaml = {key: list(value) if isinstance(value, tuple) else value for key, value in resources.items()}
        write_atomically(self.folder / RESOURCES, dump(as_yaml))

    def log(self, index: int) -> Path:
        """What the jobs of one run have printed, requeued and submitted again ones included; a canary has its own."""
        noted = Path(self.last_job(index).get("log", ""))
        if noted.is_file():
            return noted
        for file in self.logs.glob("[0-9]*+*.log"):  # of an array that does not start at run 0
            if sum(int(part) for part in file.stem.split("+")) == index:
                return file
        return self.logs / f"{index}.log"

    def last_job(self, index: int) -> dict[str, str]:
        """What the batch file has noted when a run's last job began: job, restarts, node, log; {} if none has."""
        note = self.note(index)
        lines = note.read_text(encoding="utf-8").splitlines() if note.exists() else []
        return dict(zip(("job", "restarts", "node", "log"), lines, strict=False))

    def note(self, index: int) -> Path:
        """Where the newest job of a run has noted its beginning: that of the run alone, or that of its pack."""
        own = self.logs / f".job-{index}"
        if index not in self.packs:
            return own

        # From the moment at which a pack starts the run, that has a note of its own.
        packs = self.logs / f".job-pack-{self.packs[index]}"
        times = {}
        for note in (own, packs):
            with contextlib.suppress(FileNotFoundError):
                times[note] = note.stat().st_mtime_ns
        return max(times, key=lambda note: times[note], default=own)

    def note_job(self, job: Job, arguments: Sequence[str]) -> None:
        """Write down a job that was submitted: who has, and on which cluster, so that others find it."""
        row = dict(job=job.id, cluster=job.cluster, user=os.getuid(), submitted=now(), arguments=list(arguments))
        try:
            with (self.folder / JOBS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # the job is there all the same
            print(f"warning: {JOBS} can't be written: {error}", file=sys.stderr)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What `note_job` has written; [] in an experiment of an earlier version."""
        try:
            lines = (self.folder / JOBS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError):  # one that was cut by a full disk
                rows.append(json.loads(line))
        return rows

    @property
    def users(self) -> set[int]:
        """Who may have jobs of it: those who have written into its folder, and who have submitted."""
        users = {row["user"] for row in self.jobs}
        for path in (self.folder, *self.arrays, self.canary, self.notify, self.folder / RESOURCES):
            with contextlib.suppress(FileNotFoundError):
                users.add(path.stat().st_uid)
        return users

    @property
    def clusters(self) -> set[str]:
        """Other clusters that may have jobs of it: those that have taken some, and those that are asked for."""
        recorded = {row["cluster"] for row in self.jobs if row["cluster"]}
        return recorded | clusters_asked(self.resources)

    def queue(self, pauses: Sequence[float] = ()) -> list[Element]:
        """All jobs of its users, on all its clusters, those of other experiments included.

        Args:
            pauses: seconds before each new try where SLURM does not answer.

        Raises:
            NoAnswer: SLURM does not answer, so nobody knows.
        """
        return queue(self.users, self.clusters, pauses)

    def own(self, elements: Sequence[Element]) -> list[Element]:
        """Those of some jobs that run one of its batch files."""
        return [element for element in elements if element.is_of(*self.arrays, self.canary, self.notify)]

    def check_writable(self, indices: Sequence[int]) -> None:
        """Check that the jobs of this user could write where some of its runs write.

        Raises:
            SettingsError: they could not; a colleague has submitted it, for example.
        """
        runs = [self.folder / self.rows[index]["folder"] for index in indices]
        for path in (self.folder, self.logs, *runs):
            if path.exists() and not os.access(path, os.W_OK):
                owner = path.owner()
                raise SettingsError(
                    f"{path} belongs to user {owner} and you can't write there: let {owner} do it, or have "
                    f"`chmod -R g+w {quoted(self.folder)}` done"
                )


def clusters_asked(resources: Mapping[str, Any]) -> set[str]:
    """The clusters that resources name for sbatch's --clusters, as option or among the directives."""
    named = [str(resources.get("clusters") or "")]
    for option in resources.get("directives") or ():
        if option.startswith("--clusters="):
            named.append(option.removeprefix("--clusters="))
    return {cluster for names in named for cluster in names.split(",") if cluster and cluster != "all"}


@contextlib.contextmanager
def only_submission(folder: Path, wait: float = 0) -> Iterator[None]:
    """Keep others from submitting runs of an experiment, from the look at the queue until the jobs are in it.

    Args:
        folder: the experiment's folder; it need not exist, its parent does.
        wait: seconds to wait for another submission.

    Raises:
        SettingsError: another process submits it, or nothing can be written here.
    """
    lock = folder.parent / f".{folder.name}.lock"
    with contextlib.ExitStack() as stack:
        try:
            can_lock = stack.enter_context(locked(lock, timeout=wait))
        except Locked as error:
            raise SettingsError(
                f"{folder.name} is being submitted by another process at this moment: {error.holder}"
            ) from None
        if not can_lock:
            owner = (lock if lock.exists() else folder.parent).owner()
            raise SettingsError(f"{lock} belongs to user {owner} and you can't write it: submit under another --name")
        yield
