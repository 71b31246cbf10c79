"""What a run has kept of itself, whether that is enough to train it again, and its code as files."""

import csv
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..code.compare import in_words
from ..code.fingerprint import STORE, can_matter, copy_of, digest_of, kept
from ..code.listing import read_code
from ..provenance.environment import read_environments
from ..provenance.fingerprints import Fingerprint, read_fingerprints
from ..runs.folder import RunFolder
from ..settings.errors import SettingsError
from ..settings.places import NOTE, note_of, project_of

# Columns of metrics.csv that tell of the machine, and not of the result.
OF_THE_MACHINE = ("seconds", "time/", "memory/", "usage/")

Row = dict[str, str]


@dataclass
class Kept:
    """What a run has kept, at one time: while it is trained again, for hours, somebody may start it over.

    Attributes:
        folder: the run's folder.
        status: its status.json.
        environments: what it was made with, one record for each environment.
        fingerprints: of its weights, in order.
        rows: of its metrics.csv.
        code: path → digest of each file of its code; {} if nobody knows it any more.
    """

    folder: Path
    status: dict[str, Any]
    environments: list[dict[str, Any]]
    fingerprints: list[Fingerprint]
    rows: list[Row]
    code: dict[str, str]

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.folder.resolve().parent.parent

    @property
    def store(self) -> Path:
        """Where the code of all runs is kept."""
        return self.runs / STORE


def read_kept(folder: Path) -> Kept:
    """What the run in a folder has kept.

    Raises:
        SettingsError: the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise SettingsError(f"{folder} is not a run's folder: it has no config.yaml")
    status = RunFolder(folder).status()
    store = folder.resolve().parent.parent / STORE
    code = kept(str(status.get("code")), store)
    return Kept(folder, status, read_environments(folder), read_fingerprints(folder), read_rows(folder), code)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run's metrics.csv, without empty cells and without what tells of the machine."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8")
    except OSError:
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")):
        cells = {name: cell for name, cell in row.items() if cell and not name.startswith(OF_THE_MACHINE)}
        rows.append(cells)
    return rows


def obstacle(run: Kept, root: Path) -> str | None:
    """Why nobody can say whether a run can be reproduced, in one line; None if it can be tried.

    Args:
        run: what it has kept.
        root: the folder of today's code.
    """
    state = run.status.get("state")
    if state == "running" and RunFolder(run.folder).holder() is not None:
        return f"{run.folder} is still running"
    if state != "done":
        return f"{run.folder} is not done, but {state}: it has no result yet that could be compared"
    if not run.fingerprints or not run.environments:
        return f"{run.folder} has no fingerprints: it was trained by an earlier version, or could not write them"
    if run.status.get("code_before"):
        return f"{run.folder} was continued with other code than it began with, so no single code can reproduce it"
    if not run.code:
        return f"the code of {run.folder} is not kept: {run.store} does not have {run.status.get('code')}"

    missing = [name for name in run.code if source_of(name, run, root) is None]
    if missing:
        return (
            f"{missing[0]} of its code is not kept, since it is large or has a key in it, and is no longer what it was"
        )
    return None


def source_of(name: str, run: Kept, root: Path) -> Path | None:
    """A file with the content that a file of a run's code had; None if there is none."""
    copy = copy_of(run.code[name], run.store)
    if copy.is_file():
        return copy
    today = project_of(root) / name
    return today if digest_of(today) == run.code[name] else None


def changed_code(run: Kept, root: Path) -> str | None:
    """`model.py has changed since (diff …)`: how today's code differs from a run's; None if it does not."""
    project = project_of(root)
    changed = sorted(name for name, digest in run.code.items() if digest_of(project / name) != digest)
    return in_words(changed, run.status, project, run.runs) if changed else None


def write_code(run: Kept, root: Path, target: Path) -> None:
    """Write a run's code into a folder, from which it can be trained as from a job's snapshot.

    What can't change a result is not kept with a run, nor is what is no program or text. Of that, today's is taken.

    Args:
        run: what it has kept.
        root: the folder of today's code.
        target: a new folder.

    Raises:
        OSError: it can't be written.
    """
    project = project_of(root)
    today = read_code(project, run.runs)
    files: dict[str, Path] = {}
    for name in today.files:
        if not can_matter(name):
            files[name] = project / name
    for name in run.code:
        source = source_of(name, run, root)
        if source is not None:
            files[name] = source

    for name, source in files.items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    for name, place in today.links.items():
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)

    # With this note the folder is a snapshot: paths in settings count from the project, and git is not asked.
    note: Mapping[str, Any] = dict(
        commit=run.status.get("commit"),
        uncommitted_changes=run.status.get("uncommitted_changes"),
        lightning_hpc=run.status.get("lightning_hpc"),
        project=note_of(project, target),
        files=list(run.code),
        left_out={},
    )
    (target / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
