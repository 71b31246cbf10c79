"""Object stores through fsspec: a file appears there whole, when its last byte has arrived.

Two habits of fsspec's own are not used here. `exists` answers False on any error. And `with fs.open(path, "wb")` puts
what was written so far under the name when the block ends with an exception. So finished files are put, and only the
store's own word for "no such file" says that there is none.
"""

import contextlib
import errno
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
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

# The requests of one operation at Google; each caller has its own, and its context goes along into gcsfs's thread.
SENT: ContextVar[set[tuple[str, ...]]] = ContextVar("SENT")


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
    options_of_get: Mapping[str, Any] = {}  # for fsspec's get_file

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
                self.files.get_file(path, str(part), callback=told, **self.options_of_get)
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

    def _prepare(self) -> None:
        """What has to be done before each operation."""

    def _explain(self, error: Exception, name: str) -> StoreError:
        """What a client's exception means."""
        raise NotImplementedError

    def _path(self, name: str) -> str:
        return f"{self.root}/{relative(name)}"

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn what the client raises into one line; the disk of this machine speaks for itself."""
        try:
            self._prepare()
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
            f"{self.address}: no answer ({type(named).__name__}); look whether AWS_ENDPOINT_URL is right, and reached"
        )


class Answered(Exception):
    """Google's store has answered with an error. gcsfs knows nothing of this class, so it does not try again.

    Args:
        method: of the request.
        status: of HTTP.
        headers: of the answer.
        body: of the answer.
    """

    def __init__(self, method: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.method, self.status, self.headers = method, status, headers
        self.reason = ""
        with contextlib.suppress(ValueError, TypeError, LookupError):
            reason = json.loads(body)["error"]["errors"][0]["reason"]
            self.reason = reason if re.fullmatch("[A-Za-z]{1,40}", reason) else ""


class NoAnswer(Exception):
    """Google's store has not answered, or not to the end."""


class GoogleStorage(Objects):
    """gs://BUCKET/FOLDER: Google Cloud Storage. Keys are those of Google's own tools; STORAGE_EMULATOR_HOST is another
    server.

    gcsfs tries most errors again, for half a minute, and loses the headers of the answers. So each request goes through
    `watch`, which raises errors that gcsfs does not know, and sends no request of an operation twice.
    """

    keys = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key's file"
    options_of_get = {"headers": {}}  # with these, gcsfs fetches a file in one request, whose answer says the size

    def _connect(self) -> Any:
        try:
            import google.auth
            from aiohttp import ClientTimeout
            from gcsfs.core import GCSFileSystem  # the one of `gcsfs` itself asks for the kind of bucket, by gRPC
        except ImportError:
            raise SettingsError('a mirror at gs:// needs gcsfs: pip install -e ".[remote]"') from None
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs what servers say, and that can hold keys

        try:
            key, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
        except google.auth.exceptions.DefaultCredentialsError:
            key = "anon"  # the store says whether that will do
        return GCSFileSystem(
            token=key,
            session_kwargs={"middlewares": (self.watch,)},
            requests_timeout=ClientTimeout(total=None, sock_connect=10, sock_read=60),
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    async def watch(self, request: Any, send: Any) -> Any:
        """Send a request of gcsfs's for the first time; aiohttp calls this.

        Raises:
            Answered, NoAnswer: it did not work.
        """
        from aiohttp import ClientError

        part = (request.headers.get("Range", ""), request.headers.get("Content-Range", ""))
        this = (request.method, str(request.url), *part)
        if this in SENT.get():
            raise NoAnswer("only a part of it has come")
        SENT.get().add(this)

        try:
            answer = await send(request)
            if answer.status < 400 or answer.status == 499:  # an upload was cancelled, as it was asked to be
                return answer
            raise Answered(request.method, answer.status, answer.headers, await answer.read())
        except (ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(type(error).__name__) from None

    def _prepare(self) -> None:
        """See to it that there is a fresh key: gcsfs would ask for one six times."""
        SENT.set(set())
        self.files.credentials.maybe_refresh()

    def _explain(self, error: Exception, name: str) -> StoreError:
        from google.auth.exceptions import GoogleAuthError, TransportError

        for each in causes(error):
            if isinstance(each, Answered):
                if each.status == 404 and each.method in ("GET", "DELETE") and self._has_bucket():
                    return Missing(self.address, name)
                return refused(self.address, each.status, each.headers, code=each.reason, keys=self.keys)
            if isinstance(each, GoogleAuthError):
                is_permanent = not (isinstance(each, TransportError) or each.retryable)
                return StoreError(
                    f"{self.address}: Google gives no access for the key here; {self.keys}", permanent=is_permanent
                )
        return StoreError(f"{self.address}: no answer ({type(error).__name__}); look whether the network is there")

    def _has_bucket(self) -> bool:
        """Whether the bucket answers: a 404 can mean the file, the bucket, or something between here and the store.

        It is listed, since a key that may read and write files often may not look at the bucket itself.
        """
        try:
            SENT.set(set())
            self.files.call("GET", "b/{}/o", self.root.partition("/")[0], maxResults=1)
            return True
        except Exception:
            return False


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
