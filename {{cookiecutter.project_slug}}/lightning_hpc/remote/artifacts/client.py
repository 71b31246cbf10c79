"""The program that speaks to W&B for a mirror: `python client.py ENTITY PROJECT` reads questions and prints answers.

It is a process of its own, since W&B's client keeps what belongs to a run in its process: the training's own run, its
sweep and its id stay untouched. Each line is a question in JSON, [OPERATION, ARGUMENT]; each is answered by one line:
{"answer": …}, or {"missing": true}, or {"status": HTTP STATUS, "headers": …, "kind": …}, or {"errno": …, "file": …}.

How files become artifacts. A file's name is FOLDER/REST. Each folder is an artifact of the type `mirror`, and each put
a version of it with the files of that put alone. So a put is complete or not at all, and two writers lose nothing of
each other. Of a file in several versions the newest counts. A version of which no file counts any more is deleted; one
of which some do has the others listed as gone, in its metadata.
"""

import errno
import json
import os
import queue
import re
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

TYPE = "mirror"

TIMEOUT = 15  # seconds for one question
CHUNK = 2**20

# Signals that ask a run to stop go to the whole job; the last upload has to end all the same.
DEAF = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

OF_A_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}

# The client itself tries again for minutes or hours; the mirror does that, and knows how long there is time.
IMPATIENT = {
    f"WANDB_X_{kind}_RETRY_{limit}": value
    for kind in ("GRAPHQL", "FILE_TRANSFER", "FILE_STREAM")
    for limit, value in (("MAX", "2"), ("WAIT_MIN_SECONDS", "0.2"), ("WAIT_MAX_SECONDS", "1"))
}


@dataclass
class File:
    """A file that counts: its size in bytes, and the version that has it."""

    size: int
    version: Any


class Project:
    """The artifacts of a project.

    Args:
        entity, project: where in W&B.
    """

    def __init__(self, entity: str, project: str) -> None:
        import wandb

        self.entity, self.project = entity, project
        self.api = wandb.Api(timeout=TIMEOUT)
        self.run: Any = None

    def put(self, files: dict[str, str]) -> None:
        """Upload files: name → path here."""
        folders: dict[str, dict[str, str]] = {}
        for name, path in files.items():
            folder, _, rest = name.partition("/")
            folders.setdefault(folder, {})[rest] = path

        for folder, contents in folders.items():
            self._put(folder, contents)

            # What they replace is of no use to anybody now.
            self._forget(folder, set())

    def get(self, name_and_target: list[str]) -> int:
        """Download a file; returns its size, as W&B has it.

        Raises:
            KeyError: it is not there.
        """
        import requests

        name, target = name_and_target
        folder, _, rest = name.partition("/")
        file = self._files(folder)[rest]
        found = [entry for entry in file.version.files(names=[rest]) if entry.name == rest]
        with requests.get(found[0].direct_url, stream=True, timeout=TIMEOUT) as answer, open(target, "wb") as part:
            answer.raise_for_status()
            for chunk in answer.iter_content(CHUNK):
                part.write(chunk)
        return file.size

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file below a folder: name → size in bytes; "": all."""
        first, _, rest = folder.partition("/")
        found = {}
        for one in self._folders():
            if first in ("", one):
                found |= {f"{one}/{name}": file.size for name, file in self._files(one).items()}
        return {name: size for name, size in found.items() if not rest or name.startswith(f"{folder}/")}

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, whichever versions they are in."""
        folders: dict[str, set[str]] = {}
        for name in names:
            folder, _, rest = name.partition("/")
            folders.setdefault(folder, set()).add(rest)
        for folder, gone in folders.items():
            self._forget(folder, gone)

    def close(self) -> None:
        """End the run that the versions were logged by."""
        if self.run is not None:
            self.run.finish()

    def _put(self, folder: str, files: dict[str, str]) -> None:
        """A new version of a folder's artifact."""
        import wandb

        if self.run is None:
            quiet = dict(console="off", silent=True, init_timeout=TIMEOUT, save_code=False, disable_git=True)
            quiet |= dict(x_disable_stats=True, x_disable_meta=True, x_save_requirements=False)
            place = dict(entity=self.entity, project=self.project)
            self.run = wandb.init(job_type=TYPE, name=TYPE, settings=wandb.Settings(**quiet), **place)

        # Lists, since W&B allows few keys in metadata.
        sizes = [[name, os.path.getsize(path)] for name, path in files.items()]
        artifact = wandb.Artifact(folder, TYPE, metadata={"files": sizes, "gone": []})
        for name, path in files.items():
            artifact.add_file(path, name, policy="immutable", skip_cache=True)

        # W&B makes no new version of what an old one holds; but the old one may no longer be the newest.
        with artifact.new_file(".put") as file:
            file.write(secrets.token_hex(8))
        self.run.log_artifact(artifact).wait()

    def _folders(self) -> list[str]:
        """The folders that there are.

        Raises:
            Invisible: nobody knows.
        """
        try:
            kind = self.api.artifact_type(TYPE, f"{self.entity}/{self.project}")
        except Exception as error:
            if "Could not find artifact type" not in str(error):
                raise
            viewer = self.api.viewer
            if self.entity not in (viewer.entity, viewer.username, *viewer.teams):
                raise Invisible from None
            return []
        return [collection.name for collection in kind.collections()]

    def _versions(self, folder: str) -> list[Any]:
        """A folder's complete versions, the newest first."""
        if folder not in self._folders():
            return []
        found = self.api.artifacts(TYPE, f"{self.entity}/{self.project}/{folder}", per_page=100)
        return sorted(found, key=lambda version: int(version.version.removeprefix("v")), reverse=True)

    def _files(self, folder: str) -> dict[str, File]:
        """The files of a folder that count."""
        files: dict[str, File] = {}
        for version in self._versions(folder):
            for name, size in _held(version):
                files.setdefault(name, File(size, version))
        return files

    def _forget(self, folder: str, gone: set[str]) -> None:
        """Delete files of a folder, and what newer versions have replaced."""
        newer: set[str] = set()
        changes = []
        for version in self._versions(folder):
            held = {name for name, _ in _held(version)}
            changes.append((version, held & gone, not held - gone - newer))
            newer |= held

        # The oldest first: a kill in between must not bring back what a newer version had replaced.
        for version, lost, is_empty in reversed(changes):
            if is_empty:
                version.delete(delete_aliases=True)
            elif lost:
                version.metadata = {**version.metadata, "gone": sorted({*version.metadata["gone"], *lost})}
                version.save()


