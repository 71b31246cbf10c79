"""The fingerprint of the code that can change a run's result, and the copies of it that all runs share.

runs/.code/
    FINGERPRINT.json       path → digest of each file of this version of the code
    ROOT.index             what the files in a folder of code were when they were last read
    ab/cdef…               the files, named by their digests: each is kept once, whatever number of runs used it

A run notes the fingerprint in its status.json. Years later, `diff runs/.code/ab/cdef… model.py` shows what has changed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..files import read_json, write_json
from .index import digests_of, index_of
from .keys import PROGRAMS, key_in
from .listing import LARGEST_TEXT, TEXTS, Code, read_code
from .snapshot import is_snapshot, read_note

STORE = ".code"  # in the folder of runs

# Folders of the project that can't change a result; settings have the run's identity for themselves.
NO_EFFECT = {"configs", "docs", "kubernetes", "slurm", "tests"}

# Files beside Train.py that describe the project, such as pyproject.toml.
DESCRIPTIONS = {".cfg", ".ini", ".toml", ".yaml", ".yml"}


def read_fingerprint(root: Path, code: Code | None = None, store: Path | None = None) -> dict[str, str]:
    """Path → digest of each file that can change a result.

    Args:
        root: the project's folder, or a snapshot of it.
        code: its files, if they are known.
        store: RUNS/.code, to read only what has changed since the last time; None: all is read.
    """
    # A snapshot has been told which files are code; those of earlier versions of this package have not.
    names = read_note(root).get("files") if is_snapshot(root) else None
    if names is None:
        names = (code or read_code(root)).files

    index = None if store is None else index_of(root, store)
    return digests_of(root, filter(can_matter, names), digest_of, index)


def can_matter(name: str) -> bool:
    """True if a file can change a result, going by its path."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    if hidden or path.parts[0] in NO_EFFECT:
        return False
    if len(path.parts) == 1 and path.suffix in DESCRIPTIONS:
        return False
    return path.suffix.lower() in PROGRAMS | TEXTS


def digest_of(file: Path) -> str | None:
    """32 hexadecimal digits for a file's content; None if there is no such file."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return digest_of_content(content)


def digest_of_content(content: bytes) -> str:
    """32 hexadecimal digits for a content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def name_of(digests: Mapping[str, str]) -> str:
    """16 hexadecimal digits for a version of the code."""
    text = json.dumps(digests, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def keep(digests: Mapping[str, str], root: Path, store: Path) -> str:
    """Keep a version of the code for all runs that use it; returns its fingerprint.

    Large files, and those that have what looks like a key, are known by their digests only.

    Args:
        digests: path → digest.
        root: the folder of the code.
        store: where the copies go, RUNS/.code.

    Raises:
        OSError: they can't be written.
    """
    fingerprint = name_of(digests)
    manifest = store / f"{fingerprint}.json"
    if manifest.exists():
        return fingerprint

    store.mkdir(parents=True, exist_ok=True)
    for name, digest in digests.items():
        copy = copy_of(digest, store)
        if not copy.exists():
            keep_file(root / name, digest, copy)

    # Last: a version that has a manifest is complete.
    write_json(manifest, dict(digests))
    return fingerprint


def keep_file(file: Path, digest: str, copy: Path) -> None:
    """Keep one file, unless it is large, has a key in it, or has been edited since its digest was made."""
    content = file.read_bytes()
    is_large = len(content) > LARGEST_TEXT and file.suffix not in PROGRAMS
    is_edited = digest_of_content(content) != digest
    if is_large or is_edited or key_in(content):
        return

    # Appears whole, but need not survive a power cut: to wait for the disk takes a second for all files together.
    copy.parent.mkdir(exist_ok=True)
    part = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, copy)


def copy_of(digest: str, store: Path) -> Path:
    """Where the file of a digest is kept, if it is."""
    return store / digest[:2] / digest[2:]


def kept(fingerprint: str, store: Path) -> dict[str, str]:
    """Path → digest of a version that was kept; {} if nobody knows it any more."""
    return read_json(store / f"{fingerprint}.json")
