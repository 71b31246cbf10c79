"""Servers on the loopback interface that stand in for real ones."""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]


class Server(ThreadingHTTPServer):
    """A server that a test can end at any moment."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Nothing: clients that are ended drop their connections."""


class LoopbackServer:
    """A server that runs inside `with LoopbackServer() as server:`. A child says what it answers, in `serve`.

    Attributes:
        methods: of HTTP that it answers.
        url: its address.
    """

    methods = ("GET", "HEAD", "POST", "PUT", "DELETE")

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                """Nothing: the terminal belongs to the tests."""

        for method in self.methods:
            setattr(Handler, f"do_{method}", Handler.answer)
        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.05), daemon=True)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Read one request, and answer it."""
        raise NotImplementedError

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


class JsonServer(LoopbackServer):
    """A server that answers in JSON or bytes, one request at a time. A child says what it answers, in `handle`."""

    methods = ("GET", "POST", "PUT")

    def __init__(self) -> None:
        super().__init__()
        self.one_at_a_time = threading.Lock()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        with self.one_at_a_time:
            status, answer = self.handle(request.command, request.path, request.headers["Authorization"] or "", body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        reply(request, status, {"Content-Type": "application/json"}, content)

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json | bytes]:
        """Answer a request: HTTP status, and what is sent, as JSON or as it is."""
        raise NotImplementedError


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """What has come with a request whose length is known."""
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def reply(
    request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes, sent: int | None = None
) -> None:
    """Send an answer, or so many bytes of it."""
    request.send_response_only(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body[:sent])
        request.wfile.flush()
