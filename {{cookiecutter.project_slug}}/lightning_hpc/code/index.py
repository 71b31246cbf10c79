"""What each file of the code was when it was last read: a start need not open files that have not changed since.

As git's index does it: a file whose size, times and number are the same has the same content. A file that was changed
in the two seconds before they were noted is read again, since it may have been changed twice within its time.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ..files import write_atomically

MARKS = 4  # numbers of a file, before its digest

UNCERTAIN = 2_000_000_000  # nanoseconds: the coarsest times that file systems keep


def index_of(root: Path, store: Path) -> Path:
    """Where the files of a folder are noted: RUNS/.code/….index. Each job's copy of the code has its own."""
    place = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=8).hexdigest()
    return store / f"{place}.index"


def digests_of(
    root: Path, names: Iterable[str], digest_of: Callable[[Path], str | None], index: Path | None
) -> dict[str, str]:
    """Path → digest of the files that are there.

    Args:
        root: the folder of the code.
        names: the files' paths in it.
        digest_of: reads a file; None if there is none.
        index: where they are noted; None: all are read.
    """
    before, noted_at = ({}, 0) if index is None else read_index(index)
    digests, now = {}, {}
    for name in names:
        marks = marks_of(root / name)
        known = before.get(name)
        if known and marks == known[:-1] and max(marks[1:3]) < noted_at - UNCERTAIN:
            digest = known[-1]
        else:
            digest = digest_of(root / name)
        if digest is not None and marks is not None:
            digests[name], now[name] = digest, [*marks, digest]

    certain = all(max(known[1:3]) < noted_at - UNCERTAIN for known in now.values())
    if index is not None and not (certain and now == before):
        with contextlib.suppress(OSError):  # then they are read again
            index.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(index, json.dumps(now), lasting=False)
    return digests


def read_index(index: Path) -> tuple[dict[str, list], int]:
    """What was noted, and when, by the clock of the file system; nothing where there is none, or it is damaged."""
    try:
        noted, when = json.loads(index.read_text(encoding="utf-8")), index.stat().st_mtime_ns
        return {name: known for name, known in noted.items() if len(known) == MARKS + 1}, when
    except (OSError, ValueError, TypeError, AttributeError):
        return {}, 0


def marks_of(file: Path) -> list[int] | None:
    """What changes with a file's content: size, both times, number; None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
