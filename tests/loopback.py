"""Servers on the loopback interface that stand in for real ones."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]


class Server(ThreadingHTTPServer):
    """A server that a test can end at any moment."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Nothing: clients that are ended drop their connections."""


class JsonServer:
    """A server that answers in JSON or bytes, one request at a time; it runs inside `with JsonServer() as server:`.

    A child says what it answers, in `handle`.

    Attributes:
        url: its address.
    """

    def __init__(self) -> None:
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    status, reply = outer.handle(self.command, self.path, self.headers["Authorization"] or "", body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                """Nothing: the terminal belongs to the tests."""

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.05))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.go_away()

    def go_away(self) -> None:
        """Stop answering, as a server that has broken down; once is enough."""
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json | bytes]:
        """Answer a request: HTTP status, and what is sent, as JSON or as it is."""
        raise NotImplementedError
