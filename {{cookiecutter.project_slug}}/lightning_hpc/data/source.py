"""What is to be downloaded: where it is, where it goes, and how to know that it has arrived."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..files import hash_of


@dataclass(frozen=True)
class Source:
    """A file to download.

    Attributes:
        urls: where it is; the first that delivers the right file is taken. Neither
            `user:password@` nor a query, which may be a key, is shown.
        dest: where it goes. Its folder is made.
        sha256: its checksum, 64 hexadecimal digits.
        md5: where the publisher gives no better one: it finds damage, but not a forgery.
        size: bytes, where known: for the progress display.
        unverified: take the file without a checksum. Then its length must be what the server says, it must not be a web
            page, and https must not redirect to http; the log says the SHA-256 to write down.
    """

    urls: Sequence[str] = field(repr=False)
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
        """In lower case; None if there is none."""
        return (self.sha256 or self.md5 or "").lower() or None

    def is_there(self) -> bool:
        """True if the right file has its name already."""
        try:
            return self.fault(self.path) is None
        except FileNotFoundError:  # also one that somebody removes while it is read
            return False

    def fault(self, file: Path, promised: int = 0) -> str | None:
        """Why a file is not the one that is meant, or None if it is.

        Args:
            file: the file.
            promised: bytes that the server has announced; 0 for no promise.
        """
        digest = None
        if self.checksum:
            digest = hash_of(file, "sha256" if self.sha256 else "md5")
            if digest == self.checksum:
                return None  # whatever the server has announced

        # From here on the file is wrong, or has no checksum. The reason that helps most comes first.
        size = file.stat().st_size
        if promised and size != promised:
            return f"{size:,} of {promised:,} bytes came"
        if is_web_page(file):
            return "a web page came instead of the file, perhaps one to log in"
        if digest:
            return f"it has another checksum: {digest} instead of {self.checksum}, with {size:,} bytes"
        return None if size else "it is empty"


def is_web_page(file: Path) -> bool:
    with file.open("rb") as stream:
        beginning = stream.read(512).lstrip().lower()
    return beginning.startswith((b"<!doctype html", b"<html"))


def public(url: str) -> str:
    """A URL without user, password and query, which may be keys.

    It is taken apart by hand: what is no proper URL, so that urllib refuses it, may hold a key all the same.
    """
    address = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, separator, rest = address.rpartition("://")
    place, slash, path = rest.partition("/")
    return scheme + separator + place.rpartition("@")[2] + slash + path


def without_secrets(text: str, url: str) -> str:
    """An error's text without what `public` leaves out of this URL, or of one that it has been redirected to."""
    login = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    query = url.partition("?")[2]
    text = text.replace(f"?{query}", "?…")
    for secret in (login, login.partition(":")[2]):
        text = text.replace(f"{secret}@", "…@")

    text = re.sub(r"//[^/\s@]*@", "//", text)
    return re.sub(r"(?<=\S)\?[^\s'\"<>]+", "?…", text)
