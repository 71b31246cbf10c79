"""Checkpoint files on disk: named, found again, and checked. No torch, so any tool can ask.

checkpoints/step-00000120.ckpt   the newest few; a run can resume from each of them
            last.ckpt            the newest one   } further names (hard links) of step files, or copies where the
            best.ckpt            the best one     } file system has no hard links
            meta.json            for last, best and the kept ones: step, epoch, metrics, size, sha256

Each of them appears whole or not at all: it is written as .NAME.PID.part first.

Some strategies, such as FSDP with sharded states and DeepSpeed, write a folder instead of a file, each rank its part:

checkpoints/step-00000120.ckpt/complete.json   written last: the sizes of all files in it; without it, it is not whole
            last.ckpt, best.ckpt               symbolic links, as a folder has no further names
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_json
from ..runs.folder import RunFolder
from .whole import COMPLETE, STEP_FILE, damage, is_complete, is_of_another

# What a kill in the middle of writing one of the files above leaves behind.
PART = re.compile(r"\.(step-\d+\.ckpt|last\.ckpt|best\.ckpt|meta\.json)\.\d+\.part")


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or unreadable; the message is one line that says which and what to do."""


@dataclass
class Found:
    """A checkpoint to resume from.

    Attributes:
        path: the file.
        step: optimizer steps done; None if neither the name nor meta.json tells.
        epoch: epochs done; None if meta.json does not tell.
        damaged: newer checkpoints that could not be used, one line each.
    """

    path: Path
    step: int | None = None
    epoch: int | None = None
    damaged: list[str] = field(default_factory=list)


def give_name(file: Path, name: Path) -> None:
    """Give a file or a folder another name, replacing what had it, without a moment in which the name is missing."""
    part = name.with_name(f".{name.name}.{os.getpid()}.part")
    if name.is_dir() and not name.is_symlink():
        remove_checkpoint(name)  # a copy of a folder, made by a tool that follows links

    if file.is_dir():
        part.unlink(missing_ok=True)
        part.symlink_to(file.name)
        os.replace(part, name)
        return

    if name.exists() and name.samefile(file):
        return  # os.replace would do nothing, and leave the part
    try:
        link(file, part)
    except OSError:  # no hard links here
        shutil.copyfile(file, part)
    os.replace(part, name)


def link(file: Path, name: Path) -> None:
    """Give a file a further name, whatever a killed process has left under it."""
    try:
        os.link(file, name)
    except FileExistsError:
        name.unlink()
        os.link(file, name)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, a file or a folder. A kill in between leaves a folder that is known not to be whole."""
    if path.is_dir() and not path.is_symlink():
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes have left of checkpoints that they were writing: files as large as whole ones.

    Call it when nobody writes: at the start of a run, on rank 0.
    """
    for file in folder.glob(".*.part"):
        if PART.fullmatch(file.name):
            file.unlink(missing_ok=True)

    for path in step_files(folder).values():
        if not is_complete(path):
            remove_checkpoint(path)


def step_files(folder: Path) -> dict[int, Path]:
    """Step → file of the checkpoints in a folder, ascending.

    Raises:
        OSError: the folder can't be read. A missing one holds none: {}.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}

    files = {}
    for name in names:
        match = STEP_FILE.fullmatch(name)
        if match:
            files[int(match[1])] = folder / name
    return dict(sorted(files.items()))


def whole_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder that are complete, ascending.

    Raises:
        OSError: as `step_files`.
    """
    return [step for step, path in step_files(folder).items() if is_complete(path)]


def read_meta(folder: Path) -> dict[str, Any]:
    """Content of meta.json; {} if there is none or it can't be understood: it is a help, never a condition."""
    try:
        return json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json; after a power cut, the one before may be there, until the folder is synced."""
    write_json(folder / "meta.json", meta, lasting=False)


def whole_one(folder: Path) -> str:
    """One line about what is there when a save has failed: which checkpoint there is to resume from."""
    steps = whole_steps(folder)
    if not steps:
        return "there is no earlier one"
    return f"the one of step {steps[-1]} is still there"


def is_own(checkpoint: str | Path | None, run_folder: str | Path) -> bool:
    """True if a checkpoint is one of the run's own, not of another run or from elsewhere."""
    if checkpoint is None:
        return False
    return Path(checkpoint).resolve().parent == (Path(run_folder) / "checkpoints").resolve()


