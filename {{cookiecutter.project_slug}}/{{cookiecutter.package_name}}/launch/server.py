"""Tells agents the sweep's id by http, where they share no file system with whoever created the sweep.

    GET /api/get_sweep_id   200, text/plain: the id and nothing else; 503 while there is none yet
    GET /healthz            200, text/plain: ok

    python CreateSweep.py --serve 127.0.0.1:5001
    python SweepAgent.py --server http://127.0.0.1:5001

The sweep is created once. Its id is kept in sweeps/server.json, so that the server can be started again, on another
machine too if that file is there, and agents that ask again get the same id. The standard library is enough: two
addresses, no state, a request a minute.
"""

import json
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..runs.folder import write_atomically
from ..runs.settings import SettingsError
from .local_sweep import SWEEPS, read_json

PORT = 5001
LOOPBACK = "127.0.0.1"


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, HOST or :PORT; the loopback interface and 5001 where one is left out.

    Raises:
        SettingsError: the port is no number from 0 to 65535.
    """
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    if not (port.isdigit() and int(port) < 65536):
        raise SettingsError(f"--serve {text}: write HOST:PORT, such as {LOOPBACK}:{PORT}; HOST 0.0.0.0 is any network")
    return host or LOOPBACK, int(port)


class SweepServer:
    """The server; `with SweepServer(...) as server:` answers in a thread of its own.

    Args:
        where: host and port; port 0 is any free one.
        kept: the file that keeps the id.
    """

    def __init__(self, where: tuple[str, int], kept: Path) -> None:
        self.kept = kept
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = server.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Nothing: agents ask again and again."""

        try:
            self.http = ThreadingHTTPServer(where, Handler)
        except OSError as error:
            raise SettingsError(f"can't serve at {where[0]}:{where[1]}: {error.strerror or error}") from None
        self.url = f"http://{where[0]}:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    @property
    def sweep_id(self) -> str | None:
        return read_json(self.kept).get("sweep")

    def answer(self, path: str) -> tuple[int, str]:
        """Status and text for a GET request."""
        if path == "/healthz":
            return 200, "ok"
        if path == "/api/get_sweep_id":
            return (200, found) if (found := self.sweep_id) else (503, "there is no sweep yet")
        return 404, "there are /api/get_sweep_id and /healthz"

    def create_once(self, create: Callable[[], str]) -> str:
        """The sweep's id; the sweep is created unless it was before."""
        if (found := self.sweep_id) is None:
            found = create()
            self.kept.parent.mkdir(exist_ok=True)
            write_atomically(self.kept, json.dumps({"sweep": found}))
        return found

    def __enter__(self) -> "SweepServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def serve(where: str, create: Callable[[], str | None], root: Path) -> int:
    """Create the sweep, or go on with the one that was created before, and answer until a signal comes.

    Args:
        where: HOST:PORT.
        create: creates the sweep; its id.
        root: the project's folder, in which sweeps/server.json keeps the id.

    Returns:
        0, once it was told to end.

    Raises:
        SettingsError: the address can't be used, or the sweep is wrong.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with SweepServer(address(where), root / SWEEPS / "server.json") as server:
        sweep = server.create_once(create)
        print(f"sweep {sweep} at {server.url}/api/get_sweep_id (to serve another: remove {server.kept})", flush=True)
        if not where.startswith((LOOPBACK, "localhost", ":")):
            print("anybody who reaches this address can read the id", file=sys.stderr)
        ended.wait()
    return 0
