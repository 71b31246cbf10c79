"""Tells agents the sweep's id by http, where they share no file system with whoever created the sweep.

    GET /api/get_sweep_id   200, text/plain: the id and nothing else; 503 while there is none yet
    GET /healthz            200, text/plain: ok

    python CreateSweep.py --serve 127.0.0.1:5001
    python SweepAgent.py --server http://127.0.0.1:5001

The sweep is created once. Its id is kept in sweeps/server.json, with the file that it was made of, so that the server
can be started again, on another machine too if that file is there, and agents that ask again get the same id. The
standard library is enough: two addresses, no state, a request a minute.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..files import read_json, write_json
from ..locks import Locked, locked
from ..runs.folder import EXIT_CODES
from ..settings.errors import SettingsError
from ..signals import REASONS, on_signal
from .local_sweep import SWEEPS

PORT = 5001

PAUSE = 10.0  # seconds between two questions to a server

LONGEST = 900.0  # seconds in which a sweep is checked and created

LOOPBACK = "127.0.0.1"

SILENCE = 5.0  # seconds in which a client must send or take something

MOST = 64  # connections at once: an agent's lasts milliseconds, so an old one beyond that is one that hangs


def read_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, HOST or :PORT; the loopback interface and 5001 where one is left out.

    Raises:
        SettingsError: the port is no number from 0 to 65535.
    """
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    if not (port.isdigit() and int(port) < 65536):
        raise SettingsError(f"--serve {text}: write HOST:PORT, such as {LOOPBACK}:{PORT}; HOST 0.0.0.0 is any network")
    return host or LOOPBACK, int(port)


class Listener(ThreadingHTTPServer):
    """Answers each connection in a thread, and ends the oldest where there are more than MOST.

    So clients that connect and say nothing, or a byte now and then, keep nobody else from an answer.
    """

    request_queue_size = 128  # connections that wait to be taken

    def __init__(self, where: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.open: dict[socket.socket, None] = {}  # in the order in which they came
        self.lock = threading.Lock()
        super().__init__(where, handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        with self.lock:
            self.open[request] = None
            too_many = list(self.open)[:-MOST]

        for oldest in too_many:
            with contextlib.suppress(OSError):  # its client has ended it meanwhile
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        with self.lock:
            self.open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Nothing: a client has gone away in the middle."""


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
            timeout = SILENCE

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
            self.http = Listener(where, Handler)
        except OSError as error:
            raise SettingsError(f"can't serve at {where[0]}:{where[1]}: {error.strerror or error}") from None
        self.url = f"http://{where[0]}:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    @property
    def sweep_id(self) -> str | None:
        """The id that was kept; None while there is no sweep."""
        return read_json(self.kept).get("sweep")

    def answer(self, path: str) -> tuple[int, str]:
        """Return status and text for a GET request."""
        if path == "/healthz":
            return 200, "ok"
        if path == "/api/get_sweep_id":
            sweep_id = self.sweep_id
            return (503, "there is no sweep yet") if sweep_id is None else (200, sweep_id)
        return 404, "there are /api/get_sweep_id and /healthz"

    def create_once(self, create: Callable[[], str], source: str) -> str:
        """Return the sweep's id; the sweep is created unless it was before.

        Args:
            create: creates the sweep; its id.
            source: what it is made of.

        Raises:
            SettingsError: the sweep that is kept was made of something else, or another server does not get done.
        """
        if self.sweep_id is None:
            self.kept.parent.mkdir(exist_ok=True)
            try:
                # To create one takes a while, in which a second server may be started: it waits, and serves the same.
                with locked(self.kept.with_name(f".{self.kept.name}.lock"), timeout=LONGEST):
                    if self.sweep_id is None:
                        write_json(self.kept, {"sweep": create(), "source": source})
            except Locked as error:
                raise SettingsError(f"another server creates a sweep here: {error.holder}. Try again") from None

        # A file of an earlier version does not say what its sweep was made of.
        kept = read_json(self.kept)
        kept_source = kept.get("source", source)
        if kept_source != source:
            raise SettingsError(
                f"{self.kept} keeps {kept['sweep']}, which was made of {kept_source} and not of {source}: to serve "
                "another sweep, remove that file"
            )
        return kept["sweep"]

    def __enter__(self) -> "SweepServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def serve(where: str, create: Callable[[], str], source: str, root: Path) -> int:
    """Create the sweep, or continue the one that was created before, and answer until a signal comes.

    Args:
        where: HOST:PORT.
        create: creates the sweep; its id.
        source: what it is made of.
        root: the project's folder, in which sweeps/server.json keeps the id.

    Returns:
        0, once it was told to end.

    Raises:
        SettingsError: the address can't be used, or the sweep is wrong.
    """
    ended = threading.Event()

    def end_before_there_is_a_sweep(number: signal.Signals) -> None:
        print(f"{number.name}: there is no sweep yet, and the server ends", file=sys.stderr)
        sys.exit(EXIT_CODES[REASONS[number]])

    on_signal(end_before_there_is_a_sweep)
    with SweepServer(read_address(where), root / SWEEPS / "server.json") as server:
        sweep_id = server.create_once(create, source)
        on_signal(lambda number: ended.set())
        print(f"sweep {sweep_id} at {server.url}/api/get_sweep_id (to serve another: remove {server.kept})", flush=True)
        if not where.startswith((LOOPBACK, "localhost", ":")):
            print("anybody who reaches this address can read the id", file=sys.stderr)
        ended.wait()
    print(f"the server ends; sweep {sweep_id} goes on, and the next start serves it again", flush=True)
    return 0


def ask(server: str, pause: float = PAUSE) -> str:
    """Return the id of the sweep that a server has; while it does not answer, wait.

    Args:
        server: http://HOST:PORT.
        pause: seconds between two questions.

    Raises:
        SettingsError: the address is none, or what answers there is no sweep server.
    """
    url = f"{server.rstrip('/')}/api/get_sweep_id"
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--server {server}: write it as http://HOST:PORT")

    last_reason = ""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            # 503 and its like pass; anything below is another program's answer.
            if error.code < 500:
                raise SettingsError(f"{url} answers {error.code}: it is no sweep server") from None
            reason = f"{error.code}"
        except (OSError, ValueError) as error:
            reason = str(error)

        # Each reason is said once, not at every question.
        if reason != last_reason:
            print(f"waiting for the sweep server {server}: {reason}", flush=True)
            last_reason = reason
        time.sleep(pause)
