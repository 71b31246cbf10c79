"""What a program asks of file systems, as strace sees it: its calls, each with the file and the kind that it is of.

    strace writes them:   trace(command, folder, environment, file)
    and they are read:    for call in calls(file, folder): ...

Reads are left out: a small file is read once after it is opened. So is closing, which follows each opening.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# What is counted together: a server of a shared file system has about as much to do for each of a kind.
KINDS = {
    "opens": "open openat openat2 creat",
    "looks": "stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64",
    "writes": "write writev pwrite64 pwritev pwritev2 sendfile copy_file_range truncate ftruncate fallocate",
    "syncs": "fsync fdatasync sync_file_range syncfs sync",
    "names": "rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir"
    " chmod fchmod fchmodat chown utimensat utime utimes futimesat",
    "locks": "flock fcntl",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}

LINE = re.compile(r"(\d+)\s+(\d+\.\d+) (.*)")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
AT = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "((?:[^"\\]|\\.)*)"')  # a path, from a folder that strace names
PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")


class Call(NamedTuple):
    """A call of the kernel.

    Attributes:
        seconds: the time of day.
        kind: of KINDS.
        path: absolute.
        made: whether it has made a file or a folder that was not there, as far as one can tell from the call.
    """

    seconds: float
    kind: str
    path: str
    made: bool


def trace(command: Sequence[str], folder: Path, environment: Mapping[str, str], file: Path) -> str:
    """Run a program and all that it starts, and let strace write its calls into a file; returns what it has printed.

    Raises:
        RuntimeError: it has failed.
    """
    names = ",".join(f"?{name}" for name in KIND_OF)  # `?`: not every processor has them all
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-ttt",
        "-y",
        "-s",
        "0",
        "-e",
        f"trace={names}",
        "-e",
        "signal=none",
    ]
    done = subprocess.run(
        [*strace, "-o", str(file), "--", *command], cwd=folder, env=dict(environment), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def calls(file: Path, folder: Path) -> Iterator[Call]:
    """The calls in a file of strace's that name a file or a folder.

    Args:
        file: what `trace` has written.
        folder: where the program was started.
    """
    places: dict[str, str] = {}  # process → where it is, from where its relative paths count
    pending: dict[str, str] = {}  # process → the beginning of a call that another process has interrupted
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = LINE.match(line)
            if not match:
                continue
            process, seconds, text = match.groups()
            if text.endswith("<unfinished ...>"):
                pending[process] = text.removesuffix("<unfinished ...>")
                continue
            resumed = RESUMED.match(text)
            if resumed:
                text = pending.pop(process, "") + resumed[1]

            name, _, arguments = text.partition("(")
            call = understood(name, arguments, places.get(process, str(folder)))
            if arguments.startswith("AT_FDCWD<"):
                places[process] = DESCRIPTOR.match(arguments)[1]
            if call is not None:
                yield Call(float(seconds), *call)


def understood(name: str, arguments: str, place: str) -> tuple[str, str, bool] | None:
    """Kind, path and whether something is made, of one call; None if it is about no file."""
    kind = KIND_OF.get(name)
    if kind is None or (name == "fcntl" and "SETLK" not in arguments):
        return None

    at, path, descriptor = AT.match(arguments), PATH.match(arguments), DESCRIPTOR.match(arguments)
    if at and kind not in ("writes", "syncs", "locks"):  # their second argument is data, not a name
        if not at[2]:
            return None  # fstat: of a file that is open
        full = os.path.join(at[1], at[2])
    elif path:
        full = os.path.join(place, path[1])
    elif descriptor:
        full = descriptor[1]
    else:
        return None
    if not full.startswith("/"):
        return None  # a pipe or a socket

    failed = " = -1 " in arguments
    made = not failed and (name.startswith(("mkdir", "link", "symlink")) or "O_CREAT" in arguments)
    return kind, os.path.normpath(full), made
