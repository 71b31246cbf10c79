"""A proxy on the loopback interface that passes requests on to a server, until it is told to spoil some of them."""

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from loopback import LoopbackServer, body_of, reply

# Headers that belong to one connection, not to the message.
OF_A_CONNECTION = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Fault:
    """What is spoilt, and how.

    Attributes:
        status: answered in place of the server's answer; 0: none.
        body: with it.
        headers: with it.
        only: a pattern of "METHOD PATH"; other requests are passed on.
        times: how often; None: until it is mended.
        seconds: waited before anything is answered.
        truncated: the server's answer ends half way, though its length was said to be the whole.
        dropped: the connection ends without an answer.
        lost_answer: the server does what it is asked for, and nobody hears of it.
    """

    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    only: str = ""
    times: int | None = None
    seconds: float = 0.0
    truncated: bool = False
    dropped: bool = False
    lost_answer: bool = False


class FaultyProxy(LoopbackServer):
    """The proxy; it runs inside `with FaultyProxy(url) as proxy:`.

    Args:
        upstream: the server's address.

    Attributes:
        url: its own address.
        fault: what it does wrong; None: nothing.
        requests: "METHOD PATH" of all requests so far.
        watch: called with each request before it is passed on; True: it is dropped.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.watch: Callable[[str], bool] = lambda request: False
        self.lock = threading.Lock()
        super().__init__()

    def due(self, request: str) -> Fault | None:
        """The fault that this request gets."""
        with self.lock:
            self.requests.append(request)
            if self.watch(request):
                return Fault(dropped=True)
            fault = self.fault
            if fault is None or not re.search(fault.only, request) or fault.times == 0:
                return None
            if fault.times:
                fault.times -= 1
            return fault

    def serve(self, client: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            self.answer(client)

    def answer(self, client: BaseHTTPRequestHandler) -> None:
        """Answer one request, or do what is wrong with it."""
        if "chunked" in client.headers.get("Transfer-Encoding", ""):
            body = read_chunks(client.rfile)
        else:
            body = body_of(client)

        fault = self.due(f"{client.command} {client.path}")
        if fault and fault.seconds:
            time.sleep(fault.seconds)
        if fault and fault.dropped:
            end(client)
            return
        if fault and fault.status:
            reply(client, fault.status, fault.headers, fault.body)
            return

        status, headers, content = self.pass_on(client, body)
        if fault and fault.lost_answer:
            end(client)
        elif fault and fault.truncated:
            reply(client, status, headers, content, sent=len(content) // 2)
            end(client)
        else:
            reply(client, status, headers, content)

    def pass_on(self, client: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The server's own answer."""
        headers = {name: value for name, value in client.headers.items() if name.lower() not in OF_A_CONNECTION}
        headers["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=60)
        try:
            connection.request(client.command, client.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in OF_A_CONNECTION}
            if client.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            return answer.status, kept, content
        finally:
            connection.close()


def end(client: BaseHTTPRequestHandler) -> None:
    """End the connection at once."""
    client.close_connection = True
    with contextlib.suppress(OSError):
        client.connection.shutdown(socket.SHUT_RDWR)


def read_chunks(file: Any) -> bytes:
    """A body that comes in chunks."""
    parts = []
    while size := int(file.readline().split(b";")[0], 16):
        parts.append(file.read(size))
        file.readline()
    while file.readline().strip():
        pass
    return b"".join(parts)