def find_checkpoint(
    folder: str | Path, resume: str = "auto", check: Callable[[Path], str | None] = damage
) -> Found | None:
    """Find the checkpoint to resume from.

    Args:
        folder: the run's checkpoints/.
        resume: `auto`: the newest whole one, None if there is none. `must`: the same, but there must be one. `never`:
            None. Otherwise a path, or a name in the folder (`best`, `last`, `step-00000120`).
        check: says what is wrong with a checkpoint, or None. Who has torch knows more: `checkpoint_io.unusable`.

    Raises:
        CheckpointError: the folder could not be read, the checkpoint asked for is missing or damaged, or none is whole.
            To start afresh then would write over what a person could still save.
    """
    folder = Path(folder)
    if resume == "never":
        return None

    try:
        if resume in ("auto", "must"):
            found = _newest_whole(folder, check)
        else:
            found = _named(folder, resume, check)
    except OSError as error:
        raise CheckpointError(
            f"could not look for checkpoints in {folder}: {error.strerror or error}; make it readable, or start afresh "
            "with --resume never"
        ) from error

    if found is None and resume == "must":
        raise CheckpointError(f"--resume must, but there is no checkpoint in {folder}")
    return found


def check_nothing_lost(folder: RunFolder) -> None:
    """Check that a run without checkpoints has never saved one: what is away at the moment must not be trained anew.

    Raises:
        CheckpointError: it has saved one, or nobody can tell.
    """
    before = folder.status()
    if before.get("step"):
        problem = f"says that step {before['step']} was saved, but"
    elif before.get("state") == "unknown":
        problem = "is damaged, and"
    else:
        return
    raise CheckpointError(
        f"{folder.status_file} {problem} {folder.path / 'checkpoints'} has no checkpoint: purged, or on a disk that is "
        "not mounted? Bring them back, or start over with --resume never"
    )


def _newest_whole(folder: Path, check: Callable[[Path], str | None]) -> Found | None:
    """The newest checkpoint that is not damaged; None if there has never been a whole one.

    Raises:
        CheckpointError: there are some, but all are damaged.
    """
    candidates = list(reversed(step_files(folder).values()))

    # Usually these two are names of step files. They are not if a person has deleted those, or copied these.
    for file in (folder / "last.ckpt", folder / "best.ckpt"):
        if file.exists() and not any(file.samefile(other) for other in candidates):
            candidates.append(file)

    damaged: list[str] = []
    any_was_whole = False
    for file in candidates:
        problem = check(file)
        if problem is None:
            return _described(file, damaged)
        damaged.append(f"checkpoint {file} is damaged: {problem}")
        any_was_whole = any_was_whole or is_complete(file)

    # A kill in the very first save of a folder leaves one that never was a checkpoint.
    if any_was_whole:
        raise CheckpointError(
            f"none of the {len(damaged)} checkpoints in {folder} is whole; restore one, or start afresh with "
            f"--resume never; the newest: {problem}"
        )
    return None


def _named(folder: Path, name: str, check: Callable[[Path], str | None]) -> Found:
    """The checkpoint with this path, or with this name in the folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    file = Path(name)
    is_folder = file.is_dir() and ((file / COMPLETE).exists() or is_of_another(file))
    if not file.is_file() and not is_folder:
        file = folder / f"{name.removesuffix('.ckpt')}.ckpt"
    if not file.exists():
        names = ", ".join(sorted(path.stem for path in folder.glob("*.ckpt"))) or "none"
        raise CheckpointError(f"no checkpoint {name}: not a file, and {folder} has: {names}")

    problem = check(file)
    if problem:
        raise CheckpointError(f"checkpoint {file} is damaged: {problem}")
    return _described(file, [])


def _described(file: Path, damaged: list[str]) -> Found:
    """A checkpoint with its step and epoch, as far as its name or meta.json tell."""
    meta = read_meta(file.parent)
    entries = {f"step-{entry['step']:08d}": entry for entry in meta.get("kept", [])}
    for name in ("last", "best"):
        if meta.get(name):
            entries[name] = meta[name]
    entry = entries.get(file.stem, {})

    match = STEP_FILE.fullmatch(file.name)
    step = int(match[1]) if match else entry.get("step")
    return Found(file, step, entry.get("epoch"), damaged)