class Invisible(Exception):
    """There is no such entity, or this key may not see it; a project of it can't be said to be empty."""


def _held(version: Any) -> list[tuple[str, int]]:
    """Name and size of the files of a version, without those that were deleted; none: it is of another program."""
    gone = version.metadata.get("gone", ())
    return [(name, size) for name, size in version.metadata.get("files", ()) if name not in gone]


def _refusal(error: Exception) -> dict[str, Any]:
    """What an error of the client means. Its words stay here: they can hold addresses that are as good as keys."""
    if isinstance(error, Invisible):
        return {"status": 404}
    if isinstance(error, KeyError):
        return {"missing": True}

    for cause in _causes(error):
        answer = getattr(cause, "response", None)
        status = getattr(answer, "http_status", 0) or getattr(answer, "status_code", 0)
        if status:
            return {"status": status, "headers": dict(getattr(answer, "headers", {}))}
        if isinstance(cause, OSError) and (cause.filename or cause.errno in OF_A_DISK):
            return {"errno": cause.errno, "file": str(cause.filename or "")}

    said = " ".join(str(cause) for cause in _causes(error))
    found = re.search(r"(?i)\b(?:HTTP|status|code|error)[ :(]+([45]\d\d)\b", said)
    return {"status": int(found[1]) if found else 0, "kind": type(error).__name__}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def main() -> None:
    """Answer questions until there are none any more."""
    for number in DEAF:
        signal.signal(number, signal.SIG_IGN)

    # What W&B prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    os.environ.update(IMPATIENT)
    project: Project | None = None
    questions, is_busy = _questions()
    while question := questions.get():
        operation, argument = question
        try:
            project = project or Project(*sys.argv[1:])
            said = {"answer": getattr(project, operation)(argument)}
        except Exception as error:  # W&B's client has half a dozen kinds without a common parent
            said = _refusal(error)
        is_busy.clear()
        print(json.dumps(said), file=answers, flush=True)

    if project is not None:
        project.close()


def _questions() -> tuple[queue.SimpleQueue, threading.Event]:
    """The questions as they come, then None; and whether one of them is being answered.

    If who asks has been killed meanwhile, this program and W&B's service end at once: what a killed run has begun must
    not appear later, after another machine has continued it.
    """
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_busy = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            is_busy.set()
            questions.put(json.loads(line))
        if is_busy.is_set():
            os.killpg(0, signal.SIGKILL)
        questions.put(None)

    threading.Thread(target=read, daemon=True).start()
    return questions, is_busy


if __name__ == "__main__":
    main()
