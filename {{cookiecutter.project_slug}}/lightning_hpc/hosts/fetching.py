"""Fetching results from a host: only the small files of runs, by rsync, which looks into no folder in vain."""

import re
import shlex
import sys
from collections.abc import Sequence
from os import environ
from pathlib import Path, PurePosixPath

from ..settings.errors import SettingsError
from ..settings.places import shown
from .host import Host, checked, find_host
from .ssh import Conversation, options, refusal

RULES = Path(__file__).with_name("small-files.rules")

FETCHED = "fetched"  # where results of hosts are, beside runs/: what was trained here is never mixed with them

VANISHED = 24  # rsync's exit code where a file went away meanwhile, as it does while a run is going on

NOT_FOUND = 127  # its exit code where the host has no rsync


def source_of(typed: str, root: Path) -> Host:
    """Where results are: HOST:FOLDER, or the name of a host that has a file, whose runs are meant.

    Args:
        typed: as it is typed.
        root: the project's folder.

    Raises:
        SettingsError: it is neither.
    """
    host = find_host(typed, root)
    return host if ":" in typed else folder_on(host, "runs")


def folder_on(host: Host, place: str) -> Host:
    """A folder of the project there, as a place on that host."""
    return checked(Host(host.name, host.host, str(PurePosixPath(host.folder, place))), host.name)


def place_here(source: Host, root: Path) -> Path:
    """Where results go if nobody says where: fetched/HOST for all runs, fetched/HOST/NAME for an experiment."""
    parts = PurePosixPath(source.folder).parts
    if "runs" in parts:
        parts = parts[len(parts) - parts[::-1].index("runs") :]
    else:
        parts = parts[-1:]
    return root / FETCHED / source.name / Path(*[part for part in parts if part not in ("/", "..")])


def rsync_command(source: Host, target: Path, dry_run: bool = False) -> list[str]:
    """The command that fetches results.

    Args:
        source: the folder of all runs, an experiment's or a run's.
        target: the folder here that gets what is in it.
        dry_run: only name the files.
    """
    words = ["rsync", "-rltz", "--copy-unsafe-links", "--prune-empty-dirs", f"--include-from={shown(RULES)}"]
    # Older ones would hand the path to the shell there; a plain one needs no option, which some rsyncs do not know.
    if not re.fullmatch(r"[\w@%+=:,./-]+", source.folder, re.ASCII):
        words.append("--protect-args")
    if dry_run:
        words.append("--dry-run")
    return [*words, f"{source.host}:{source.folder}/", f"{shown(target)}/"]


def fetch(source: Host, target: Path, dry_run: bool = False) -> int:
    """Fetch results and say what has come; returns the exit code.

    Raises:
        SettingsError: rsync is missing here or there, there was no login, or no such folder.
    """
    if not dry_run:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{target} can't be written: {error.strerror}") from None

    # Each file is told by its size and its name; ssh's options are no part of the line that one would type.
    command = [*rsync_command(source, target, dry_run)]
    command[1:1] = ["--out-format=%l %n"]
    talk = Conversation(command, variables={**environ, "RSYNC_RSH": shlex.join(["ssh", *options(source.host)])})
    files = size = 0
    terminal = sys.stderr.isatty()
    for line in talk.lines():
        length, _, name = line.partition(" ")
        if not length.isdigit() or name.endswith("/"):
            continue
        files, size = files + 1, size + int(length)
        if dry_run:
            print(name)
        elif terminal and files % 100 == 0:
            print(f"\r{files} files", end="", file=sys.stderr, flush=True)
    if terminal and files >= 100 and not dry_run:
        print("\r", end="", file=sys.stderr)

    if talk.code not in (0, VANISHED):
        raise problem(source, talk.code, talk.errors)
    what = f"{files} new or changed files, {size / 1e6:.1f} MB"
    print(f"would fetch {what}" if dry_run else f"fetched {what}, into {shown(target)}")
    return 0


def problem(source: Host, code: int | None, errors: str) -> SettingsError:
    """What is wrong, and what to do, after rsync has failed with this exit code and these words."""
    if known := refusal(source.host, errors):
        return known
    if code == NOT_FOUND or "rsync: command not found" in errors or "rsync: not found" in errors:
        return SettingsError(f"{source.host} has no rsync: ask there for it, or copy the folder by scp")
    if "No such file or directory" in errors and "change_dir" in errors:
        return SettingsError(f"there is no folder {source.folder} on {source.host}")
    words: Sequence[str] = errors.split() or [f"exit code {code}"]
    return SettingsError(f"rsync from {source} failed: {' '.join(words)}; what has come so far stays")
