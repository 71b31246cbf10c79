"""The entrance of the five doors: what all commands have in common, and which room each of them belongs to.

A door is a file of the project, such as Train.py, that calls its function below. Rooms are imported inside these
functions: most of them need not know each other, and a command answers `--help` without loading what others need.
"""

import argparse
import codecs
import errno
import multiprocessing.util
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .failures import in_one_line
from .settings.classes import work_in
from .settings.errors import SettingsError

Command = Callable[[Sequence[str], Path], int]

# Exit codes: that of argparse, and those that a shell gives to what Ctrl-C or a closed pipe has ended.
FAILED, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

# What is printed where a terminal's encoding has no such character. What is not among them becomes a question mark.
IN_ASCII = {"±": "+-", "×": "x", "…": "...", "–": "-", "—": "-", "→": "->", "“": '"', "”": '"', "’": "'"}

# Errors of the file system that say all by themselves: not allowed, read only, full.
OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

# A socket's path is at most so many bytes long on Linux; multiprocessing adds /pymp-xxxxxxxx/listener-xxxxxxxx.
LONGEST_SOCKET, SOCKET_NAME = 107, 32

SHORT_FOLDER = "/tmp"


def train(argv: Sequence[str], root: Path) -> int:
    """Train.py: train, evaluate, cross-validate, export, reproduce or mirror one run."""
    if argv and argv[0] == "export":
        from .export.command import main

        argv = argv[1:]
    elif argv and argv[0] == "reproduce":
        from .reproduction.command import main

        argv = argv[1:]
    elif argv and argv[0] == "push":
        from .mirror.commands import push as main

        argv = argv[1:]
    elif argv and argv[0] == "pull":
        from .mirror.commands import pull as main

        argv = argv[1:]
    else:
        from .training.commands import main

    def with_short_sockets(argv: Sequence[str], root: Path) -> int:
        keep_sockets_short()
        return main(argv, root)

    return enter(with_short_sockets, argv, root)


def slurm_train(argv: Sequence[str], root: Path) -> int:
    """SlurmTrain.py: many runs as one array. The rooms of SLURM, of other hosts and of Kubernetes meet only here."""
    from .slurm.command_line import main

    def on_host(arguments: argparse.Namespace, root: Path) -> int:
        from .hosts.commands import on_host  # late: most commands are for this machine

        return on_host(arguments, root)

    def in_kubernetes(arguments: argparse.Namespace, root: Path) -> int:
        from .kubernetes.render import render_job

        return render_job(arguments, root)

    return enter(lambda argv, root: main(argv, root, on_host, in_kubernetes), argv, root)


def create_sweep(argv: Sequence[str], root: Path) -> int:
    """CreateSweep.py: create a sweep. The rooms of sweeps and of SLURM meet only here."""
    from .sweeps.creation import main

    def submit_agents(sweep: str, count: int, cluster: str | None, root: Path) -> tuple[str, int]:
        from .slurm import other_jobs  # late: most sweeps are created without submitting agents

        return other_jobs.submit_agents(sweep, count, cluster, root)

    return enter(lambda argv, root: main(argv, root, submit_agents), argv, root)


def sweep_agent(argv: Sequence[str], root: Path) -> int:
    """SweepAgent.py: run the trials of a sweep."""
    from .sweeps.agent import main

    return enter(main, argv, root)


def report(argv: Sequence[str], root: Path) -> int:
    """Report.py: look into runs that were trained."""
    from .report.commands import main

    return enter(main, argv, root)


def enter(main: Command, argv: Sequence[str], root: Path) -> int:
    """Run a command of a room with what every command needs, and turn its errors into one line.

    Args:
        main: the command. Handlers of signals are its own affair: only some commands have something to save first.
        argv: its arguments.
        root: the project's folder.

    Returns:
        the exit code: 0 only on success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, others in runs/folder.py.
    """
    open_closed_streams()
    print_in_any_encoding()
    forget_empty_variables()
    work_in(root)
    try:
        code = main(argv, root)
        flush_output()  # here, where a reader that has gone away (… | head) is noticed without a traceback
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return PIPE_CLOSED
    except Exception as error:
        if concerns_user(error):
            print(f"error: {error}", file=sys.stderr)
            if page := getattr(error, "page", None):
                print(f"more about it: {page} in the documentation", file=sys.stderr)
            return WRONG_USAGE
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
            return FAILED

        # In the user's code, or a fault of ours: what it is first, then where.
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        traceback.print_exception(error)
        return FAILED


def open_closed_streams() -> None:
    """Let input and outputs that are closed (`>&-`) lead nowhere.

    Else what is printed ends the command; and the next file that is opened gets their number, and what programs print.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(number, True)  # also for programs that are started
    os.close(number)

    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def print_in_any_encoding() -> None:
    """Let no character end a command: what the output's encoding does not have, such as ± in ASCII, is spelled out."""
    codecs.register_error("in_ascii", in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has no encoding
            stream.reconfigure(errors="in_ascii")


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What is written in the place of characters that can't be, and where to continue; see codecs.register_error."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(character, "?") for character in characters), error.end


def flush_output() -> None:
    """Write what was printed. A full disk under it changes no exit code, which launchers read."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        drop_output()


def drop_output() -> None:
    """Let what could not be written go nowhere: Python flushes once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def forget_empty_variables() -> None:
    """Remove W&B's variables that are empty: so .env has those that are not set, and W&B refuses an empty mode."""
    for name, value in list(os.environ.items()):
        if name.startswith("WANDB_") and not value:
            del os.environ[name]


def keep_sockets_short() -> None:
    """Put the sockets of worker processes into /tmp where TMPDIR is too long for them: workers would hang.

    All other temporary files stay in TMPDIR, which on a cluster may be the only large folder.

    Raises:
        SettingsError: nothing can be written into /tmp either.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + SOCKET_NAME <= LONGEST_SOCKET:
        return

    try:
        tempfile.tempdir = SHORT_FOLDER
        multiprocessing.util.get_temp_dir()  # makes one, keeps to it, hands it on to workers, removes it at the end
    except OSError as error:
        raise SettingsError(
            f"TMPDIR is too long for the sockets of worker processes, and {SHORT_FOLDER} can't be written "
            f"({error.strerror}): set TMPDIR to a folder of less than {LONGEST_SOCKET - SOCKET_NAME} characters"
        ) from None
    finally:
        tempfile.tempdir = folder


def concerns_user(error: Exception) -> bool:
    """True if an error is about what was asked for, so that its message is all there is to say."""
    if isinstance(error, SettingsError):
        return True
    if "torch" not in sys.modules:
        return False  # the other two come from rooms that need torch; a program without it must not load it now

    from .cka import CKAError
    from .survive.checkpoint_files import CheckpointError

    return isinstance(error, CKAError | CheckpointError)
