"""Places for files as the tests of drivers need them: a URL, and a way to break what is behind it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faulty import Fault, FaultyProxy
from google_stand_in import refusal
from private_sshd import PrivateSshd

from lightning_hpc.remote import Store, open_store

KINDS = ["folder", "memory", "s3", "google", "hub", "sftp", "wandb"]

# A fault has the same name wherever it can happen; what each place does for it is its own matter.
UNREACHABLE, TRUNCATED = "unreachable", "truncated"
WRONG_KEY, FORBIDDEN, QUOTA = "wrong key", "forbidden", "quota"
BROKEN, BUSY, BUSY_FOR_7_S, STRAY_404 = "server error", "too many requests", "wait for 7 s", "a 404 of something else"


def operations(store: Store, file: Path, target: Path) -> Iterator[Callable[[], Any]]:
    """All that a place can be asked for, with a file of one name: each does it when it is called."""
    yield lambda: store.list("")
    yield lambda: store.get("run/x", target)
    yield lambda: store.put({"run/x": file})
    yield lambda: store.delete(["run/x"])


class Place:
    """A place, and what can go wrong there.

    Attributes:
        url: what a user would write in `mirror.url`.
        variables: what has to be in the environment of who opens it.
        secrets: words that no message may hold.
    """

    url: str
    variables: dict[str, str] = {}
    secrets: tuple[str, ...] = ()

    def open(self) -> Store:
        """The store that the driver makes of the URL."""
        return open_store(self.url)

    def break_with(self, name: str) -> bool:
        """Break it until `mend`; False: this can't happen here."""
        return False

    def mend(self) -> None:
        """Whole again."""


class FolderPlace(Place):
    """A folder of this file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mirror"
        self.folder.mkdir()
        self.url = f"file://{self.folder}"

    def break_with(self, name: str) -> bool:
        if name != UNREACHABLE:
            return False
        self.folder.rename(f"{self.folder}-unmounted")
        return True

    def mend(self) -> None:
        if not self.folder.exists():
            Path(f"{self.folder}-unmounted").rename(self.folder)


class MemoryPlace(Place):
    """This process's memory."""

    def __init__(self, folder: Path) -> None:
        self.url = f"memory://{folder}"


class ServedPlace(Place):
    """A place behind a proxy that can spoil requests.

    Attributes:
        proxy: in front of the server.
        faults: name → what the proxy does.
    """

    proxy: FaultyProxy
    faults: dict[str, Fault]

    def break_with(self, name: str) -> bool:
        self.proxy.fault = self.faults.get(name)
        return self.proxy.fault is not None

    def mend(self) -> None:
        self.proxy.fault = None


