"""A web server on the loopback interface that misbehaves as real ones do; the first part of a path says how."""

import base64
import re
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler

from loopback import Server

PAGE = b"<!DOCTYPE html><html><title>Please log in</title></html>"


class Misbehaving:
    """The server, inside `with Misbehaving() as server:`; `server.url("slow")` serves `server.content` slowly.

    Args:
        content: see below.
        context: with a certificate, for https.

    Attributes:
        content: the file.
        files: path → content, for more than one file.
        asked: how often each path was asked for.
        other: where `elsewhere` sends one.
        logins: all that was sent as Authorization.
        resume: to be set, so that `halting` sends the rest.
        dropped: set when the client of `halting` is gone.
    """

    def __init__(self, content=b"", context=None):
        self.content, self.files, self.asked, self.agents, self.logins = content, {}, Counter(), set(), set()
        self.closing, self.resume, self.dropped = threading.Event(), threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked[self.path] += 1
                outer.agents.add(self.headers["User-Agent"])
                outer.logins.add(self.headers["Authorization"])
                how, _, name = self.path.strip("/").partition("?")[0].partition("/")
                getattr(outer, how.replace("-", "_"))(self, outer.files.get(name, outer.content))

            def log_message(self, *_):
                """Nothing: the terminal belongs to the tests."""

        self.http = Server(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.02))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.resume.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def url(self, how, name="file.bin"):
        return f"{self.scheme}://127.0.0.1:{self.http.server_port}/{how}/{name}"

    def reply(self, request, status, body, length=None, **headers):
        request.send_response(status)
        if length is not False:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    # Servers that are fine

    def good(self, request, body):
        """Parts, if asked for them."""
        if match := re.match(r"bytes=(\d+)-(\d+)", request.headers["Range"] or ""):
            first, last = int(match[1]), min(int(match[2]), len(body) - 1)
            content_range = f"bytes {first}-{last}/{len(body)}"
            return self.reply(request, 206, body[first : last + 1], Content_Range=content_range)
        self.reply(request, 200, body)

    def whole(self, request, body):
        self.reply(request, 200, body)

    def no_length(self, request, body):
        self.reply(request, 200, body, length=False)

    def redirect(self, request, body):
        self.reply(request, 302, b"", Location=self.url("good"))

    def members_only(self, request, body):
        if request.headers["Authorization"] != f"Basic {base64.b64encode(b'me:pass word').decode()}":
            return self.reply(request, 401, b"who are you?", WWW_Authenticate='Basic realm="data"')
        self.good(request, body)

    # Servers that are not

    def elsewhere(self, request, body):
        """Sends everybody to another server, as a store does that signs addresses."""
        self.reply(request, 302, b"", Location=self.other)

    def not_found(self, request, body):
        self.reply(request, 404, b"no such file")

    def overloaded(self, request, body):
        self.reply(request, 503, b"too many requests")

    def overloaded_once(self, request, body):
        """The first request for parts of the file fails, as does the first one for all of it."""
        key = f"{request.path} {bool(request.headers['Range'])}"
        self.asked[key] += 1
        return self.overloaded(request, body) if self.asked[key] == 3 else self.good(request, body)

    def login_page(self, request, body):
        self.reply(request, 200, PAGE)

    def redirect_to_login(self, request, body):
        self.reply(request, 302, b"", Location=self.url("login-page"))

    def corrupt(self, request, body):
        self.good(request, bytes([body[0] ^ 1]) + body[1:])

    def truncated(self, request, body):
        """A little less than was promised: pySmartDL reports success."""
        self.reply(request, 200, body[:-3000], length=len(body))

    def too_long_a_promise(self, request, body):
        self.reply(request, 200, body, length=len(body) + 1000)

    def too_short_a_promise(self, request, body):
        self.reply(request, 200, body, length=len(body) - 1000)

    def strange_length(self, request, body):
        self.reply(request, 200, body, length="many")

    def ranges_ignored(self, request, body):
        """Says that it sends parts, and sends the beginning each time."""
        if match := re.match(r"bytes=(\d+)-(\d+)", request.headers["Range"] or ""):
            return self.reply(request, 206, body[: int(match[2]) - int(match[1]) + 1])
        self.reply(request, 200, body)

    def reset(self, request, body):
        """Drops the connection at once."""
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()

    def reset_half_way(self, request, body):
        self.reply(request, 200, body[: len(body) // 2], length=len(body))
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()

    def silent(self, request, body):
        """Takes the request and never answers."""
        self.closing.wait(60)

    def slow(self, request, body):
        """A slow loris: a byte now and then, so that no time-out of a socket ever comes."""
        self.reply(request, 200, b"", length=len(body))
        for byte in body:
            if self.closing.wait(0.2):
                return
            request.wfile.write(bytes([byte]))
            request.wfile.flush()

    def slow_headers(self, request, body):
        request.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.closing.wait(0.2):
            request.wfile.write(b"X-Wait: a little longer\r\n")
            request.wfile.flush()

    def halting(self, request, body):
        """Half of the file, and the rest bit by bit once `resume` is set: time to be killed in."""
        self.reply(request, 200, body[: len(body) // 2], length=len(body))
        request.wfile.flush()
        self.resume.wait(60)
        try:
            for start in range(len(body) // 2, len(body), 2**14):
                request.wfile.write(body[start : start + 2**14])
                self.closing.wait(0.01)
        except OSError:
            self.dropped.set()
