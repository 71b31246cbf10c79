"""One upload: files first, then their sizes are compared, then the pointer; what it no longer names goes last.

Killed anywhere in between, the mirror has the state before or the state after, and some files more than it needs. Those
are removed by the next attempt.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..files import read_json
from ..remote import StoreError
from ..runs.folder import EXIT_CODES, RunFolder
from .fence import Taken, new_owner
from .pointer import POINTER, Copy, Piece, Pointer
from .run_mirror import RunMirror
from .settings import Mirror
from .staging import Staged, Staging


class Ending(Exception):
    """The run has ended while an upload that is not its last was made ready: the last one has to tell that."""


@dataclass
class About:
    """Which run is uploaded: its identity, its experiment and the name of its folder."""

    identity: str
    experiment: str
    folder: str


class Upload:
    """Brings the state of a run's folder into its mirror, again and again.

    Args:
        mirror: the run's folder in the mirror.
        folder: the run's folder here, which this process has locked.
        about: which run it is.
        settings: how often, and so on.
        before: the pointer that was there when this attempt began, of which the run may take over.
        resumed: the step of the checkpoint in the mirror that this attempt resumes from.
        fresh: the run starts over (--resume never), so what is there is left alone.

    Attributes:
        pointer: what this process has written last.
    """

    def __init__(
        self,
        mirror: RunMirror,
        folder: RunFolder,
        about: About,
        settings: Mirror,
        before: Pointer | None,
        resumed: int | None = None,
        fresh: bool = False,
    ) -> None:
        self.mirror, self.folder, self.about, self.settings = mirror, folder, about, settings
        self.staging = Staging(folder.path)
        self.staging.clear()
        self.me = new_owner(folder.path)
        self.pointer: Pointer | None = None
        self._before, self._fresh = before, fresh
        self._resumed = None
        if before is not None:
            self._resumed = next((copy for copy in before.checkpoints if copy.step == resumed), None)
        self._mine: set[str] | None = None  # what may be deleted once nothing names it: own, or left by a kill
        self._small: dict[Piece, Path] = {}
        self._meta: bytes | None = None  # meta.json as it was with the newest checkpoint that was to go up

    def send(self, staged: Staged | None, best: Staged | None, with_small: bool, released: bool) -> int:
        """Upload; returns how many bytes were sent beside the pointer.

        Args:
            staged: a new checkpoint, or None.
            best: the best checkpoint, or None if it has not changed.
            with_small: False for a sign of life alone.
            released: nobody trains the run from now on.

        Raises:
            StoreError: the mirror refuses or can't be reached; what was there before is still there.
            Taken: another machine has the run.
            Ending: it has ended, and this is not the last upload; nothing was sent.
            OSError: something here can't be read or written.
        """
        there = self.mirror.read()
        self._check_mine(there)

        if staged is not None:
            self._meta = staged.meta
        if with_small or self.pointer is None:
            small = self.staging.small_files(self._meta)
            # These files are newer than the checkpoint, and may tell of an end that it has not reached.
            if not released and status_in(small).get("state") in EXIT_CODES:
                raise Ending
            self._small = small
        pointer, sources = self._next(staged, best, released)

        # A sign of life: all is there already.
        if self.pointer is not None and pointer.names() == self.pointer.names():
            self.mirror.write(pointer)
            self.pointer = pointer
            return 0

        sizes = self.mirror.sizes()
        if self._mine is None:
            self._mine = set() if self._fresh else set(sizes)
        pointer = without_lost(pointer, sizes, sources)
        missing = {}
        for name, (size, file) in sources.items():
            if sizes.get(name) != size:
                missing[name] = file
        if missing:
            self._mine |= set(missing)
            self.pause()
            self.mirror.put(missing)
            self._check_sizes(pointer, self.mirror.sizes())

        self.pause()
        if missing:
            self._check_mine(self.mirror.read())  # the upload may have taken hours, without a sign of life
        self.mirror.write(pointer)
        self.pointer = pointer
        self._delete_old(pointer)
        return sum(sources[name][0] for name in missing)

    def pause(self) -> None:
        """Wait as long as the mirror wants between two changes; replaced where somebody may be in a hurry."""
        time.sleep(self.mirror.store.seconds_between_puts)

    def _check_mine(self, there: Pointer | None) -> None:
        """Check that the run has not been taken over.

        Raises:
            Taken: it has.
        """
        if there is None or there.owner["token"] == self.me["token"]:
            return
        if self.pointer is None and self._before is not None and there.owner == self._before.owner:
            return
        raise Taken(there)

    def _next(
        self, staged: Staged | None, best: Staged | None, released: bool
    ) -> tuple[Pointer, dict[str, tuple[int, Path]]]:
        """The pointer that is to come, and of the files that it names those that are here: name → size and file."""
        before, sources = self.pointer or self._before, {}
        checkpoints, best_copy, left = (), None, ()
        if before is not None:
            checkpoints, best_copy, left = before.checkpoints, before.best, before.left
        if self.pointer is None and self._fresh and before is not None:
            left = (*left, *checkpoints, *([best_copy] if best_copy else []))
            checkpoints, best_copy = (), None

        if staged is not None:
            copy = staged.copy()
            sources |= named(copy, staged)
            # What lies ahead is of a future that was left by resuming from an older checkpoint.
            checkpoints = (copy, *[old for old in checkpoints if old.step < copy.step][:1])
        if best is not None:
            best_copy = best.copy()
            sources |= named(best_copy, best)

        sources |= {piece.name: (piece.size, file) for piece, file in self._small.items()}
        status = status_in(self._small)
        pointer = Pointer(
            self.about.identity, self.about.experiment, self.about.folder,
            state=status.get("state", "unknown"), released=released, attempt=status.get("attempt", 1), owner=self.me,
            heartbeat=round(time.time(), 3), every=self.settings.every, notice=self.settings.notice,
            checkpoints=checkpoints, best=best_copy, resumed=self._resumed, left=left, files=tuple(self._small),
        )  # fmt: skip
        return pointer, sources

    def _check_sizes(self, pointer: Pointer, sizes: dict[str, int]) -> None:
        """Check that all that a pointer names is there.

        Raises:
            StoreError: it is not.
        """
        pieces = [piece for copy in pointer.copies() for piece in copy.pieces] + list(pointer.files)
        for piece in pieces:
            if sizes.get(piece.name) != piece.size:
                has = "is not there" if piece.name not in sizes else f"has {sizes[piece.name]:,} bytes there"
                raise StoreError(f"{self.mirror.address}/{piece.name} {has}, of {piece.size:,}; it is tried again")

    def _delete_old(self, pointer: Pointer) -> None:
        """Delete what this pointer does not name, of what was there when this attempt began or was put there by it."""
        old = (self._mine or set()) - pointer.names() - {POINTER}
        if old:
            self.pause()
            self.mirror.delete(sorted(old))
            self._mine = (self._mine or set()) - old


def status_in(small: Mapping[Piece, Path]) -> dict[str, Any]:
    """What the copy of status.json says; {} if there is none."""
    for piece, file in small.items():
        if piece.place == "status.json":
            return read_json(file)
    return {}


def named(copy: Copy, staged: Staged) -> dict[str, tuple[int, Path]]:
    """Name in the mirror → size and file here, of a checkpoint."""
    return {piece.name: (piece.size, staged.files[piece.place]) for piece in copy.pieces}


def without_lost(pointer: Pointer, sizes: dict[str, int], sources: dict[str, tuple[int, Path]]) -> Pointer:
    """The same pointer without checkpoints that somebody has deleted in the mirror, and that are not here any more."""

    def is_there(copy: Copy | None) -> bool:
        return copy is not None and all(
            sizes.get(piece.name) == piece.size or piece.name in sources for piece in copy.pieces
        )

    return replace(
        pointer,
        checkpoints=tuple(copy for copy in pointer.checkpoints if is_there(copy)),
        best=pointer.best if is_there(pointer.best) else None,
        resumed=pointer.resumed if is_there(pointer.resumed) else None,
        left=tuple(copy for copy in pointer.left if is_there(copy)),
    )
