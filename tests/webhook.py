"""A webhook on this machine."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """The messages that it gets; its address is NOTIFY_WEBHOOK."""
    messages = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs=dict(poll_interval=0.05))
        thread.start()
        monkeypatch.setenv("NOTIFY_WEBHOOK", f"http://127.0.0.1:{http.server_port}/secret")
        yield messages
        http.shutdown()
        thread.join()
