"""Which files are the project's code: what git tracks, and new code that is not ignored; and what is left out, and why.

Where there is no git, what was sent from a laptop counts as tracked.

A snapshot copies these files; a run's fingerprint is made from those of them that can change its result.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .git import Listing, list_files
from .keys import PROGRAMS, key_by_name
from .sent import sent_files

# What is code although git does not track it: programs of any size, and these as long as they are small.
TEXTS = {".yaml", ".yml", ".json", ".toml", ".j2", ".txt", ".cfg", ".ini", ".csv", ".tsv"}

LARGEST_TEXT = 1_000_000  # bytes; a larger one that git does not track is data
LARGEST_TRACKED = 10_000_000  # bytes; of anything but a program
MOST_TEXTS = 1000  # texts in one folder of the project that git does not track; more of them are data

NO_CODE = "not tracked by git, and no code"  # a reason

# Results, data, and what other programs make; a package of the user's may have such a name, too.
NOT_CODE = {"runs", "fetched", "data", "wandb", "sweeps", "mlruns", "lightning_logs", "build", "dist", "logs"}
NOT_CODE |= {"checkpoints"}


@dataclass
class Code:
    """The files of a project that are its code. All paths are relative, with slashes.

    Attributes:
        root: the project's folder.
        files: the files, sorted; what is a link to a file is read as that file.
        new: those of them that git does not track.
        links: links to folders that stay links, with what they point to.
        left_out: what is not taken, with the reason.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def read_code(root: Path, without: Path | None = None) -> Code:
    """Look which files are the code of a project.

    Args:
        root: the project's folder.
        without: the folder of runs, wherever it is.
    """
    root = root.resolve()
    code = Code(root)
    runs = None if without is None else without.resolve()
    add_folder(code, "", runs, {root})
    leave_out_data(code)

    code.files = sorted(set(code.files))
    code.new = sorted(set(code.new))
    return code


def add_folder(code: Code, place: str, runs: Path | None, visited: set[Path]) -> None:
    """Add the files of a folder: the project's, a repository inside it, or one that a link points to.

    Args:
        code: what is added to.
        place: the folder's path in the project, "" or ending with a slash.
        runs: the folder of runs.
        visited: the folders that were added already, so that a circle of links ends.
    """
    folder = code.root / place
    listing = list_files(folder)
    if listing is None:
        listing = Listing([], list(walk(folder)))
    if not listing.tracked:
        sent = dict.fromkeys(sent_files(folder))
        listing = Listing(list(sent), [name for name in listing.others if name not in sent])
    environments: dict[Path, bool] = {}

    for path, is_tracked in [*((path, True) for path in listing.tracked), *((path, False) for path in listing.others)]:
        name = place + path.rstrip("/")
        file = code.root / name

        # Neither results nor an environment are code, whether or not somebody has told git to ignore them.
        if runs is not None and (file == runs or runs in file.parents):
            continue
        if not is_tracked and (is_made(path, folder) or in_environment(file, folder, environments)):
            continue

        if is_plain(file):  # most are, and this one question is enough
            add_file(code, name, is_tracked)
        elif file.is_dir():
            add_inner_folder(code, name, runs, visited)
        elif file.exists():
            add_file(code, name, is_tracked, own_name=file.resolve().name)
        elif file.is_symlink():
            code.left_out[name] = "a link to nothing"


def is_plain(file: Path) -> bool:
    """True for a file that is there, and is no link."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False


def add_file(code: Code, name: str, is_tracked: bool, own_name: str = "") -> None:
    """Add a file, or the reason why it is left out.

    Args:
        code: what is added to.
        name: its path in the project.
        is_tracked: whether git tracks it.
        own_name: of a link, what the file is called that it points to: a link may have a harmless name.
    """
    suffix = PurePosixPath(name).suffix.lower()
    size = (code.root / name).stat().st_size

    if key_by_name(name) or key_by_name(own_name):
        code.left_out[name] = "looks like a key, by its name"
    elif suffix in PROGRAMS:
        code.files.append(name)
    elif is_tracked and size > LARGEST_TRACKED:
        code.left_out[name] = f"{size / 1e6:.0f} MB"
    elif is_tracked:
        code.files.append(name)
    elif suffix not in TEXTS:
        code.left_out[name] = NO_CODE
    elif size > LARGEST_TEXT:
        code.left_out[name] = f"not tracked by git, and {size / 1e6:.0f} MB"
    else:
        code.files.append(name)

    if not is_tracked and name in code.files[-1:]:
        code.new.append(name)


def add_inner_folder(code: Code, name: str, runs: Path | None, visited: set[Path]) -> None:
    """Add a repository inside the project, or what a link to a folder points to.

    A folder of the project is added under its own name, so a link to it stays a link. Elsewhere, code is copied, so
    that edits do not reach it; data is not.
    """
    folder = code.root / name
    target = folder.resolve()

    if folder.is_symlink():
        if target.is_relative_to(code.root):
            code.links[name] = os.readlink(folder)
            return
        holds_project = code.root.is_relative_to(target)
        has_programs = any(file.suffix in PROGRAMS for file in target.glob("*"))
        if holds_project or not has_programs or target in visited:
            code.links[name] = str(target)
            code.left_out[name] = f"a link to {target}, which is used from there"
            return

    if target not in visited:
        visited.add(target)
        add_folder(code, name + "/", runs, visited)


def leave_out_data(code: Code) -> None:
    """Leave out the new texts of folders that have very many of them, such as a label for each picture."""
    texts = [name for name in code.new if PurePosixPath(name).suffix.lower() in TEXTS]
    number = Counter(name.partition("/")[0] for name in texts)

    many = set()
    for name in texts:
        top = name.partition("/")[0]
        if number[top] > MOST_TEXTS:
            many.add(name)
            code.left_out[f"{top}/"] = f"{number[top]} texts that git does not track: too many to be code"
    code.files = [name for name in code.files if name not in many]
    code.new = [name for name in code.new if name not in many]


def is_made(path: str, folder: Path) -> bool:
    """True if a path that git does not track is hidden, or lies in a folder that programs write to."""
    parts = PurePosixPath(path).parts
    if any(part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info") for part in parts):
        return True
    return len(parts) > 1 and parts[0] in NOT_CODE and not (folder / parts[0] / "__init__.py").exists()


def in_environment(file: Path, folder: Path, known: dict[Path, bool]) -> bool:
    """True if a file lies in an environment, which has thousands of Python files that are not the project's.

    Args:
        file: the file.
        folder: the folder around it from which on environments are looked for.
        known: the answers for folders so far.
    """
    parent = file.parent
    if parent == folder or folder not in parent.parents:
        return False
    if parent not in known:
        is_environment = (parent / "pyvenv.cfg").exists() or (parent / "conda-meta").exists()
        known[parent] = is_environment or in_environment(parent, folder, known)
    return known[parent]


def walk(folder: Path) -> Iterator[str]:
    """All files below a folder, for a machine without git; not those of hidden folders and environments."""
    for name, folders, files in os.walk(folder):
        place = Path(name)
        inner = [place / inside for inside in sorted(folders)]

        # os.walk goes into the folders that are left in its list, and not through links: those are paths of their own.
        links = [path for path in inner if path.is_symlink()]
        folders[:] = [path.name for path in inner if is_entered(path, folder)]
        for path in [*links, *(place / file for file in sorted(files))]:
            yield path.relative_to(folder).as_posix()


def is_entered(folder: Path, root: Path) -> bool:
    """True if `walk` looks into a folder."""
    environment = (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()
    return not (environment or folder.is_symlink() or is_made(f"{folder.relative_to(root).as_posix()}/x", root))
