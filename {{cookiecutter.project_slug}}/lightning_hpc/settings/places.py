"""Where paths count from: those in settings from the project's folder, those that are typed from where they are typed.

A command may be typed anywhere, and a job's code lies in a snapshot of the project; runs and data are the project's.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

NOTE = "commit.json"  # in a snapshot of a project: which version it is, and of which project

# Settings that are places for the whole project: where runs and data go.
FOLDERS = ("runs_dir", "data.data_dir")

# Settings that name what is there already.
EXISTING = ("init_from", "extend", "data.predict_dir")

PROJECT = Path(__file__).resolve().parents[2]  # the folder that this package is in

_project: Path | None = None


def count_from(code: Path) -> None:
    """From now on, relative paths in settings count from the project that this code is of, in the whole process."""
    global _project
    _project = project_of(code)


def project_of(code: Path) -> Path:
    """The project's folder: that of its code, or the one which a job's snapshot was taken of.

    Args:
        code: a project's folder, or a snapshot of one.
    """
    note = code / NOTE
    if not note.is_file():
        return code
    project = json.loads(note.read_text(encoding="utf-8")).get("project")

    # A batch file works in the project's folder, which is all that a snapshot of an earlier version leaves to go by.
    return Path.cwd() if project is None else Path(os.path.normpath(code / project))


def note_of(project: Path, snapshot: Path) -> str:
    """The project's folder as a snapshot notes it: relative where it lies within, so that both can be moved."""
    project, snapshot = project.resolve(), snapshot.resolve()
    return os.path.relpath(project, snapshot) if snapshot.is_relative_to(project) else str(project)


def in_project(path: str | Path) -> Path:
    """A path from settings, from wherever the process works; an absolute one stays as it is."""
    return (_project or Path.cwd()) / Path(path).expanduser()


def shown(path: Path) -> Path:
    """A path as one would type it here: relative if it is below the working folder."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def existing(path: str | Path) -> Path:
    """What a typed path names: from the working folder or, if nothing is there, from the project's."""
    typed = Path(path).expanduser()
    if typed.exists() or not in_project(path).exists():
        return typed
    return shown(in_project(path))


def here_or_in_project(path: str | Path, root: Path = PROJECT) -> Path:
    """What a path names in a program or a notebook of one's own: from the working folder or else from the project's.

    Args:
        path: as somebody has written it.
        root: the project's folder.
    """
    path = Path(path)
    return root / path if not path.exists() and (root / path).exists() else path


def as_setting(key: str, typed: Any) -> Any:
    """A typed path in the form that settings have: from the project's folder if it is in there, else absolute.

    Args:
        key: the setting's short key.
        typed: its value, as typed; what is no relative path of FOLDERS or EXISTING is returned as it is.
    """
    if not isinstance(typed, str) or key not in (*FOLDERS, *EXISTING):
        return typed

    path = existing(typed) if key in EXISTING else Path(typed).expanduser()
    absolute, project = Path(os.path.abspath(path)), _project or Path.cwd()
    return str(absolute.relative_to(project) if absolute.is_relative_to(project) else absolute)


def command(door: str, *words: object) -> str:
    """A command of the project, such as `python Train.py test --run …`, as one would type it here: quoted for a shell.

    Args:
        door: the program, a file in the project's folder.
        words: what follows it.
    """
    return shlex.join(["python", str(shown(in_project(door))), *map(str, words)])


def quoted(path: str | Path) -> str:
    """A path as a word for a shell: in quotes where it has a space or the like in it."""
    return shlex.quote(str(path))
