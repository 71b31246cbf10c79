"""Object stores through fsspec: a file appears there whole, when its last byte has arrived.

Two habits of fsspec's own are not used here. `exists` answers False on any error. And `with fs.open(path, "wb")` puts
what was written so far under the name when the block ends with an exception. So finished files are put, and only the
store's own word for "no such file" says that there is none.
"""

import contextlib
import errno
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..settings.errors import SettingsError
from .answers import causes, refused
from .store import Missing, StoreError, check_size, relative, whole

# Seconds to connect, and without a byte. Only s3fs tries again, once; the rest is up to the mirror, which knows how
# long there is time.
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"mode": "standard", "total_max_attempts": 1}}
ATTEMPTS = 2

# What goes wrong with a disk here while a file is fetched.
HERE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class Objects:
    """Files in an object store, below a prefix. A child says which.

    Args:
        address: KIND://BUCKET/FOLDER.

    Attributes:
        files: fsspec's file system.
        root: BUCKET/FOLDER.

    Raises:
        SettingsError: a package is missing.
    """

    seconds_between_puts = 0.0
    keys = ""  # what to do about a key that is missing or wrong

    def __init__(self, address: str) -> None:
        self.address = address
        self.root = address.partition("://")[2]
        self.files = self._connect()

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`; file by file."""
        for name, source in files.items():
            path = self._path(name)
            source.open("rb").close()  # a file here that can't be read is no fault of the store
            with self._explained(name):
                self.files.put_file(str(source), path)

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        from fsspec.callbacks import Callback

        path, told = self._path(name), Callback()
        with whole(target) as part:
            with self._explained(name):
                self.files.get_file(path, str(part), callback=told)
            if told.size is not None:
                check_size(self.address, name, part, told.size)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`."""
        start = self._path(folder) if folder else self.root
        with self._explained(folder):
            found = self.files.find(start, detail=True)
        names = {path.removeprefix(f"{self.root}/"): entry["size"] for path, entry in found.items()}
        below = f"{relative(folder)}/" if folder else ""
        return {name: size for name, size in names.items() if name.startswith(below)}

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`; one by one, since fsspec says nothing of those that fail in a batch."""
        for name in names:
            path = self._path(name)
            with contextlib.suppress(Missing), self._explained(name):
                self.files.rm_file(path)

    def _connect(self) -> Any:
        raise NotImplementedError

    def _explain(self, error: Exception, name: str) -> StoreError:
        """What a client's exception means."""
        raise NotImplementedError

    def _path(self, name: str) -> str:
        return f"{self.root}/{relative(name)}"

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn what the client raises into one line; the disk of this machine speaks for itself."""
        try:
            yield
        except Exception as error:
            # s3fs raises OSErrors, too; those have come from an answer of the store.
            is_here = isinstance(error, OSError) and error.__cause__ is None
            if is_here and (error.errno in HERE or error.filename):
                raise
            raise self._explain(error, name) from None


class S3(Objects):
    """s3://BUCKET/FOLDER: Amazon's store, or another that speaks its language.

    Keys and the server's address are those of AWS's own tools: ~/.aws, AWS_PROFILE, AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL.
    """

    keys = "see ~/.aws/credentials, AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

    def _connect(self) -> Any:
        files = file_system("s3", "s3fs", config_kwargs=TIMEOUTS)
        files.retries = ATTEMPTS
        return files

    def _explain(self, error: Exception, name: str) -> StoreError:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        for each in causes(error):
            if isinstance(each, NoCredentialsError):
                return StoreError(f"{self.address}: there is no key for it here; {self.keys}", permanent=True)
            if isinstance(each, ClientError):
                answer = each.response.get("ResponseMetadata", {})
                code = each.response.get("Error", {}).get("Code", "")
                # A bare 404 can come from anything between here and the store.
                if code == "NoSuchKey":
                    return Missing(self.address, name)
                status, headers = answer.get("HTTPStatusCode", 0), answer.get("HTTPHeaders", {})
                return refused(self.address, status, headers, code=code, keys=self.keys)
        named = next((each for each in causes(error) if isinstance(each, BotoCoreError)), error)
        return StoreError(
            f"{self.address}: no answer ({type(named).__name__}); is AWS_ENDPOINT_URL right, and reached?"
        )


class Memory(Objects):
    """memory://…: files in this process's memory, for tests; all such places of a process are one."""

    def _connect(self) -> Any:
        self.root = f"/{self.root.strip('/')}"
        return file_system("memory", "fsspec")

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`; fsspec would make a folder of a name that others begin with."""
        path = self._path(name)
        with self._explained(name):
            content = self.files.cat_file(path)
        with whole(target) as part:
            part.write_bytes(content)

    def _explain(self, error: Exception, name: str) -> StoreError:
        if isinstance(error, FileNotFoundError | IsADirectoryError):
            return Missing(self.address, name)
        return StoreError(f"{self.address}: {type(error).__name__}")


def file_system(kind: str, package: str, **options: Any) -> Any:
    """fsspec's file system of a kind, with nothing remembered of earlier answers.

    Raises:
        SettingsError: its package is not installed.
    """
    try:
        import fsspec

        return fsspec.filesystem(kind, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError:
        raise SettingsError(f'a mirror at {kind}:// needs {package}: pip install -e ".[remote]"') from None
