"""How a checkpoint is written and read: whole or not at all, plain data only."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from ..files import atomic_write
from ..values.plain_data import NotPlain, plain_checkpoint
from .checkpoint_files import CheckpointError, remove_checkpoint
from .whole import damage

SMALL = 2**24  # bytes that are read in no time


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target and renames it when it is on disk; reads plain data only.

    The name itself may be gone after a power cut, until the folder is synced: saving/publish.py does that.

    Attributes:
        written: size and SHA-256 of the file written last.
    """

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}
        self._warnings: set[str] = set()  # of what has been changed to be plain data

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file.

        Raises:
            OSError: the disk is full, for example; what was there before is still there.
            CheckpointError: it could not be read again; what was there before is still there.
        """
        path = Path(path)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = self.make_plain(checkpoint)

        with atomic_write(path, lasting=False) as file:
            stream = HashedStream(file)
            torch.save(checkpoint, stream)
            if stream.error is not None:
                raise stream.error

            # What can't be read must be noticed now, not at the restart. A large one is mapped into memory, as tensors
            # of any size then cost no time; a small one need not be opened for that.
            file.flush()
            file.seek(0)
            problem = unreadable(file if stream.size < SMALL else Path(file.name))
            if problem is not None:
                raise CheckpointError(f"it could not be read again: {problem}")

        self.written = dict(size=stream.size, sha256=stream.hash.hexdigest())

    def make_plain(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds as plain data, with a warning, once, of each thing that is not.

        Raises:
            CheckpointError: a part without which nothing can be resumed is no plain data.
        """
        try:
            checkpoint, lines = plain_checkpoint(checkpoint)
        except NotPlain as error:
            raise CheckpointError(
                f"{error}; a state_dict() should return numbers, strings, tensors, lists and dicts"
            ) from None

        new = [line for line in lines if line not in self._warnings]
        self._warnings.update(new)
        if new:
            rank_zero_warn(f"Checkpoints hold plain data only: {'; '.join(new)}.")
        return checkpoint

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU: tensors, numbers, strings, lists, dicts; a pickle of more can run any code.

        Raises:
            CheckpointError: it holds something else, or is damaged.
        """
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise CheckpointError(f"can't read checkpoint {path}: {reason_of(error)}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


class HashedStream:
    """A file for torch.save that hashes what is written and keeps errors: torch would hide that the disk is full."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        # After an error, torch.save still writes the end of its zip file. Nobody needs it any more.
        if self.error is None:
            try:
                self.file.write(data)
                self.hash.update(data)
                self.size += len(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: `atomic_write` does it."""


def reason_of(error: Exception) -> str:
    """Why torch.load has refused a file, in one line."""
    not_allowed = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
    if not_allowed:
        return f"it holds a {not_allowed[1]}, which is no plain data"

    # Of a web page or a picture torch says that it would be read without `weights_only`, and a dictionary lacks a key.
    if isinstance(error, pickle.UnpicklingError | LookupError):
        return "torch.save has not written it, or it is damaged"
    lines = str(error).splitlines()
    return lines[0] if lines else "it is empty or cut off"


def unreadable(file: Path | BinaryIO) -> str | None:
    """Why torch would not read a file as plain data, or None. Of a path, no tensor is read: see `unusable`."""
    try:
        torch.load(file, map_location="cpu", weights_only=True, mmap=isinstance(file, Path))
    except (pickle.UnpicklingError, RuntimeError) as error:
        return reason_of(error)
    return None


def unusable(path: Path) -> str | None:
    """Why a run could not resume from a checkpoint, or None: it is damaged, or holds what is not read.

    Raises:
        OSError: the file can't be read, which is not the same as damaged.
    """
    problem = damage(path)
    if problem is not None:
        return problem
    if path.is_file():
        return unreadable(path)

    # Of a folder that FSDP has written: all but weights and optimizers.
    rest = path / "meta.pt"
    problem = unreadable(rest) if rest.is_file() else None
    return f"{rest.name} in it: {problem}" if problem else None


def does_not_fit(error: BaseException) -> str | None:
    """What doesn't fit, in one line, if an error says that a checkpoint doesn't fit the model; None otherwise."""
    text = str(error)
    if "loaded state dict contains a parameter group" in text:
        return "the checkpoint does not fit the optimizer: it has other groups of parameters"
    if not text.startswith("Error(s) in loading state_dict"):
        return None

    # As torch says it, for each tensor in a line of its own.
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) .*?torch\.Size\((.*?)\)", text)
    problems = [f"{name} is {saved} in the checkpoint and {own} in the model" for name, saved, own in shapes]
    for kind, problem in (("Missing", "in the checkpoint"), ("Unexpected", "in the model")):
        names = re.search(rf"{kind} key\(s\) in state_dict: (.*)", text)
        problems += [f"{name} is not {problem}" for name in re.findall(r'"(.*?)"', names[1] if names else "")]

    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"the checkpoint does not fit the model: {', '.join(problems[:3])}{more}"
