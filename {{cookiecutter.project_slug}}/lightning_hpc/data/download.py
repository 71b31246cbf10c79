"""Downloads that arrive whole or not at all: mirrors, checksums, one download for many processes.

    file = fetch(["https://a.org/set.zip", "https://b.org/set.zip"], "data/set.zip", sha256="9f86d081…")

pySmartDL moves the bytes, in parallel parts where the server can. It reports truncated files, swallowed errors and
login pages as success, so here it only makes attempts, each in a process that can be ended (attempt.py), into a
temporary folder. What arrives is checked here (source.py), and only then gets its name, in one step. Archives:
unpack.py.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..files import hash_of
from .source import Source, public, without_secrets
from .staging import DownloadError, FailureNote, only_process, temporary_folder, touch

logger = logging.getLogger(__name__)

ATTEMPT = Path(__file__).with_name("attempt.py")

LEAST = 2**16  # bytes that must arrive within `patience` seconds; less is a server that keeps us waiting

NOT_AGAIN = " (not tried again)"  # at the end of a reason for which a second round would be of no use


@dataclass(frozen=True)
class Patience:
    """How long to try, which bounds the time that any server can cost.

    Attributes:
        seconds: an attempt that brings less than 64 KiB in so many seconds is ended.
        rounds: how often each mirror is tried.
        pause: seconds between the first two rounds; doubled for each further one.
    """

    seconds: float = 60.0
    rounds: int = 3
    pause: float = 2.0


PATIENCE = Patience()

ProgressDisplay = Callable[[Source, int], None]  # is told how many bytes of a file have arrived


def fetch(urls: str | Sequence[str], dest: str | Path, sha256: str | None = None, **more: object) -> Path:
    """Download one file, unless it is there and right; then nothing is asked of any server.

    Any number of processes may call this at once, on any number of machines: one downloads, the others wait for it.

    Args:
        urls: where it is; more than one are mirrors, tried in order.
        dest, sha256: see Source.
        more: the other attributes of Source, and `patience`, a Patience.

    Returns:
        The file's absolute path.

    Raises:
        DownloadError: no mirror has delivered the right file; there is none, or an earlier one, under its name.
    """
    patience = more.pop("patience", PATIENCE)
    mirrors = [urls] if isinstance(urls, str) else urls
    (path,) = fetch_all([Source(mirrors, dest, sha256, **more)], patience=patience)
    return path


def fetch_all(sources: Sequence[Source], at_once: int = 4, patience: Patience = PATIENCE) -> list[Path]:
    """Download several files in parallel, with one progress display if there is a terminal.

    Args:
        sources: the files.
        at_once: how many to download at the same time.
        patience: how long to try.

    Returns:
        Their absolute paths, in order.

    Raises:
        DownloadError: as fetch; files that have arrived stay.
    """
    for source in sources:
        if not (source.checksum or source.unverified):
            raise DownloadError(
                f"no checksum for {source.path.name}: give sha256=, or unverified=True once and write down what it says"
            )

    stop = threading.Event()
    with progress_display() as show, ThreadPoolExecutor(at_once) as pool:
        downloads = [pool.submit(fetch_source, source, patience, show, stop) for source in sources]
        try:
            return [download.result() for download in downloads]
        except BaseException:  # Ctrl-C too: otherwise leaving the pool would wait for all downloads
            stop.set()
            raise


def fetch_source(source: Source, patience: Patience, show: ProgressDisplay, stop: threading.Event) -> Path:
    """Download one of fetch_all's files, unless it is there and right; `stop` ends it. Returns its path."""
    path = source.path
    if source.is_there():  # before anything is written: the folder may be read-only
        touch(path, days=1)
        return path

    path.parent.mkdir(parents=True, exist_ok=True)
    note = FailureNote(path)
    with contextlib.ExitStack() as at_the_end, only_process(path, stop):
        if source.is_there():  # another process was quicker
            return path
        failure = note.read()
        if failure is not None:  # … and in vain: a hundred need not wait in turn
            raise DownloadError(failure)
        note.remove()  # an earlier one, of a process that was killed

        try:
            download(source, patience, show, stop)
        except DownloadError as error:
            if not stop.is_set():
                note.write(str(error))
                at_the_end.callback(note.remove, after=min(1.0, patience.pause / 2))  # when the lock is free
            raise
    return path


