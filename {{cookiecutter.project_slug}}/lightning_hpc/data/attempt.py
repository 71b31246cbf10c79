"""One attempt at one download with pySmartDL, in a process that download.py starts.

Reads one line of JSON: the arguments of `main`. They do not stand on the command line, which everybody on the machine
can read, since a URL may have a key in it.

It is a process of its own because pySmartDL's threads cannot be ended: a server that sends a byte now and then would
keep the program alive for ever. This file imports nothing of the package, so that it starts at once.

Prints one line of JSON: size (what the server says, in bytes; 0: it does not say), errors (texts), permanent (no use to
ask this server again) and full (the disk, or a quota, is).
"""

import base64
import errno
import json
import os
import sys
import threading
import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

from pySmartDL import SmartDL

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

BUSY = (408, 425, 429)  # HTTP: request timeout, too early, too many requests


class InsecureRedirect(Exception):
    """A server that was asked by https redirects to an address that anybody on the way can answer for."""


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but for those that lose the protection of https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise InsecureRedirect("it redirects from https to http, where a file needs a sha256 to be believed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Login(urllib.request.BaseHandler):
    """Sends user and password to one server, and to none that it redirects to."""

    def __init__(self, scheme: str, place: str, user: str, password: str) -> None:
        self.server = (scheme, place)
        self.login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        if (request.type, request.host) == self.server:
            request.add_unredirected_header("Authorization", self.login)
        return request

    https_request = http_request


def main(url: str, file: str, threads: int, timeout: float, verified: bool) -> None:
    """Download to a file that does not exist yet; nothing here decides whether what arrived is right.

    Args:
        url: where it is.
        file: where it goes.
        threads: how many parts are downloaded at the same time.
        timeout: seconds that a server may be silent.
        verified: the file's SHA-256 is known, so that it may come from anywhere.
    """
    errors: list[BaseException] = []
    threading.excepthook = lambda event: errors.append(event.exc_value)  # pySmartDL does not report all of them
    threading.Thread(target=end_with_parent, daemon=True).start()

    size, download = 0, None
    try:
        # An honest name instead of pySmartDL's random browser.
        headers = dict(headers={"User-Agent": "pySmartDL/1.3.4"})
        address = prepare_urllib(url, verified)
        download = SmartDL(
            [address],
            dest=file,
            progress_bar=False,
            fix_urls=False,
            threads=threads,
            timeout=timeout,
            request_args=headers,
        )
        download.attemps_limit = 1  # sic; its own retries can't succeed, as they look at the first attempt's errors
        download.start()
        size = download.filesize
        errors += download.get_errors()
    except BaseException as error:
        errors.append(error)

    # The cause, where the others only say that something failed
    if download is not None:
        errors = download.pool.get_exceptions() or errors

    texts = [" ".join(f"{type(error).__name__}: {error}".split()) for error in errors]
    report = dict(
        size=size,
        errors=list(dict.fromkeys(texts)),  # each once
        permanent=any(is_permanent(error) for error in errors),
        full=any(getattr(error, "errno", None) in FULL for error in errors),
    )
    print(json.dumps(report), flush=True)
    os._exit(0)  # without waiting for threads that may still hang


def prepare_urllib(url: str, verified: bool) -> str:
    """Make urllib, which pySmartDL uses, watch redirects and log in; returns the URL without `user:password@`."""
    handlers: list[urllib.request.BaseHandler] = [] if verified else [Redirects()]

    pieces = urlsplit(url)
    if pieces.username is not None:
        place = pieces.netloc.rpartition("@")[2]
        url = urlunsplit(pieces._replace(netloc=place))
        handlers.append(Login(pieces.scheme, place, unquote(pieces.username), unquote(pieces.password or "")))

    urllib.request.install_opener(urllib.request.build_opener(*handlers))
    return url


def is_permanent(error: BaseException) -> bool:
    """True if the server would say the same again: it refuses, and not because it is busy."""
    if isinstance(error, InsecureRedirect):
        return True
    if not isinstance(error, HTTPError):
        return False
    code = int(error.code)
    return 400 <= code < 500 and code not in BUSY


def end_with_parent() -> None:
    """End this process when its parent has, however that ended: the pipe to it is closed then."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(**json.loads(sys.stdin.buffer.readline()))
