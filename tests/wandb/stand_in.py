"""A stand-in for the W&B server: what the real client needs to record runs, in memory, on the loopback interface.

The client talks GraphQL over plain http to WANDB_BASE_URL; a run's history goes to a stream of its own, files to upload
addresses. The stand-in knows what wandb 0.31 asks for when it records, continues and syncs runs. Anything else is kept
in `unhandled`, and closing the server fails the test. To know more, add a method here or in a child: `graphql_X`
answers the GraphQL operation X, its arguments are the operation's variables.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from loopback import Json, JsonServer

ENTITY = "researcher"


@dataclass
class Run:
    """What the server knows about a run."""

    id: str
    entity: str
    project: str
    name: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    config: Json = field(default_factory=dict)  # key → {"value": …}, and _wandb
    summary: Json = field(default_factory=dict)
    streams: dict[str, list[Json]] = field(default_factory=dict)  # wandb-history.jsonl, wandb-events.jsonl → lines
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)  # one for each time that it was finished

    @property
    def history(self) -> list[Json]:
        return self.streams.get("wandb-history.jsonl", [])

    @property
    def state(self) -> str:
        if not self.exit_codes:
            return "running"
        return "finished" if self.exit_codes[-1] == 0 else "failed"

    @property
    def settings(self) -> Json:
        """The configuration without W&B's own entries."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}


class StandIn(JsonServer):
    """The server; it runs inside `with StandIn() as server:`.

    Attributes:
        runs: run id → what is known about it.
        keys: keys that clients have sent.
        refused: keys that are answered with 401.
        operations: names of the GraphQL operations so far.
        alerts: title and text of alerts that runs have sent.
        unhandled: what was asked for and is not known here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Run] = {}
        self.keys: set[str] = set()
        self.refused: set[str] = set()
        self.operations: list[str] = []
        self.alerts: list[tuple[str, str]] = []
        self.unhandled: list[str] = []

    def __exit__(self, *_: Any) -> None:
        super().__exit__()
        assert not self.unhandled, f"the client asked for what the stand-in does not know: {self.unhandled}"

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json]:
        """Answer a request: HTTP status, and what is sent as JSON."""
        match path.strip("/").split("/"):
            case ["sdk", "otel", *_]:  # the client's own telemetry
                return 200, {}
            case ["upload", run, *name]:  # the address is the permission, as for files in a cloud
                self.runs[run].files["/".join(name)] = body
                return 200, {}
        key = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[2]
        self.keys.add(key)
        if key in self.refused:
            return 401, {"errors": [{"message": "user is not logged in"}]}
        match path.strip("/").split("/"):
            case ["graphql"]:
                return self.graphql(json.loads(body))
            case ["files", _, _, run, "file_stream"]:
                return 200, self.file_stream(self.runs[run], json.loads(body))
        self.unhandled.append(f"{method} {path}")
        return 404, {}

    def graphql(self, request: Json) -> tuple[int, Json]:
        name = request["operationName"] or re.search(r"(?:query|mutation)\s+(\w+)", request["query"])[1]
        self.operations.append(name)
        answer = getattr(self, f"graphql_{name}", None)
        if answer is None:
            self.unhandled.append(json.dumps(request)[:2000])
            return 400, {"errors": [{"message": f"the stand-in does not know {name}"}]}
        variables = request.get("variables") or {}
        return 200, {"data": answer(**{**variables, **(variables.get("input") or {})})}

    def file_stream(self, run: Run, sent: Json) -> Json:
        for name, part in (sent.get("files") or {}).items():
            if name.endswith(".jsonl"):
                run.streams.setdefault(name, [])[part["offset"] :] = [json.loads(line) for line in part["content"]]
            elif name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if sent.get("complete"):
            run.exit_codes.append(sent["exitcode"])
        return {}

    def graphql_Viewer(self, **_: Any) -> Json:
        viewer = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def graphql_GetDefaultEntity(self, **_: Any) -> Json:
        return {"viewer": {"id": "1", "entity": ENTITY}}

    def graphql_ServerFeaturesQuery(self, **_: Any) -> Json:
        return {"serverInfo": {"features": []}}

    def graphql_OrganizationCoreWeaveOrganizationID(self, **_: Any) -> Json:
        return {"entity": None}

    def graphql_UpsertBucket(self, name: str, project: str, entity: str | None = None, **sent: Any) -> Json:
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name, entity or ENTITY, project))
        run.name = sent.get("displayName") or run.name
        run.group = sent.get("groupName") or run.group
        run.tags = sent.get("tags") or run.tags
        run.config |= json.loads(sent.get("config") or "{}")
        return {"upsertBucket": {"bucket": self.bucket(run), "inserted": inserted}}

    def graphql_RunResumeStatus(self, name: str, **_: Any) -> Json:
        known = self.runs.get(name)
        return {"model": {"id": "project", **self.place(known), "bucket": known and self.bucket(known)}}

    def graphql_Runs(self, project: str, filters: str, perPage: int, cursor: str | None, **_: Any) -> Json:
        """Runs that match a state and a pattern of the name shown, a page at a time."""
        wanted = json.loads(filters)
        pattern = re.compile(wanted["display_name"]["$regex"])
        found = [run for run in self.runs.values() if run.project == project and pattern.search(run.name or "")]
        found = [run for run in found if run.state == wanted["state"]]
        start = int(cursor or 0)
        edges = [{"node": self.light(run), "cursor": str(start + n + 1)} for n, run in enumerate(found)][start:][
            :perPage
        ]
        page = {"endCursor": str(start + len(edges)), "hasNextPage": start + len(edges) < len(found)}
        runs = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}

    def graphql_NotifyScriptableRunAlert(self, title: str, text: str, **_: Any) -> Json:
        self.alerts.append((title, text))
        return {"notifyScriptableRunAlert": {"success": True}}

    def light(self, run: Run) -> Json:
        """A run as it stands in a list of runs."""
        nothing = dict.fromkeys(("sweepName", "jobType", "commit", "description", "notes", "heartbeatAt"))
        times = {"createdAt": "2026-01-01T00:00:00Z", "historyLineCount": len(run.history)}
        known = {"id": f"id-{run.id}", "projectId": "1", "name": run.id, "displayName": run.name, "state": run.state}
        user = {"user": {"name": ENTITY, "username": ENTITY}, "readOnly": False}
        return {**nothing, **times, **known, **user, "tags": run.tags, "group": run.group}

    def graphql_CreateRunFiles(self, run: str, files: list[str], **_: Any) -> Json:
        uploads = [{"name": name, "uploadUrl": f"{self.url}/upload/{run}/{name}"} for name in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": uploads}}

    def place(self, run: Run | None) -> Json:
        """The name of a run's project and its entity."""
        entity, project = (run.entity, run.project) if run else (ENTITY, "project")
        return {"name": project, "entity": {"id": "entity", "name": entity}}

    def bucket(self, run: Run) -> Json:
        """A run as the client wants it; what was recorded before, so that it can continue there."""
        tail, counts = {}, {}
        for short in ("history", "events"):
            lines = run.streams.get(f"wandb-{short}.jsonl", [])
            counts[f"{short}LineCount"] = len(lines)
            tail[f"{short}Tail"] = json.dumps([json.dumps(line) for line in lines[-1:]])
        return {
            "id": f"id-{run.id}",
            "name": run.id,
            "displayName": run.name,
            "sweepName": None,
            "tags": run.tags,
            "config": json.dumps(run.config),
            "wandbConfig": json.dumps({"t": 1}),  # the client wants a `t` in it
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "project": {"id": "project", **self.place(run)},
            **counts,
            **tail,
        }
