"""What comes down: the newest whole checkpoint of a run, the best one, and the small files; each checked first."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..files import hash_of, sync_folder
from ..remote import Missing, StoreError
from ..runs.folder import EXIT_CODES, RunFolder
from ..survive.checkpoint_files import give_name, remove_checkpoint
from ..survive.whole import COMPLETE
from .pointer import Copy, Piece, Pointer
from .run_mirror import RunMirror
from .settings import MirrorError
from .staging import FOLDER

Check = Callable[[Path], str | None]
Tell = Callable[[str], None]

PAUSES = (1.0, 3.0, 10.0, 30.0)  # seconds between the tries of a question, before a run begins

FOLLOWED = 10  # times that what is fetched may be replaced meanwhile, by the machine that trains the run

GO_WITHOUT = "go on from what is here alone with --mirror.url null"


@dataclass
class Fetched:
    """What was fetched.

    Attributes:
        pointer: what has named it.
        step: of the checkpoint; None if there was none.
        damaged: copies that could not be used, one line each.
        files, size: how many files, and bytes.
    """

    pointer: Pointer
    step: int | None = None
    damaged: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0


class Damaged(Exception):
    """A file in the mirror is not what the pointer says; the message is one line."""


class Replaced(Exception):
    """A file has gone, as the machine that trains the run has uploaded later ones.

    Args:
        pointer: what names those.
    """

    def __init__(self, pointer: Pointer) -> None:
        super().__init__()
        self.pointer = pointer


def asked(question: Callable[[], Any]) -> Any:
    """What a mirror answers; it is asked for about a minute if it does not.

    Raises:
        MirrorError: it could not be asked, which is not the same as "there is nothing".
    """
    for pause in (*PAUSES, None):
        try:
            return question()
        except Missing:
            raise
        except StoreError as error:
            if error.permanent or pause is None:
                raise MirrorError(
                    f"could not look into the mirror: {error}. That is not the same as an empty one, so nothing was "
                    f"done. Try again when it can be reached, or {GO_WITHOUT}",
                    page="mirror.md#how-a-run-begins",
                ) from error
            time.sleep(max(pause, min(error.retry_after or 0.0, 60.0)))
    raise AssertionError("the last pause is None")


class Fetcher:
    """Brings files of a run from its mirror into its folder here. Whoever calls it has locked that.

    Args:
        mirror: the run's folder in the mirror.
        run: the run's folder here.
        check: says what is wrong with a checkpoint, or None.
        tell: is told each file before it comes.
    """

    def __init__(self, mirror: RunMirror, run: Path, check: Check, tell: Tell = lambda line: None) -> None:
        self.mirror, self.run, self.check, self.tell = mirror, run, check, tell
        self.parts = run / FOLDER / "fetched"
        self.files = self.size = 0

    def newest(self, pointer: Pointer) -> Fetched:
        """Fetch the newest whole checkpoint, the best one, and the small files.

        Raises:
            MirrorError: no checkpoint is whole, or the mirror can't be asked.
            OSError: this disk is full, for example; what was here before is still here.
        """
        return self._followed(pointer, self._newest)

    def small(self, pointer: Pointer) -> Fetched:
        """Fetch the small files: settings, status, metrics, pictures.

        Raises:
            MirrorError, OSError: as `newest`.
        """
        return self._followed(pointer, self._small)

    def _followed(self, pointer: Pointer, fetch: Callable[[], None]) -> Fetched:
        """Fetch what a pointer names or, if that is replaced meanwhile, what the next one does."""
        for _ in range(FOLLOWED):
            self.done = Fetched(pointer)
            try:
                fetch()
                return replace(self.done, files=self.files, size=self.size)
            except Replaced as later:
                pointer = later.pointer
            finally:
                shutil.rmtree(self.parts, ignore_errors=True)
        raise MirrorError(f"{self.mirror.address}: the run goes on faster than it can be fetched; try again later")

    def _newest(self) -> None:
        """Fetch the checkpoints that count, then the small files."""
        pointer = self.done.pointer
        for copy in pointer.checkpoints:
            if self._checkpoint(copy):
                self.done.step = copy.step
                break
        if pointer.checkpoints and self.done.step is None:
            raise MirrorError(
                f"none of the {len(pointer.checkpoints)} checkpoints in {self.mirror.address} is whole: "
                f"{self.done.damaged[0]}. Restore one there, {GO_WITHOUT}, or start afresh with --resume never",
                page="mirror.md#how-a-run-begins",
            )

        best = pointer.best
        if best is not None and self._checkpoint(best):
            give_name(self.run / best.place, self.run / "checkpoints" / "best.ckpt")
        if self.done.step is not None:
            newest = next(copy for copy in pointer.checkpoints if copy.step == self.done.step)
            give_name(self.run / newest.place, self.run / "checkpoints" / "last.ckpt")
        self._small()
        self._check_end()

    def _small(self) -> None:
        """Fetch the small files; status.json comes last."""
        pointer = self.done.pointer
        last = [piece for piece in pointer.files if piece.place == "status.json"]
        for piece in [*(piece for piece in pointer.files if piece not in last), *last]:
            try:
                self._place(piece, self.run / piece.place)
            except Damaged as error:
                if piece.place == "status.json":
                    raise MirrorError(f"{error}: put a whole one there, or {GO_WITHOUT}") from None
                self.done.damaged.append(str(error))

    def _check_end(self) -> None:
        """Write down that a run which is done is to be continued, if what it had at its end could not be fetched."""
        folder, pointer = RunFolder(self.run), self.done.pointer
        end = folder.status().get("step", pointer.step)
        if pointer.state != "done" or self.done.step in (None, end):
            return
        reason = f"the checkpoint of its end, of step {end}, is damaged in the mirror, or missing"
        folder.update(state="interrupted", reason=reason, exit_code=EXIT_CODES["interrupted"])

    def _checkpoint(self, copy: Copy) -> bool:
        """Fetch a checkpoint; False if it is damaged."""
        target = self.run / copy.place
        try:
            if self._is_folder(copy):
                self._folder(copy, target)
            else:
                self._place(copy.pieces[0], target)
            problem = self.check(target)
        except Damaged as error:
            self.done.damaged.append(str(error))
            return False

        if problem is not None:
            self.done.damaged.append(f"{self.mirror.address}/{copy.place} is damaged: {problem}")
            remove_checkpoint(target)
            return False
        return True

    def _is_folder(self, copy: Copy) -> bool:
        return any(piece.place != copy.place for piece in copy.pieces)

    def _folder(self, copy: Copy, target: Path) -> None:
        """Fetch a checkpoint that is a folder; the list that makes it a whole one comes last."""
        last = f"{copy.place}/{COMPLETE}"
        if target.exists() and not all(self._is_here(piece) for piece in copy.pieces):
            remove_checkpoint(target)
        for piece in sorted(copy.pieces, key=lambda piece: piece.place == last):
            self._place(piece, self.run / piece.place)

    def _is_here(self, piece: Piece) -> bool:
        """True if the folder has this file already."""
        file = self.run / piece.place
        return file.is_file() and file.stat().st_size == piece.size and hash_of(file) == piece.sha256

    def _place(self, piece: Piece, target: Path) -> None:
        """Fetch a file, check it, and only then put it in its place.

        Raises:
            Damaged: it is not there, or not what the pointer says.
            Replaced: it is no longer there, and not named any more.
        """
        if self._is_here(piece):
            return
        self.tell(f"{piece.place} ({piece.size / 1e6:,.1f} MB)")
        part = self.parts / piece.name
        try:
            asked(lambda: self.mirror.get(piece, part))
        except Missing:
            there = asked(self.mirror.read)
            if there is not None and piece.name not in there.names():
                raise Replaced(there) from None
            raise Damaged(f"{self.mirror.address}/{piece.name} is not there, although the pointer names it") from None

        size, found = part.stat().st_size, hash_of(part)
        if (size, found) != (piece.size, piece.sha256):
            part.unlink()
            raise Damaged(
                f"{self.mirror.address}/{piece.name} is damaged: {size:,} of {piece.size:,} bytes, SHA-256 "
                f"{found[:8]} instead of {piece.sha256[:8]}"
            )

        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            remove_checkpoint(target)
        os.replace(part, target)
        sync_folder(target.parent)
        self.files += 1
        self.size += piece.size


def total(pieces: Iterable[Piece]) -> str:
    """`12 files, 34.5 MB`."""
    pieces = list(pieces)
    return f"{len(pieces)} file{'s' * (len(pieces) != 1)}, {sum(piece.size for piece in pieces) / 1e6:,.1f} MB"
