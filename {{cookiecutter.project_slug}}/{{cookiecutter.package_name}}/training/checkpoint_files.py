"""Checkpoint files on disk: written whole or not at all, found again, and checked. No torch, so any tool can ask.

checkpoints/step-00000120.ckpt   the newest few; all are good for going on
            last.ckpt            the newest one   } further names (hard links) of step files, or copies where the
            best.ckpt            the best one     } file system has no hard links
            meta.json            for last, best and the kept ones: step, epoch, metrics, size, sha256
"""

import contextlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

STEP_FILE = re.compile(r"step-(\d+)\.ckpt")


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or unreadable; the message is one line that says which and what to do."""


@dataclass
class Found:
    """A checkpoint to go on from."""

    path: Path
    step: int | None = None  # optimizer steps done; None if neither the name nor meta.json tells
    epoch: int | None = None
    damaged: list[str] = field(default_factory=list)  # newer checkpoints that could not be used, one line each


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name complete and on disk, or not at all.

    The part is written beside the target, on the same file system, so that the final rename is atomic.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems can't; the rename is still atomic
    finally:
        os.close(descriptor)


def give_name(file: Path, name: Path) -> None:
    """Give a file another name, replacing what had it, without a moment in which the name is missing."""
    part = name.with_name(f"{name.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(file, part)
    except OSError:  # no hard links here
        shutil.copyfile(file, part)
    os.replace(part, name)
    part.unlink(missing_ok=True)  # os.replace leaves it if both are already the same file


def step_files(folder: Path) -> dict[int, Path]:
    """Step → file of the checkpoints in a folder, ascending.

    Raises:
        OSError: the folder can't be read (a missing one holds none: {}).
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    return dict(sorted((int(match[1]), folder / name) for name in names if (match := STEP_FILE.fullmatch(name))))


def read_meta(folder: Path) -> dict[str, Any]:
    """Content of meta.json; {} if there is none or it can't be understood: it is a help, never a condition."""
    try:
        return json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json."""
    with atomic_write(folder / "meta.json") as file:
        file.write((json.dumps(meta, indent=2) + "\n").encode())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Reads it all: torch.save writes zip files with a checksum per tensor.

    Raises:
        OSError: the file can't be read, which is not the same as damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        return f"checksum of {broken} is wrong" if broken else None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        return f"cut off or overwritten ({error})"


def find(folder: str | Path, resume: str = "auto") -> Found | None:
    """Find the checkpoint to go on from.

    Args:
        folder: the run's checkpoints/.
        resume: `auto`: the newest whole one, None if there is none. `must`: the same, but there must be one. `never`:
            None. Otherwise a path, or a name in the folder (`best`, `last`, `step-00000120`).

    Raises:
        CheckpointError: the folder could not be read, the checkpoint asked for is missing or damaged, or none is whole.
            To start afresh then would write over what a person could still save.
    """
    folder = Path(folder)
    if resume == "never":
        return None
    try:
        if resume not in ("auto", "must"):
            return _named(folder, resume)
        candidates = [file for _, file in reversed(step_files(folder).items())]
        for file in (folder / "last.ckpt", folder / "best.ckpt"):
            if file.exists() and not any(file.samefile(other) for other in candidates):
                candidates.append(file)
        damaged = []
        for file in candidates:
            if (problem := damage(file)) is None:
                return _described(file, damaged)
            damaged.append(f"checkpoint {file} is damaged: {problem}")
    except OSError as error:
        raise CheckpointError(
            f"could not look for checkpoints in {folder}: {error.strerror or error}; make it readable, or start afresh "
            "with --resume never"
        ) from error
    if damaged:
        raise CheckpointError(
            f"none of the {len(damaged)} checkpoints in {folder} is whole; restore one, or start afresh with "
            "--resume never"
        )
    if resume == "must":
        raise CheckpointError(f"--resume must, but there is no checkpoint in {folder}")
    return None


def _named(folder: Path, name: str) -> Found:
    """The checkpoint with this path, or with this name in the folder."""
    inside = folder / f"{name.removesuffix('.ckpt')}.ckpt"
    file = Path(name) if Path(name).is_file() else inside
    if not file.exists():
        have = ", ".join(sorted(path.stem for path in folder.glob("*.ckpt"))) or "none"
        raise CheckpointError(f"no checkpoint {name}: not a file, and {folder} has: {have}")
    if problem := damage(file):
        raise CheckpointError(f"checkpoint {file} is damaged: {problem}")
    return _described(file, [])


def _described(file: Path, damaged: list[str]) -> Found:
    """A checkpoint with its step and epoch, as far as its name or meta.json tell."""
    meta = read_meta(file.parent)
    entries = {f"step-{entry['step']:08d}": entry for entry in meta.get("kept", [])}
    entries.update({name: meta[name] for name in ("last", "best") if meta.get(name)})
    entry = entries.get(file.stem, {})
    match = STEP_FILE.fullmatch(file.name)
    return Found(file, int(match[1]) if match else entry.get("step"), entry.get("epoch"), damaged)
