"""A web server for one page: on loopback, and only for who knows the token in its address."""

import getpass
import hmac
import secrets
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..settings.errors import SettingsError

LOOPBACK = "127.0.0.1"
TIMEOUT = 30  # seconds for which a connection may say nothing


def serve(page: Callable[[], str], port: int) -> int:
    """Answer until Ctrl-C; returns the exit code.

    Login nodes are shared, and loopback is open to all who are logged in: without the token there is no answer.

    Args:
        page: makes the page anew, at each request.
        port: 0 for any that is free.

    Raises:
        SettingsError: the port is taken.
    """
    token = secrets.token_urlsafe(24)
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), handler(page, token))
    except OSError as error:
        raise SettingsError(f"--port {port}: {error.strerror}; without --port a free one is taken") from None

    port = server.server_address[1]
    with server:
        try:
            print(f"http://{LOOPBACK}:{port}/{token}")
            print("From a laptop, type this there first, then open the same address:")
            print(f"  ssh -N -L {port}:{LOOPBACK}:{port} {getpass.getuser()}@{socket.gethostname()}")
            print("Reload the page to see what is new. Ctrl-C ends it.", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0


def handler(page: Callable[[], str], token: str) -> type[BaseHTTPRequestHandler]:
    """The class that answers requests."""

    class PageHandler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            # In the same time for every wrong token, so that none can be guessed letter by letter.
            if not hmac.compare_digest(self.path.encode(), f"/{token}".encode()):
                self.send_error(HTTPStatus.NOT_FOUND)
                return

            try:
                body = page().encode()
            except SettingsError as error:  # such as a folder that has been moved meanwhile
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of requests that succeed: the address holds the token."""

        def log_error(self, format: str, *args: object) -> None:
            """Name what failed, without the address."""
            print(f"a request was refused: {args[0] if args else format}", file=sys.stderr)

    return PageHandler
