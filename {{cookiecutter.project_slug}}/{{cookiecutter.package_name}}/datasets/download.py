"""Downloads that arrive whole or not at all: mirrors, checksums, one download for many processes.

    file = fetch(["https://a.org/set.zip", "https://b.org/set.zip"], "data/set.zip", sha256="9f86d081…")

pySmartDL moves the bytes, in parallel parts where the server can. It reports truncated files, swallowed errors and
login pages as success, so here it only makes attempts, each in a process that can be ended (one_attempt.py), into a
temporary folder. What arrives is checked here, and only then gets its name, in one step. Archives: unpack.py.
"""

import contextlib
import hashlib
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

from .shared import DownloadError, locked, temporary_folder, touch

logger = logging.getLogger(__name__)

ATTEMPT = Path(__file__).with_name("one_attempt.py")
LEAST = 2**16  # bytes that must arrive within `patience` seconds; less is a server that keeps us waiting


@dataclass(frozen=True)
class Source:
    """A file to download.

    Attributes:
        urls: where it is; the first that delivers the right file is taken.
        dest: where it goes. Its folder is made.
        sha256: its checksum, 64 hexadecimal digits.
        md5: where the publisher gives no better one: it finds damage, but not a forgery.
        size: bytes, where known: for the progress display.
        unverified: take the file without a checksum. Then its length must be what the server says, and it must not be a
            web page; the log says the SHA-256 to write down.
    """

    urls: Sequence[str]
    dest: str | Path
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    unverified: bool = False

    @property
    def path(self) -> Path:
        return Path(self.dest).absolute()

    @property
    def checksum(self) -> str | None:
        return (self.sha256 or self.md5 or "").lower() or None


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


def fetch(urls: str | Sequence[str], dest: str | Path, sha256: str | None = None, **more: object) -> Path:
    """Download one file, unless it is there and right; then nothing is asked of any server.

    Any number of processes may call this at once, on any number of machines: one downloads, the others wait for it.

    Args:
        urls: where it is; more than one are mirrors, tried in order.
        dest, sha256: see Source.
        more: the other attributes of Source, and `patience`, a Patience.

    Returns:
        the file's absolute path.

    Raises:
        DownloadError: no mirror has delivered the right file; there is none, or an earlier one, under its name.
    """
    patience = more.pop("patience", PATIENCE)
    return fetch_all([Source([urls] if isinstance(urls, str) else urls, dest, sha256, **more)], patience=patience)[0]


def fetch_all(sources: Sequence[Source], at_once: int = 4, patience: Patience = PATIENCE) -> list[Path]:
    """Download several files in parallel, with one progress display if there is a terminal.

    Args:
        sources: the files.
        at_once: how many to download at the same time.
        patience: how long to try.

    Returns:
        their absolute paths, in order.

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
        jobs = [pool.submit(fetch_one, source, patience, show, stop) for source in sources]
        try:
            return [job.result() for job in jobs]
        except BaseException:  # Ctrl-C too: otherwise leaving the pool would wait for all downloads
            stop.set()
            raise


Show = Callable[[Source, int], None]  # a display of the bytes that have arrived


def fetch_one(source: Source, patience: Patience, show: Show, stop: threading.Event) -> Path:
    """One of fetch_all's files; `stop` ends it."""
    path = source.path
    if path.exists() and not wrong(path, source):  # before anything is written: the folder may be read-only
        touch(path, days=1)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    failure, since = path.with_name(f".{path.name}.failed"), time.time()
    with locked(path, stop):
        if path.exists() and not wrong(path, source):  # another process was quicker
            return path
        if failure.exists() and failure.stat().st_mtime > since:  # … and in vain: a hundred need not wait in turn
            raise DownloadError(failure.read_text(encoding="utf-8"))
        try:
            download(source, patience, show, stop)
        except DownloadError as error:
            with contextlib.suppress(OSError):  # the disk may be full
                failure.write_text(str(error), encoding="utf-8")
            raise
        failure.unlink(missing_ok=True)
    return path


def download(source: Source, patience: Patience, show: Show, stop: threading.Event) -> None:
    """Try the mirrors in turn until one delivers; the caller holds the lock."""
    path, started = source.path, time.monotonic()
    reasons: dict[str, str] = {}
    for round_ in range(patience.rounds):
        left = [url for url in source.urls if not reasons.get(url, "").endswith("(not tried again)")]
        if round_ and left:
            stop.wait(patience.pause * 2 ** (round_ - 1))
        for url in left:
            if stop.is_set():
                raise DownloadError(f"{path.name}: given up, because another file can't be had")
            with temporary_folder(path) as folder:
                file = folder / path.name
                # Servers that mishandle ranges send a whole file when asked for one part.
                reason = attempt(url, file, 4 if round_ == 0 else 1, source, patience, show, stop)
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


def attempt(
    url: str, file: Path, threads: int, source: Source, patience: Patience, show: Show, stop: threading.Event
) -> str | None:
    """One attempt in a process of its own: None if the file is there and right, otherwise why it is not.

    Raises:
        DownloadError: the disk is full; another mirror would not help.
    """
    command = [sys.executable, "-P", str(ATTEMPT), url, str(file), str(threads), str(min(20.0, patience.seconds))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        try:
            since, before = time.monotonic(), 0
            while process.poll() is None:
                size = size_of(file.parent)
                show(source, size)
                if abs(size - before) >= LEAST:
                    since, before = time.monotonic(), size
                if time.monotonic() - since > patience.seconds:
                    return f"less than {LEAST // 1024} KiB came in {patience.seconds:.0f} s"
                if stop.wait(0.05):
                    return "given up"
            text = process.stdout.read()
        finally:
            process.kill()
    if not text:
        return f"the download ended with exit code {process.returncode}"
    report = json.loads(text)
    if report["full"]:
        raise DownloadError(f"{source.path.name}: no space left in {source.path.parent} ({report['errors'][0]})")
    if report["errors"]:
        return "; ".join(report["errors"]) + (" (not tried again)" if report["permanent"] else "")
    if not file.exists():
        return "the parts could not be put together"
    return wrong(file, source, expected=report["size"])


def size_of(folder: Path) -> int:
    """Bytes in a folder whose files come and go."""
    size = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                size += entry.stat().st_size
    return size


def public(url: str) -> str:
    """A URL without its query, which may hold a key."""
    return url.partition("?")[0]


def wrong(file: Path, source: Source, expected: int = 0) -> str | None:
    """Why a file is not the one that is meant, or None.

    Args:
        file: the file.
        source: what is meant.
        expected: bytes that the server has promised; 0 for no promise.
    """
    digest = source.checksum and hash_of(file, "sha256" if source.sha256 else "md5")
    if digest and digest == source.checksum:
        return None
    size = file.stat().st_size
    if expected and size != expected:
        return f"{size:,} of {expected:,} bytes came"
    with file.open("rb") as stream:
        if stream.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            return "a web page came instead of the file, perhaps one to log in"
    if digest:
        return f"it has another checksum: {digest} instead of {source.checksum}, with {size:,} bytes"
    return None if size else "it is empty"


def hash_of(file: Path, algorithm: str = "sha256") -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def progress_display() -> Iterator[Show]:
    """One bar per file on a terminal; in a log file, where bars are noise, nothing."""
    if not sys.stderr.isatty():
        yield lambda source, arrived: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[Path, int] = {}

        def show(source: Source, arrived: int) -> None:
            if source.path not in tasks:
                tasks[source.path] = progress.add_task(source.path.name, total=source.size)
            progress.update(tasks[source.path], completed=arrived)

        yield show
