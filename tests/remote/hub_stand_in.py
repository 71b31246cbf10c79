"""A stand-in for the Hugging Face Hub: what the real client needs to keep files in repositories, in memory.

It knows the requests of huggingface_hub 2.4 without Xet (HF_HUB_DISABLE_XET=1): create a repository, ask about it,
preupload, LFS, commit, list, download. A commit is done as a whole or refused. As on the Hub, a private repository that
a token may not see is answered with 404, and with 401 where there is no token at all.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import Json, LoopbackServer, body_of, reply

OWNER = "researcher"


@dataclass
class Repository:
    """What is in a repository, and who may see it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[list[str]] = field(default_factory=list)  # paths of each

    @property
    def revision(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class Answer(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, text: str = "") -> None:
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": text or code}


class HubStandIn(LoopbackServer):
    """The server; it runs inside `with HubStandIn() as hub:`.

    Attributes:
        url: its address.
        tokens: token → its role: read or write, or fineGrained for one that sees nothing.
        repositories: "models/OWNER/NAME" → the repository.
        blobs: SHA-256 → content of large files that were sent.
        unknown: requests that are not known here.
    """

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.one_at_a_time = threading.Lock()
        super().__init__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert not self.unknown, f"the client asked for what the stand-in does not know: {self.unknown}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        with self.one_at_a_time:
            try:
                status, headers, content = self.handle(request, body)
            except Answer as error:
                status, headers, content = error.status, error.headers, b"{}"
        with contextlib.suppress(OSError):
            reply(request, status, headers, content)

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a request: status, headers and content."""
        path = unquote(urlsplit(request.path).path)
        if found := re.fullmatch(r"/lfs/(\w{64})", path):  # the address is the permission, as for files in a cloud
            self.blobs[found[1]] = body
            return 200, {}, b""

        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            raise Answer(401, "", "Invalid credentials in Authorization header")
        role = self.tokens.get(token, "")
        if path == "/api/whoami-v2":
            access = {"accessToken": {"displayName": "tests", "role": role}}
            return as_json({"type": "user", "name": OWNER, "orgs": [{"name": "group"}], "auth": access})
        if path == "/api/agent-harnesses":  # the client wants to know by which programs it can be driven
            raise Answer(404, "")
        if path == "/api/repos/create":
            return self.create(json.loads(body), role)
        for pattern, act in (
            (r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(preupload|commit|tree)/main(?:/(.*))?)?", self.ask),
            (r"/(datasets/)?([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/main/(.+)", self.resolve),
        ):
            if found := re.fullmatch(pattern, path):
                kind = "datasets" if found[1] and found[1].startswith("datasets") else "models"
                repository = self.seen(f"{kind}/{found[2]}", role)
                return act(repository, found, request, body)
        self.unknown.append(f"{request.command} {path}")
        raise Answer(404, "")

    def seen(self, name: str, role: str) -> Repository:
        """A repository, if this token may see it."""
        repository = self.repositories.get(name)
        if repository is None or (repository.private and role not in ("read", "write")):
            raise Answer(404 if role else 401, "RepoNotFound", "Repository not found")
        return repository

    def create(self, asked: Json, role: str) -> tuple[int, dict[str, str], bytes]:
        owner, kind = asked.get("organization") or OWNER, f"{asked.get('type', 'model')}s"
        if role != "write" or owner not in (OWNER, "group"):
            raise Answer(403, "", "You don't have the rights to create a model under this namespace")
        name = f"{kind}/{owner}/{asked['name']}"
        if name in self.repositories:
            return 409, {}, json.dumps({"url": f"{self.url}/{owner}/{asked['name']}"}).encode()
        # As the Hub did and does: public unless asked otherwise.
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.repositories[name] = Repository(private)
        return as_json({"url": f"{self.url}/{owner}/{asked['name']}"})

    def ask(
        self, repository: Repository, found: re.Match, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """What begins with /api/: about a repository, or a step of a commit."""
        match found[3]:
            case None:
                known = {"id": found[2], "private": repository.private, "sha": repository.revision, "siblings": []}
                return as_json({**known, "tags": [], "downloads": 0, "likes": 0})
            case "tree":
                return as_json(tree(repository.files, found[4] or ""))
        self.check_writer(request)
        if found[3] == "preupload":
            files = [{**file, "shouldIgnore": False, "uploadMode": mode(file)} for file in json.loads(body)["files"]]
            return as_json(
                {"files": [{key: file[key] for key in ("path", "uploadMode", "shouldIgnore")} for file in files]}
            )
        return self.commit(repository, [json.loads(line) for line in body.splitlines()])

    def commit(self, repository: Repository, lines: list[Json]) -> tuple[int, dict[str, str], bytes]:
        """Do all that is asked for, or nothing."""
        files, paths = dict(repository.files), []
        for line in lines[1:]:
            value = line["value"]
            paths.append(value["path"])
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    content = self.blobs.get(value["oid"])
                    if content is None or hashlib.sha256(content).hexdigest() != value["oid"]:
                        raise Answer(400, "", "LFS pointer pointed to a file that does not exist")
                    files[value["path"]] = content
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Answer(404, "EntryNotFound")
        repository.files = files
        repository.commits.append(paths)
        url = f"{self.url}/{OWNER}/repository/commit/{repository.revision}"
        return as_json({"success": True, "commitOid": repository.revision, "commitUrl": url, "hookOutput": ""})

    def batch(
        self, repository: Repository, found: re.Match, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Where large files are to be sent: to the address that the client has used, with a signature."""
        self.check_writer(request)
        objects = []
        for wanted in json.loads(body)["objects"]:
            href = f"http://{request.headers['Host']}/lfs/{wanted['oid']}?X-Amz-Signature=signed4242"
            objects.append({"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": {"href": href}}})
        return as_json({"transfer": "basic", "objects": objects})

    def resolve(
        self, repository: Repository, found: re.Match, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """A file's content."""
        content = repository.files.get(found[3])
        if content is None:
            raise Answer(404, "EntryNotFound")
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.revision, "Accept-Ranges": "bytes"}
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if begin and int(begin[1]):
            part = content[int(begin[1]) :]
            headers["Content-Range"] = f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"
            return 206, headers, part
        return 200, headers, content

    def check_writer(self, request: BaseHTTPRequestHandler) -> None:
        """Refuse a token that may only read."""
        if self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer ")) != "write":
            raise Answer(403, "", "This token may not write")


def as_json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def mode(file: Json) -> str:
    """Which files go up as large ones: checkpoints, as the Hub's .gitattributes says, and what has 10 MB and more."""
    return "lfs" if file["path"].endswith((".ckpt", ".pt")) or file["size"] >= 10_000_000 else "regular"


def tree(files: dict[str, bytes], folder: str) -> list[Json]:
    """All files and folders below a folder."""
    inside = {path: content for path, content in files.items() if not folder or path.startswith(f"{folder}/")}
    if folder and not inside:
        raise Answer(404, "EntryNotFound")
    entries, folders = [], set()
    for path, content in inside.items():
        entries.append({"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path})
        parts = path.split("/")[:-1]
        folders |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
    below = sorted(name for name in folders if name.startswith(f"{folder}/" if folder else ""))
    return entries + [{"type": "directory", "oid": "0" * 40, "path": name} for name in below]