def download(source: Source, patience: Patience, show: ProgressDisplay, stop: threading.Event) -> None:
    """Try the mirrors in turn until one delivers; the caller holds the lock.

    Raises:
        DownloadError: none has, in any round; or `stop` was set.
    """
    path, started = source.path, time.monotonic()
    reasons: dict[str, str] = {}
    for round_number in range(patience.rounds):
        mirrors = [url for url in source.urls if not reasons.get(url, "").endswith(NOT_AGAIN)]
        if round_number and mirrors:
            stop.wait(patience.pause * 2 ** (round_number - 1))

        for url in mirrors:
            if stop.is_set():
                raise DownloadError(f"{path.name}: given up, because another file can't be had")

            # In the first round in four parts. Servers that mishandle ranges send a whole file when asked for one part.
            threads = 4 if round_number == 0 else 1
            with temporary_folder(path) as folder:
                file = folder / path.name
                reason = run_attempt(url, file, threads, source, patience, show, stop)
                if reason is None:
                    digest = "" if source.checksum else f"; not verified: if it is right, note sha256={hash_of(file)}"
                    os.replace(file, path)
                    size, seconds = path.stat().st_size, time.monotonic() - started
                    logger.info(f"downloaded {path} ({size:,} bytes in {seconds:.0f} s) from {public(url)}{digest}")
                    return

            reasons[url] = reason
            logger.info(f"no luck with {public(url)}: {reason}", extra=dict(file_only=True))

    lines = "".join(f"\n  {public(url)}: {reason}" for url, reason in reasons.items())
    raise DownloadError(f"{path.name} can't be downloaded to {path.parent}; it has been tried from{lines}")


def run_attempt(
    url: str,
    file: Path,
    threads: int,
    source: Source,
    patience: Patience,
    show: ProgressDisplay,
    stop: threading.Event,
) -> str | None:
    """Make one attempt, in a process of its own.

    Args:
        url: the mirror.
        file: where to put the file, in a folder that holds nothing else.
        threads: how many parts are downloaded at the same time.
        source, patience, show, stop: as in download.

    Returns:
        None if the file is there and right, otherwise why it is not.

    Raises:
        DownloadError: the disk is full; another mirror would not help.
    """
    timeout = min(20.0, patience.seconds)
    request = dict(url=url, file=str(file), threads=threads, timeout=timeout, verified=source.sha256 is not None)
    command, pipe = [sys.executable, "-P", str(ATTEMPT)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit code says more
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            impatience = watch(process, file.parent, source, patience, show, stop)
            if impatience is not None:
                return impatience
            text = process.stdout.read()
        finally:
            process.kill()

    if not text:
        return f"the download ended with exit code {process.returncode}"
    report = json.loads(text)
    errors = [without_secrets(error, url) for error in report["errors"]]
    if report["full"]:
        raise DownloadError(f"{source.path.name}: no space left in {source.path.parent} ({errors[0]})")
    if errors:
        reason = "; ".join(errors)
        return reason + NOT_AGAIN if report["permanent"] else reason
    if not file.exists():
        return "the parts could not be put together"
    return source.fault(file, promised=report["size"])


def watch(
    process: subprocess.Popen,
    folder: Path,
    source: Source,
    patience: Patience,
    show: ProgressDisplay,
    stop: threading.Event,
) -> str | None:
    """Wait for an attempt and show how far it is; returns why it should be ended, or None if it has ended itself."""
    since, size_then = time.monotonic(), 0
    while process.poll() is None:
        size = size_of(folder)
        show(source, size)
        if abs(size - size_then) >= LEAST:
            since, size_then = time.monotonic(), size

        if time.monotonic() - since > patience.seconds:
            return f"less than {LEAST // 1024} KiB came in {patience.seconds:.0f} s"
        if stop.wait(0.05):
            return "given up"
    return None


def size_of(folder: Path) -> int:
    """Bytes in a folder whose files come and go."""
    size = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                size += entry.stat().st_size
    return size


@contextlib.contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """One bar per file on a terminal; in a log file, where bars are noise, nothing."""
    if not sys.stderr.isatty():
        yield lambda source, arrived: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[Path, int] = {}

        def show(source: Source, arrived: int) -> None:
            if source.path not in bars:
                bars[source.path] = progress.add_task(source.path.name, total=source.size)
            progress.update(bars[source.path], completed=arrived)

        yield show
