"""What is about to go up, kept in .mirror/ of the run's folder: hard links of checkpoints, and copies of the rest.

A checkpoint is never changed once it is written, so a second name keeps it while the run removes old ones: that takes
no time and no space.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import hash_of
from ..survive.checkpoint_files import read_meta, whole_steps
from .pointer import Copy, Piece

FOLDER = ".mirror"

# What of a run's folder goes up beside checkpoints. Predictions and the files of trackers do not.
SMALL = ("*.yaml", "*.json", "*.jsonl", "*.csv", "splits*.npz", "cka/*", "logs/*")


@dataclass
class Staged:
    """A checkpoint that is to go up.

    Attributes:
        step, epoch: of the checkpoint.
        files: its place in the run's folder → the file that is to be read.
        links: the folder of these files, if it is there for this upload alone.
        sha256: of a checkpoint that is one file, as far as it is known.
        meta: what meta.json said when it was the newest; None if nobody knows.
    """

    step: int
    epoch: int | None
    files: dict[str, Path]
    links: Path
    sha256: str | None = None
    meta: bytes | None = None

    def release(self) -> None:
        """Give up the second names."""
        shutil.rmtree(self.links, ignore_errors=True)

    def copy(self) -> Copy:
        """What the pointer will say of it. Reads all of it where its checksum is not known.

        Raises:
            OSError: it can't be read, or has gone.
        """
        known = self.sha256 if len(self.files) == 1 else None
        pieces = [piece_of(place, file, known) for place, file in self.files.items()]
        return Copy(self.step, self.epoch, tuple(pieces))


def piece_of(place: str, file: Path, sha256: str | None = None) -> Piece:
    """A file here as a file in the mirror."""
    return Piece(place, file.stat().st_size, sha256 or hash_of(file))


class Staging:
    """The folder .mirror/ of a run.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / FOLDER
        self.meta_file = run / "checkpoints" / "meta.json"
        self._numbers = itertools.count()

    def clear(self) -> None:
        """Remove what attempts that were killed have left."""
        for path in self.folder.glob("*/"):
            shutil.rmtree(path, ignore_errors=True)

    def newest(self, entry: Mapping[str, Any]) -> Staged | None:
        """Keep a checkpoint that has just been written; None if it has gone already.

        Args:
            entry: what meta.json says about it.
        """
        staged = self._keep(entry, self.run / "checkpoints" / str(entry["file"]))
        if staged is not None:
            with contextlib.suppress(OSError):
                staged.meta = self.meta_file.read_bytes()
        return staged

    def best(self) -> Staged | None:
        """Keep the best checkpoint, if there is one."""
        entry = read_meta(self.run / "checkpoints").get("best")
        path = self.run / "checkpoints" / "best.ckpt"
        if not entry or not path.exists():
            return None
        return self._keep(entry, path.resolve() if path.is_symlink() else path)

    def _keep(self, entry: Mapping[str, Any], path: Path) -> Staged | None:
        """Give all files of a checkpoint a second name, or leave them where that can't be."""
        target = self.folder / f"links-{next(self._numbers)}"
        place = f"checkpoints/step-{entry['step']:08d}.ckpt"
        files = {}
        try:
            target.mkdir(parents=True)
            for file in files_of(path):
                inside = file.relative_to(path.parent if path.is_file() else path)
                full = place if path.is_file() else f"{place}/{inside.as_posix()}"
                files[full] = linked(file, target / inside)
        except OSError:
            files = {}
        staged = Staged(entry["step"], entry.get("epoch"), files, target, entry.get("sha256"))
        if files:
            return staged
        staged.release()
        return None

    def small_files(self, meta: bytes | None = None) -> dict[Piece, Path]:
        """Copies of the small files, as they are now: the run goes on writing to some of them.

        Args:
            meta: what meta.json says of the checkpoint that goes up with them; the run's own may know a newer one.

        Raises:
            OSError: one can't be copied, as the disk is full for example.
        """
        copies = {}
        folder = self.folder / "small"
        shutil.rmtree(folder, ignore_errors=True)
        found = {file for pattern in SMALL for file in self.run.glob(pattern)}
        for file in [*sorted(found), self.meta_file]:
            if file.name.startswith(".") or not file.is_file():
                continue
            place = file.relative_to(self.run)
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if meta is not None and file == self.meta_file:
                    target.write_bytes(meta)
                else:
                    shutil.copyfile(file, target)
            except FileNotFoundError:
                continue  # replaced or removed at this moment; next time
            copies[piece_of(place.as_posix(), target)] = target
        return copies

    def on_disk(self) -> Staged | None:
        """The newest whole checkpoint in the run's folder, wherever it comes from."""
        steps = whole_steps(self.run / "checkpoints")
        if not steps:
            return None
        kept = {entry["step"]: entry for entry in read_meta(self.run / "checkpoints").get("kept", [])}
        file = f"step-{steps[-1]:08d}.ckpt"

        # Its checksum is computed anew: what is in meta.json may be of a file that has been replaced.
        entry = {**kept.get(steps[-1], {}), "step": steps[-1], "file": file, "sha256": None}
        return self.newest(entry)


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint: itself, or all that are in it."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def linked(file: Path, target: Path) -> Path:
    """A second name for a file; the file itself where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except FileNotFoundError:
        raise
    except OSError:
        return file
    return target
