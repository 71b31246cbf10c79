"""The warm parent itself: `python -m lightning_hpc.warm.serve SOCKET OWN_GROUP`, in the project's folder."""

import contextlib
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from ..logs import start_terminal
from ..processes import die_with_parent
from ..stand_ins import import_torchmetrics
from .messages import hear, say

# What every run loads. Not the user's own modules: what they do when they are imported is a run's own affair.
LOADED = (
    "lightning_hpc.training.commands",
    "lightning_hpc.training.fit",
    "lightning_hpc.training.evaluate",
    "lightning_hpc.settings.parser",
)

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def serve(descriptor: int, own_group: bool) -> list[str] | None:
    """Load all, then fork for each line; returns in the forked process, with the command, and at the end with None."""
    usual = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # they are for the runs; this process ends when the socket is closed
    environment = dict(os.environ)
    on_disk = stamps(Path.cwd().joinpath("lightning_hpc").rglob("*.py"))

    import numpy  # noqa: F401 - its threads are those of OpenBLAS, which ends them before a fork and starts them again

    threads = number_of_threads()
    start_terminal()  # as a run does before it loads Lightning
    import_torchmetrics()
    for name in LOADED:
        importlib.import_module(name)
    import torch

    can_fork = number_of_threads() == threads and not torch.cuda.is_initialized()
    before = stamps(loaded_files(Path.cwd()))
    can_fork &= all(before[file] == on_disk[file] for file in before.keys() & on_disk.keys())  # as it was loaded
    gc.collect()
    gc.freeze()  # a collection in a run would copy all pages that it shares with this process

    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)

    with socket.socket(fileno=descriptor) as connection:
        say(connection, ready=can_fork)
        pid = None
        while pid != 0:
            if woken in select.select([connection, woken], [], [])[0]:
                woken.recv(4096)
                tell_ends(connection)
                continue

            request = hear(connection)
            if not request or stamps(loaded_files(Path.cwd())) != before:
                return None
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # one that comes now is for the run
            parent, pid = os.getpid(), os.fork()
            if pid != 0:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
                if own_group:
                    os.setpgid(pid, pid)  # as it does itself: it is so for both from now on
                say(connection, pid=pid)

    # From here on this is the run.
    signal.set_wakeup_fd(-1)
    woken.close()
    waker.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, handler in usual.items():
        signal.signal(number, handler)
    if own_group:
        os.setpgid(0, 0)
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if os.getppid() != parent:
        return None

    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(environment)
    numpy.random.seed()  # Python's own generator is seeded by a fork, and torch's begins alike in every program
    return request["command"]


def tell_ends(connection: socket.socket) -> None:
    """Tell of the runs that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            say(connection, ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def number_of_threads() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def loaded_files(root: Path) -> list[str]:
    """The files of the project that are loaded."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [file for file in files if file and file.startswith(f"{root}{os.sep}")]


def stamps(files: Iterable[str | Path]) -> dict[str, tuple[int, int]]:
    """Time and size of each of some files that is there."""
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            found[str(file)] = (status.st_mtime_ns, status.st_size)
    return found


if __name__ == "__main__":
    command = serve(int(sys.argv[1]), bool(int(sys.argv[2])))
    if command is not None:
        sys.argv = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
