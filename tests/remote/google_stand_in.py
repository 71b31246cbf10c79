"""Google Cloud Storage as far as mirrors need it: JSON API, uploads in one piece and in several, and keys."""

import json
import re
import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import LoopbackServer, body_of
from loopback import reply as send

PAGE = 3  # files in one answer of a listing, so that some need more


class GoogleStandIn(LoopbackServer):
    """The server; it runs inside `with GoogleStandIn(token) as google:`.

    Args:
        token: what it gives to who comes with a key, and wants to see.

    Attributes:
        url: its address.
        buckets: bucket → name → content.
        uploads: those that have begun: id → (bucket, name, what has come).
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, tuple[str, str, bytes]] = {}
        self.one_at_a_time = threading.Lock()
        super().__init__()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        with self.one_at_a_time:
            answer = self.handle(request.command, request.path, request.headers, body)
        send(request, *answer)

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict, bytes]:
        """Status, headers and content of an answer."""
        url = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/token":
            return reply({"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"})
        if headers["Authorization"] != f"Bearer {self.token}":
            return refusal(401, "required")

        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path)
        if not found or found[2] not in self.buckets:
            return refusal(404, "notFound")
        files, name = self.buckets[found[2]], unquote(found[3] or "")
        if found[1] == "/upload":
            return self.upload(found[2], asked, headers, body)
        if not name:
            return listing(files, asked)
        if name not in files:
            return refusal(404, "notFound")
        if method == "DELETE":
            del files[name]
            return 204, {}, b""
        return (200, {}, files[name]) if asked.get("alt") == "media" else reply(entry(name, files[name]))

    def upload(self, bucket: str, asked: dict[str, str], headers: Mapping[str, str], body: bytes) -> tuple:
        """A file in one piece, or the beginning or a piece of one that comes in several."""
        if asked["uploadType"] == "multipart":
            boundary = b"--" + re.search('boundary="(.+)"', headers["Content-Type"])[1].encode()
            _, about, content = body.removesuffix(b"\n" + boundary + b"--").split(boundary, 2)
            name = json.loads(about.partition(b"\n\n")[2])["name"]
            return self.keep(bucket, name, content.partition(b"\n\n")[2])
        if "upload_id" not in asked:
            number = uuid.uuid4().hex
            self.uploads[number] = (bucket, asked["name"], b"")
            address = f"http://{headers['Host']}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return 200, {"Location": address}, b""

        bucket, name, before = self.uploads.pop(asked["upload_id"])
        if not body:
            return 499, {}, b""
        content = before + body
        if len(content) == int(headers["Content-Range"].rpartition("/")[2]):
            return self.keep(bucket, name, content)
        self.uploads[asked["upload_id"]] = (bucket, name, content)
        return 308, {"Range": f"bytes=0-{len(content) - 1}"}, b""

    def keep(self, bucket: str, name: str, content: bytes) -> tuple:
        """A file is there now, whole."""
        self.buckets[bucket][name] = content
        return reply(entry(name, content))


def listing(files: Mapping[str, bytes], asked: Mapping[str, str]) -> tuple:
    """A page of the files whose names begin with what was asked for; all of them are asked for without a delimiter."""
    names = sorted(name for name in files if name.startswith(asked.get("prefix", "")))
    start = int(asked.get("pageToken", 0))
    page: dict = {"kind": "storage#objects"}
    page["items"] = [entry(name, files[name]) for name in names[start : start + PAGE]]
    if len(names) > start + PAGE:
        page["nextPageToken"] = str(start + PAGE)
    return reply(page)


def entry(name: str, content: bytes) -> dict[str, str]:
    """What is said about a file."""
    return {"name": name, "size": str(len(content)), "contentType": "application/octet-stream"}


def reply(content: dict) -> tuple:
    """An answer in JSON."""
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def refusal(status: int, reason: str, text: str = "") -> tuple:
    """An error as Google sends it."""
    said = {"error": {"code": status, "message": text, "errors": [{"reason": reason, "message": text}]}}
    return status, {"Content-Type": "application/json"}, json.dumps(said).encode()
