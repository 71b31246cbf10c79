"""One attempt at one download with pySmartDL: `python one_attempt.py URL FILE THREADS TIMEOUT`, started by download.py.

It is a process of its own because pySmartDL's threads cannot be ended: a server that sends a byte now and then would
keep the program alive for ever. This file imports nothing of the package, so that it starts at once.

Prints one line of JSON: size (what the server says, in bytes; 0: it does not say), errors (texts), permanent (no use to
ask this server again) and full (the disk, or a quota, is).
"""

import errno
import json
import os
import sys
import threading
from urllib.error import HTTPError

from pySmartDL import SmartDL

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(url: str, file: str, threads: int, timeout: float) -> None:
    """Download to a file that does not exist yet; nothing here decides whether what arrived is right."""
    errors: list[BaseException] = []
    threading.excepthook = lambda event: errors.append(event.exc_value)  # pySmartDL does not report all of them
    threading.Thread(target=end_with_parent, daemon=True).start()
    size, download = 0, None
    try:
        # An honest name instead of pySmartDL's random browser.
        headers = dict(headers={"User-Agent": "pySmartDL/1.3.4"})
        download = SmartDL(
            [url], dest=file, progress_bar=False, fix_urls=False, threads=threads, timeout=timeout, request_args=headers
        )
        download.attemps_limit = 1  # sic; its own retries can't succeed, as they look at the first attempt's errors
        download.start()
        size = download.filesize
        errors += download.get_errors()
    except BaseException as error:
        errors.append(error)
    if download is not None:
        errors = download.pool.get_exceptions() or errors  # the cause, where the others say that something failed
    report = dict(
        size=size,
        errors=list(dict.fromkeys(" ".join(f"{type(error).__name__}: {error}".split()) for error in errors)),
        permanent=any(
            isinstance(error, HTTPError) and 400 <= int(error.code) < 500 and int(error.code) not in (408, 425, 429)
            for error in errors
        ),
        full=any(getattr(error, "errno", None) in FULL for error in errors),
    )
    print(json.dumps(report), flush=True)
    os._exit(0)  # without waiting for threads that may still hang


def end_with_parent() -> None:
    """End this process when its parent has, however that ended: the pipe to it is closed then."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