class S3Place(ServedPlace):
    """A bucket of moto's server.

    Args:
        proxy: in front of it.
        bucket: its name; it is made.
    """

    KEY, SECRET = "AKIATESTS", "s3secret42/with+slashes"

    def __init__(self, proxy: FaultyProxy, bucket: str) -> None:
        import boto3

        self.proxy = proxy
        self.url = f"s3://{bucket}/project"
        self.secrets = (self.KEY, self.SECRET)
        self.variables = dict(AWS_ACCESS_KEY_ID=self.KEY, AWS_SECRET_ACCESS_KEY=self.SECRET)
        self.variables |= dict(AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=proxy.url)
        self.variables |= dict(AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
        names = dict(aws_access_key_id=self.KEY, aws_secret_access_key=self.SECRET, region_name="us-east-1")
        self.client: Any = boto3.client("s3", endpoint_url=proxy.upstream.geturl(), **names)
        self.client.create_bucket(Bucket=bucket)

        self.faults = {
            UNREACHABLE: Fault(dropped=True),
            TRUNCATED: Fault(truncated=True, only="^GET"),
            WRONG_KEY: self.refusal(403, "InvalidAccessKeyId"),
            FORBIDDEN: self.refusal(403, "AccessDenied"),
            QUOTA: self.refusal(403, "QuotaExceeded", only="^(PUT|POST)"),
            BROKEN: self.refusal(500, "InternalError"),
            BUSY: self.refusal(503, "SlowDown"),
            BUSY_FOR_7_S: self.refusal(429, "TooManyRequests", {"Retry-After": "7"}),
            STRAY_404: Fault(404, b"<html>no such page</html>"),
        }

    def refusal(self, status: int, code: str, headers: dict[str, str] | None = None, only: str = "") -> Fault:
        """An error as S3 sends it, with secrets in its text."""
        text = f"<Error><Code>{code}</Code><Message>{' '.join(self.secrets)}</Message></Error>"
        return Fault(status, text.encode(), {"Content-Type": "application/xml", **(headers or {})}, only)


class GooglePlace(ServedPlace):
    """A bucket of the stand-in for Google Cloud Storage; a service account's key gives access.

    Args:
        proxy: in front of the stand-in.
        bucket: its name; it has been made.
        folder: where the key's file can be.
    """

    TOKEN = "ya29tests0secret42"

    def __init__(self, proxy: FaultyProxy, bucket: str, folder: Path) -> None:
        self.proxy = proxy
        self.url = f"gs://{bucket}/project"
        key = private_key()
        self.secrets = (self.TOKEN, key.splitlines()[1])
        self.key = folder / "key-of-google.json"
        about = dict(type="service_account", client_email="me@tests", private_key=key, private_key_id="1")
        about["project_id"] = "tests"
        self.key.write_text(json.dumps(about | {"token_uri": f"{proxy.upstream.geturl()}/token"}))
        self.variables = dict(GOOGLE_APPLICATION_CREDENTIALS=str(self.key), STORAGE_EMULATOR_HOST=proxy.url)
        self.faults = {
            UNREACHABLE: Fault(dropped=True),
            TRUNCATED: Fault(truncated=True, only="^GET /download"),
            WRONG_KEY: self.refusal(401, "authError"),
            FORBIDDEN: self.refusal(403, "forbidden"),
            QUOTA: self.refusal(403, "quotaExceeded", only="^POST"),
            BROKEN: self.refusal(503, "backendError"),
            BUSY: self.refusal(429, "rateLimitExceeded"),
            BUSY_FOR_7_S: self.refusal(429, "rateLimitExceeded", {"Retry-After": "7"}),
            STRAY_404: Fault(404, b"<html>no such page</html>"),
        }

    def refusal(self, status: int, reason: str, headers: dict[str, str] | None = None, only: str = "") -> Fault:
        """An error as Google sends it, with secrets in its text."""
        _, usual, body = refusal(status, reason, f"invalid {' '.join(self.secrets)}")
        return Fault(status, body, {**usual, **(headers or {})}, only)


def private_key() -> str:
    """An RSA key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return rsa.generate_private_key(65537, 2048).private_bytes(*forms).decode()


class HubPlace(ServedPlace):
    """A repository of the stand-in for the Hub, which does not exist yet.

    Args:
        proxy: in front of the stand-in.
        name: the repository's.
    """

    TOKEN = "hf_tests0secret42"
    SIGNATURE = "signed4242"

    def __init__(self, proxy: FaultyProxy, name: str) -> None:
        self.proxy, self.name = proxy, name
        self.url = f"hf://researcher/{name}"
        self.secrets = (self.TOKEN, self.SIGNATURE)
        self.variables = dict(HF_TOKEN=self.TOKEN, HF_ENDPOINT=proxy.url, HF_HUB_DISABLE_XET="1")
        code = "X-Error-Message"
        self.faults = {
            UNREACHABLE: Fault(dropped=True),
            TRUNCATED: Fault(truncated=True, only="^GET /[^a].*/resolve/"),
            WRONG_KEY: Fault(401, b"{}", {code: f"Invalid credentials in Authorization header {self.TOKEN}"}),
            FORBIDDEN: Fault(403, b"{}", {code: f"Forbidden {self.TOKEN}"}),
            QUOTA: Fault(403, b"{}", {code: "Private repository storage limit reached"}, only="preupload|lfs|commit"),
            BROKEN: Fault(500, b"{}"),
            BUSY: Fault(429, b"{}"),
            BUSY_FOR_7_S: Fault(429, b"{}", {"Retry-After": "7"}),
            STRAY_404: Fault(404, b"<html>no such page</html>"),
        }


class WandbPlace(ServedPlace):
    """A project of the stand-in for W&B, which does not exist yet.

    Args:
        proxy: in front of the stand-in.
        name: the project's.
    """

    KEY, SIGNATURE = "0123456789abcdef" * 2 + "secret42", "signed4242"

    def __init__(self, proxy: FaultyProxy, name: str) -> None:
        self.proxy, self.name = proxy, name
        self.url = f"wandb://researcher/{name}"
        self.secrets = (self.KEY, self.SIGNATURE)
        self.variables = dict(WANDB_API_KEY=self.KEY, WANDB_BASE_URL=proxy.url, WANDB_MODE="online")
        text = f'{{"errors": [{{"message": "refused {self.KEY}"}}]}}'.encode()
        # No quota: W&B's client does not say with which status an upload was refused.
        self.faults = {
            UNREACHABLE: Fault(dropped=True),
            TRUNCATED: Fault(truncated=True, only="^GET /artifact-files"),
            WRONG_KEY: Fault(401, text),
            FORBIDDEN: Fault(403, text),
            BROKEN: Fault(500, text),
            BUSY: Fault(429, text),
            STRAY_404: Fault(404, b"<html>no such page</html>"),
        }


class SftpPlace(Place):
    """A folder of a host: this one, behind an sshd of the tests' own."""

    def __init__(self, sshd: PrivateSshd, folder: Path) -> None:
        self.sshd = sshd
        self.folder = folder / "on-the-host"
        self.folder.mkdir()
        self.url = f"sftp://there{self.folder}"
        self.variables = {"PATH": sshd.environment["PATH"]}
        self.keys = sshd.folder / "authorized-keys"
        self.known = self.keys.read_text()

    def break_with(self, name: str) -> bool:
        self.sshd.end_sessions()
        match name:
            case "unreachable":
                self.sshd.stop()
            case "wrong key":
                self.keys.write_text("")
            case "server error":
                self.sshd.serve_files("exit 1")
            case "truncated":
                self.sshd.serve_files("$program | (dd bs=1 count=3000 status=none; kill 0)")
            case _:
                return False
        return True

    def mend(self) -> None:
        self.keys.write_text(self.known)
        self.sshd.serve_files()
        if self.sshd.daemon.poll() is not None:
            self.sshd.start()
