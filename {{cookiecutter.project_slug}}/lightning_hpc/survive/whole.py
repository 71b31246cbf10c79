"""Whether a checkpoint is whole: one file, or a folder, which some strategies write. No torch, so any tool can ask.

A file is whole when it has its name. In a folder, each rank writes its part in place. So it gets a list of what is in
it when all are done, and without the list it is not whole.
"""

import json
import os
import re
import zipfile
from pathlib import Path

from ..files import write_json

STEP_FILE = re.compile(r"step-(\d+)\.ckpt")

COMPLETE = "complete.json"  # the list: relative path → size in bytes

# What Lightning's own checkpoints have that are folders: of FSDP, which writes it last, and of DeepSpeed.
OF_STRATEGIES = ("meta.pt", "latest")


def finish_folder(folder: Path) -> int:
    """Bring a checkpoint that is a folder to disk, and note that it is whole; returns its size in bytes."""
    sizes = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.name == COMPLETE:
            continue
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[str(file.relative_to(folder))] = file.stat().st_size

    write_json(folder / COMPLETE, sizes)
    return sum(sizes.values())


def is_complete(path: Path) -> bool:
    """True if a checkpoint was written to its end: a file has its name only then, a folder the list of its files."""
    return path.is_file() or (path / COMPLETE).exists()


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Reads it all: torch.save writes zip files with a checksum per tensor.

    Of a folder the sizes of all files are compared, and the checksums of those that are written by torch.save. The rest
    is known to the strategy alone.

    Raises:
        OSError: the file can't be read, which is not the same as damaged.
    """
    return _damage_of_folder(path) if path.is_dir() else _damage_of_file(path)


def _damage_of_file(file: Path) -> str | None:
    """What is wrong with a file that torch.save has written, or None."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        return f"cut off or overwritten ({error})"
    return f"checksum of {broken} is wrong" if broken else None


def _damage_of_folder(folder: Path) -> str | None:
    """What is wrong with a checkpoint that is a folder, or None."""
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_of_another(folder):
            return None
        return f"not written to its end, as it has no {COMPLETE}"
    except ValueError:
        return f"{COMPLETE} in it can't be understood"

    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            return f"{name} in it is missing"
        if file.stat().st_size != size:
            return f"{name} in it has {file.stat().st_size} bytes instead of {size}"

        problem = _damage_of_file(file) if file.suffix in (".pt", ".ckpt") else None
        if problem is not None:
            return f"{name} in it: {problem}"
    return None


def is_of_another(folder: Path) -> bool:
    """True for a folder that Lightning has written by itself, such as with Trainer.save_checkpoint; it has no list."""
    is_ours = STEP_FILE.fullmatch(folder.resolve().name) is not None
    return not is_ours and any((folder / name).is_file() for name in OF_STRATEGIES)
