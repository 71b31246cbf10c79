"""Files that appear whole or not at all, results moved aside, checksums, and JSON.

Only the standard library is imported with this file: the post-generation hook uses it too, where nothing else may be.
"""

import contextlib
import glob
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

BUFFER = 2**20  # bytes that are written at once: what is written in small pieces would have hundreds of calls


@contextlib.contextmanager
def atomic_write(path: Path, lasting: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name complete and on disk, or not at all.

    The part is written beside the target, on the same file system, so that the final rename is atomic.

    Args:
        path: the target.
        lasting: whether the new file must still have the name after a power cut. Otherwise the old one may have it
            again, until the folder is synced for some other file; either of them is whole.

    Raises:
        OSError: it can't be written, because the disk is full for example; what was there before is still there.
    """
    # Two processes that write the same file must not write the same part.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with new_file(part) as file:
            yield file
            # Without this, a power cut after the rename could leave an empty file under the name.
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

    if lasting:
        sync_folder(path.parent)


def new_file(path: Path, buffering: int = BUFFER) -> Any:
    """Make a file, open to be written and read in bytes; one that a killed process has left under the name goes.

    Args:
        path: the file.
        buffering: bytes; 0: what is written is in the file at once.
    """
    # "x" makes the file, or fails: where others may write, the name could be a link to a file of the user's.
    try:
        return path.open("x+b", buffering)
    except FileExistsError:
        path.unlink()
        return path.open("x+b", buffering)


def write_all(file: RawIOBase, content: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    while content:
        written = file.write(content) or 0
        content = content[written:]


def write_atomically(path: Path, text: str, lasting: bool = True) -> None:
    """Write a text file so that a reader, or a kill at any moment, finds the old text or the new one, never a part.

    Args:
        path: the file.
        text: its content.
        lasting: as for `atomic_write`.
    """
    with atomic_write(path, lasting) as file:
        file.write(text.encode("utf-8"))


def remove_parts(path: Path) -> None:
    """Remove what killed processes have left of a file that they were writing.

    Only for a file that nobody else can be writing now, since its folder is locked for example.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems can't; the rename is still atomic
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; {} if there is none, or what is there is no JSON, such as a part of one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # of JSON, or of the text
        return {}


def write_json(path: Path, content: Any, lasting: bool = True) -> None:
    """Write a JSON file, two spaces a level, as `write_atomically` does; what JSON has no word for becomes text.

    NaN and infinity become null: Python would write words that other programs can't read.
    """
    text = json.dumps(finite(content), indent=2, default=str, allow_nan=False)
    write_atomically(path, text + "\n", lasting)


def finite(content: Any) -> Any:
    """The same lists and mappings with None for each number that is NaN or infinite."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def place_aside(path: Path) -> Path:
    """Where earlier results go when a run or an experiment starts over: .old/NAME-K beside it, K being new.

    The folder .old is made; NAME-K is not.
    """
    old = path.parent / ".old"
    old.mkdir(parents=True, exist_ok=True)
    number = 1 + sum(1 for _ in old.glob(f"{glob.escape(path.name)}-*"))
    while (old / f"{path.name}-{number}").exists():  # somebody has deleted one of those before it
        number += 1
    return old / f"{path.name}-{number}"


def hash_of(file: Path, algorithm: str = "sha256") -> str:
    """A file's checksum, in lower-case hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
