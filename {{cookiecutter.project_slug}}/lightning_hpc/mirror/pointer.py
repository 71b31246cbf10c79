"""The pointer, latest.json: what a run's folder in the mirror holds that counts, and which machine has the run.

It is written last, alone, after all that it names is there. What it does not name does not count.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .settings import MirrorError

POINTER = "latest.json"
VERSION = 1
DIGITS = 8  # of a file's SHA-256 that are in its name

Owner = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A file in the mirror, which never changes: its name has the beginning of its checksum.

    Attributes:
        place: where it belongs in the run's folder, with slashes.
        size: in bytes.
        sha256: of its content.
    """

    place: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """What it is called in the mirror: checkpoints/step-00000120-1f0e9a3b.ckpt."""
        path = PurePosixPath(self.place)
        return str(path.with_name(f"{path.stem}-{self.sha256[:DIGITS]}{path.suffix}"))


@dataclass(frozen=True)
class Copy:
    """A checkpoint in the mirror.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done, if that is known.
        pieces: its file, or all files of one that is a folder.
    """

    step: int
    epoch: int | None
    pieces: tuple[Piece, ...]

    @property
    def place(self) -> str:
        """The checkpoint's own name in the run's folder: checkpoints/step-00000120.ckpt."""
        return "/".join(PurePosixPath(self.pieces[0].place).parts[:2])


@dataclass(frozen=True)
class Pointer:
    """What latest.json says.

    Attributes:
        identity, experiment, folder: the run's identity, its experiment, and the name of its folder.
        state: how the run stood, as in status.json.
        released: True if nobody trains it, so that any machine may continue it.
        attempt: the attempt that has written this.
        owner: the process that has written this, see fence.py.
        heartbeat: when, in seconds since 1970 by the clock of that machine.
        every, notice: seconds between two signs of life; seconds of silence after which others may take over.
        checkpoints: the newest first; there are two, in case one is damaged.
        best: the best one.
        resumed: the one that this attempt has resumed from, which stays until the next.
        left: those of attempts that --resume never has left behind; they stay.
        files: all other files.
    """

    identity: str
    experiment: str
    folder: str
    state: str
    released: bool
    attempt: int
    owner: Owner
    heartbeat: float
    every: float
    notice: float
    checkpoints: tuple[Copy, ...] = ()
    best: Copy | None = None
    resumed: Copy | None = None
    left: tuple[Copy, ...] = ()
    files: tuple[Piece, ...] = field(default=())

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return self.checkpoints[0].step if self.checkpoints else 0

    def copies(self) -> list[Copy]:
        """All checkpoints that it names."""
        return [copy for copy in (*self.checkpoints, self.best, self.resumed, *self.left) if copy is not None]

    def names(self) -> set[str]:
        """All files in the mirror that it names."""
        return names_of(self.copies()) | {piece.name for piece in self.files}

    def text(self) -> str:
        """The text of latest.json."""
        epoch = self.checkpoints[0].epoch if self.checkpoints else None
        content = dict(version=VERSION, step=self.step, epoch=epoch, **asdict(self))
        return json.dumps(content, indent=2) + "\n"


def names_of(copies: Iterable[Copy]) -> set[str]:
    """The files of checkpoints in the mirror."""
    return {piece.name for copy in copies for piece in copy.pieces}


def read_pointer(file: Path, address: str) -> Pointer:
    """Understand a latest.json.

    Args:
        file: a copy of it here.
        address: where it is, for errors.

    Raises:
        MirrorError: it can't be understood, or it is of a later version.
        OSError: the file can't be read.
    """
    try:
        content = json.loads(file.read_bytes())
        if content["version"] > VERSION:
            raise MirrorError(
                f"{address} is of a later version of lightning_hpc: bring this project up to date (cruft update)"
            )
        return understood(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, MirrorError):
            raise
        raise MirrorError(
            f"{address} can't be understood ({type(error).__name__}: {error}): put a whole one there, or "
            "delete it and start afresh with --resume never, which leaves all else"
        ) from None


def understood(content: Mapping[str, Any]) -> Pointer:
    """A pointer from what is in the file.

    Raises:
        ValueError, KeyError, TypeError: it is no pointer.
    """
    known = {name: content[name] for name in Pointer.__dataclass_fields__}
    known["checkpoints"] = tuple(copy_in(copy) for copy in content["checkpoints"])
    known["left"] = tuple(copy_in(copy) for copy in content["left"])
    for name in ("best", "resumed"):
        known[name] = copy_in(content[name]) if content[name] else None
    known["files"] = tuple(piece_in(piece) for piece in content["files"])
    known["heartbeat"], known["notice"] = float(content["heartbeat"]), float(content["notice"])
    if PurePosixPath(known["folder"]).name != known["folder"]:
        raise ValueError(f"{known['folder']} is no folder's name")
    return Pointer(**known)


def copy_in(content: Mapping[str, Any]) -> Copy:
    pieces = tuple(piece_in(piece) for piece in content["pieces"])
    copy = Copy(int(content["step"]), content["epoch"], pieces)
    if not pieces or any(not piece.place.startswith(f"checkpoints/step-{copy.step:08d}.ckpt") for piece in pieces):
        raise ValueError(f"the checkpoint of step {copy.step} has other files")
    return copy


def piece_in(content: Mapping[str, Any]) -> Piece:
    """A file in a pointer. Somebody else may have written it, so it must stay in the run's folder.

    Raises:
        ValueError: it leads out.
    """
    place = PurePosixPath(content["place"])
    if place.is_absolute() or ".." in place.parts or not place.name or "\\" in str(place):
        raise ValueError(f"{place} leads out of the run's folder")
    if len(content["sha256"]) != 64:
        raise ValueError(f"{place} has no checksum")
    return Piece(str(place), int(content["size"]), str(content["sha256"]))
