"""From a URL to a place: which driver it has, and what a URL must not hold."""

from ..settings.errors import SettingsError, did_you_mean
from .artifacts import Artifacts
from .folder import Folder
from .hub import Hub
from .objects import S3, GoogleStorage, Memory
from .sftp import Sftp
from .store import Store

KINDS = {
    "file": "file:///FOLDER",
    "s3": "s3://BUCKET/FOLDER",
    "gs": "gs://BUCKET/FOLDER",
    "hf": "hf://OWNER/REPO",
    "sftp": "sftp://USER@HOST/FOLDER",
    "wandb": "wandb://ENTITY/PROJECT",
    "memory": "memory://FOLDER",
}


def open_store(url: str, *, public: bool = False) -> Store:
    """The place that a URL names. Nothing is sent yet.

    Args:
        url: such as s3://BUCKET/FOLDER; the kinds are those of KINDS.
        public: everybody may read what is put there; without it a place that is known to be public is refused.

    Raises:
        SettingsError: it names no place, or holds a secret, or a package is missing for it.
    """
    kind, _, rest = url.strip().rstrip("/").partition("://")
    if kind not in KINDS or not rest:
        known = ", ".join(KINDS.values())
        raise SettingsError(
            f"no mirror can be at {_without_secret(url)!r}{did_you_mean(kind, KINDS)}; it is one of {known}"
        )

    # Settings are kept in files of the run, and shown; so a key must not come in with them.
    if ":" in rest.rpartition("@")[0] or ("?" in rest and kind != "file"):
        raise SettingsError(
            f"{_without_secret(url)}: a mirror's URL must hold no password or key, since settings are kept in files; "
            "docs/mirror.md says where keys belong"
        )

    address = f"{kind}://{rest}"
    match kind:
        case "file":
            return Folder(address)
        case "s3":
            return S3(address)
        case "gs":
            return GoogleStorage(address)
        case "hf":
            return Hub(address, public)
        case "sftp":
            return Sftp(address)
        case "wandb":
            return Artifacts(address)
        case _:
            return Memory(address)


def _without_secret(url: str) -> str:
    """A URL without what may be a secret in it: all before an @ that has a colon, and all after a question mark."""
    kind, separator, rest = url.partition("?")[0].partition("://")
    user, at, place = rest.rpartition("@")
    name = f"{user.partition(':')[0]}:…" if ":" in user else user
    return f"{kind}{separator}{name}{at}{place}"
