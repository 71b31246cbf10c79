"""hf://OWNER/REPO: a repository on the Hugging Face Hub, one for a project, with a folder for each run.

Repositories there are public unless one asks, so this asks for a private one, and puts nothing into a public one unless
that was wished in so many words. A put is one commit: all of it or nothing. About 128 commits an hour are allowed.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..settings.errors import SettingsError
from .answers import causes, refused
from .store import Missing, StoreError, relative

OTHERS = "models/|datasets/|spaces/|buckets/"  # no names of owners

KEYS = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class Hub:
    """A repository, or a folder in it, as a place for files.

    Args:
        address: hf://OWNER/REPO, hf://OWNER/REPO/FOLDER, or the same after hf://datasets/.
        public: everybody may read it.

    Raises:
        SettingsError: the address is none, or huggingface_hub is not installed.
    """

    seconds_between_puts = 30.0

    def __init__(self, address: str, public: bool = False) -> None:
        found = re.fullmatch(rf"hf://(models/|datasets/)?(?!{OTHERS})([\w.-]+/[\w.-]+)(?:/(.+))?", address)
        if not found:
            raise SettingsError(f"{address}: an address on the Hub is hf://OWNER/REPO, or hf://datasets/OWNER/REPO")
        try:
            from huggingface_hub import HfApi
            from huggingface_hub.utils import disable_progress_bars, logging
        except ImportError:
            raise SettingsError('a mirror at hf:// needs huggingface_hub: pip install -e ".[remote]"') from None

        # Bars would run across those of the training, and the client's warnings hold signed addresses.
        with contextlib.suppress(Warning):
            disable_progress_bars()
        logging.set_verbosity_error()

        self.address, self.public = address, public
        kind, self.repository, folder = found.groups()
        self.where = {"repo_id": self.repository, "repo_type": "dataset" if kind == "datasets/" else "model"}
        self.root = PurePosixPath(relative(folder)) if folder else PurePosixPath()
        self.api = HfApi()

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`; in one commit, so all of it or nothing."""
        from huggingface_hub import CommitOperationAdd

        paths = {self._path(name): source for name, source in files.items()}
        for source in paths.values():
            source.open("rb").close()  # a file here that can't be read is no fault of the Hub
        if not paths:
            return

        with self._explained():
            if not self._is_there():
                self.api.create_repo(**self.where, private=not self.public, exist_ok=True)
                self._is_there()  # somebody else can have been faster, and have made it public
            added = [CommitOperationAdd(path, str(source)) for path, source in paths.items()]
            self.api.create_commit(operations=added, commit_message=_message("put", paths), **self.where)

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        path = self._path(name)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            with self._explained(name):
                if not self._is_there():
                    raise Missing(self.address, name)
                arrived = self.api.hf_hub_download(filename=path, local_dir=folder, **self.where)
            with open(arrived, "rb") as file:
                os.fsync(file.fileno())
            os.replace(arrived, target)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`."""
        from huggingface_hub.hf_api import RepoFile

        start = self._path(folder) if folder else str(self.root)
        with contextlib.suppress(Missing), self._explained(folder):
            if not self._is_there():
                return {}
            inside = None if start == "." else start
            entries = list(self.api.list_repo_tree(path_in_repo=inside, recursive=True, **self.where))
            files = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
            files.pop(".gitattributes", None)  # the Hub's own
            return {str(PurePosixPath(path).relative_to(self.root)): size for path, size in files.items()}
        return {}

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`; in one commit. The history of the repository keeps what was there."""
        from huggingface_hub import CommitOperationDelete

        # The Hub refuses a commit that deletes what is not there.
        asked = {self._path(name) for name in names}
        there = {self._path(name) for name in self.list("")} if asked else set()
        if paths := sorted(asked & there):
            with self._explained():
                gone = [CommitOperationDelete(path) for path in paths]
                self.api.create_commit(operations=gone, commit_message=_message("delete", paths), **self.where)

    def _path(self, name: str) -> str:
        return str(self.root / relative(name))

    def _is_there(self) -> bool:
        """Whether there is such a repository; to be asked first, since this request alone is not repeated for long.

        Raises:
            StoreError: it is public, and nobody has asked for that; or nobody knows.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self.api.repo_info(**self.where, timeout=30)
        except RepositoryNotFoundError as error:
            # The Hub says the same of a repository that a token may not see.
            if error.response.status_code == 404 and self._would_see_it():
                return False
            raise
        if not info.private and not self.public:
            raise StoreError(
                f"{self.address}: this repository is public, and a mirror is private unless asked: make it private on "
                "the Hub, or say --mirror.public true",
                permanent=True,
            )
        return True

    def _would_see_it(self) -> bool:
        """Whether the token sees every repository of this owner: then one that it does not see is not there."""
        known = self.api.whoami()
        owners = {known.get("name"), *(group.get("name") for group in known.get("orgs", []))}
        role = known.get("auth", {}).get("accessToken", {}).get("role")
        return self.repository.partition("/")[0] in owners and role in ("read", "write")

    @contextlib.contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """Turn what the client raises into one line; the disk of this machine speaks for itself."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            chain = list(causes(error))
            answers = [each.response for each in chain if getattr(each, "response", None) is not None]
            is_here = isinstance(error, OSError) and error.errno is not None and not answers
            if is_here:
                raise
            raise self._explain(answers, type(chain[-1]).__name__, name) from None

    def _explain(self, answers: Sequence[Any], kind: str, name: str) -> StoreError:
        """What an answer of the Hub means, or that there is none.

        Args:
            answers: HTTP responses, the last that came first.
            kind: the name of the first exception.
            name: the file that it is about.
        """
        if not answers:
            return StoreError(f"{self.address}: no answer from {self.api.endpoint} ({kind})")
        headers = answers[0].headers
        if answers[0].status_code == 404 and headers.get("X-Error-Code") == "EntryNotFound":
            return Missing(self.address, name)
        is_full = "storage" in headers.get("X-Error-Message", "").lower()
        code = "StorageLimitExceeded" if is_full else headers.get("X-Error-Code", "")
        return refused(self.address, answers[0].status_code, dict(headers), code=code, keys=KEYS)


def _message(verb: str, paths: Iterable[str]) -> str:
    """The message of a commit."""
    first, *others = paths
    return f"{verb} {first}" + (f" and {len(others)} more" if others else "")
