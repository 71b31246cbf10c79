"""A stand-in for W&B's server that also keeps artifacts: what the real client needs to log, list and delete them.

As W&B does it: a version counts once it is committed and has the next number then; the same content as an old version
is no new one; a deleted version's number is not used again.
"""

import base64
import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "wandb"))
from stand_in import ENTITY, Json, StandIn  # noqa: E402


@dataclass
class Artifact:
    """A version of an artifact; `version` is its number, None until it is committed."""

    id: str
    project: str
    type: str
    collection: str
    digest: str
    metadata: str
    version: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)


class ArtifactsStandIn(StandIn):
    """The server; it runs inside `with ArtifactsStandIn() as server:`.

    Attributes:
        artifacts: id → version, the deleted ones left out.
        address: where clients reach it; another one if there is a proxy before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, Artifact] = {}
        self.made: list[Artifact] = []
        self.address = self.url

    def kept(self, project: str) -> list[Artifact]:
        """The committed versions of a project."""
        return [one for one in self.artifacts.values() if one.project == project and one.version is not None]

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json | bytes]:
        match method, path.split("?")[0].strip("/").split("/"):
            case "PUT", ["artifact-files", artifact, name]:
                self.artifacts[artifact].files[base64.urlsafe_b64decode(name).decode()] = body
                return 200, {}
            case "GET", ["artifact-files", artifact, name]:
                return 200, self.artifacts[artifact].files[base64.urlsafe_b64decode(name).decode()]
        return super().handle(method, path, authorization, body)

    def file_url(self, artifact: str, name: str) -> str:
        """A signed address."""
        encoded = base64.urlsafe_b64encode(name.encode()).decode()
        return f"{self.address}/artifact-files/{artifact}/{encoded}?sig=signed4242"

    def graphql_GetViewer(self, **_: Any) -> Json:
        keys = {"apiKeys": {"edges": []}, "teams": {"edges": [{"node": {"name": "team"}}]}}
        names = {"id": "1", "name": ENTITY, "username": ENTITY, "email": "", "entity": ENTITY}
        return {"viewer": {**names, **keys, "admin": False, "flags": "{}", "deletedAt": None}}

    def graphql_ArtifactType(self, **_: Any) -> Json:
        return {"project": {"artifact": None}}

    def graphql_CreateArtifact(self, **sent: Any) -> Json:
        place = sent["projectName"], sent["artifactTypeName"], sent["artifactCollectionName"]
        for known in self.artifacts.values():
            if (known.project, known.type, known.collection, known.digest) == (*place, sent["digest"]):
                return self.created(known)
        artifact = Artifact(f"artifact-{len(self.made)}", *place, sent["digest"], sent["metadata"])
        self.artifacts[artifact.id] = artifact
        self.made.append(artifact)
        return self.created(artifact)

    def created(self, artifact: Artifact) -> Json:
        state = "PENDING" if artifact.version is None else "COMMITTED"
        sequence = {"id": artifact.collection, "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": artifact.id, "state": state, "artifactSequence": sequence}}}

    def graphql_CreateArtifactManifest(self, artifactID: str, name: str, **_: Any) -> Json:
        file = {"id": "file", "name": name, "displayName": name, "uploadHeaders": []}
        file["uploadUrl"] = self.file_url(artifactID, name)
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{artifactID}", "file": file}}}

    def graphql_CreateArtifactFiles(self, artifactFiles: list[Json], **_: Any) -> Json:
        edges = []
        for sent in artifactFiles:
            artifact, name = sent["artifactID"], sent["name"]
            node = {"id": "file", "name": name, "displayName": name, "uploadHeaders": [], "uploadMultipartUrls": None}
            node |= {"uploadUrl": self.file_url(artifact, name), "storagePath": name, "artifact": {"id": artifact}}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def graphql_CommitArtifact(self, artifactID: str, **_: Any) -> Json:
        artifact = self.artifacts[artifactID]
        manifest = json.loads(artifact.files.pop("wandb_manifest.json"))
        for name, entry in manifest["contents"].items():
            content = artifact.files[name]
            assert entry["digest"] == base64.b64encode(hashlib.md5(content).digest()).decode()
            assert entry["size"] == len(content)
        same = [one for one in self.made if (one.project, one.collection) == (artifact.project, artifact.collection)]
        artifact.version = sum(one.version is not None for one in same)
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def graphql_ArtifactByID(self, id: str, **_: Any) -> Json:
        return {"artifact": self.node(self.artifacts[id])}

    def graphql_ProjectArtifactType(self, project: str, type: str, **_: Any) -> Json:
        known = {"__typename": "ArtifactType", "id": "type", "name": type, "description": None, "createdAt": "2026"}
        there = any((one.project, one.type) == (project, type) for one in self.made)
        return {"project": {"artifactType": known} if there else None}

    def graphql_ArtifactTypeArtifactCollections(self, project: str, type: str, **_: Any) -> Json:
        names = sorted({one.collection for one in self.made if (one.project, one.type) == (project, type)})
        edges = []
        for name in names:
            node = {"__typename": "ArtifactSequence", "id": name, "name": name, "description": None}
            node |= {"createdAt": "2026", "updatedAt": None, "project": self.info(project), "type": {"name": type}}
            edges.append({"node": {**node, "tags": {"edges": []}}})
        return {"project": {"artifactType": {"artifactCollections": self.page(edges)}}}

    def graphql_ProjectArtifacts(self, project: str, type: str, collection: str, filters: str, **_: Any) -> Json:
        assert json.loads(filters) == {"state": "COMMITTED"}
        kept = [one for one in self.kept(project) if (one.type, one.collection) == (type, collection)]
        edges = [{"version": f"v{one.version}", "node": self.node(one)} for one in kept]
        found = {"__typename": "ArtifactSequence", "artifacts": self.page(edges)}
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def graphql_ArtifactMembershipFiles(
        self, project: str, collection: str, alias: str, fileNames: list[str], **_: Any
    ) -> Json:
        found = [one for one in self.kept(project) if (one.collection, f"v{one.version}") == (collection, alias)][0]
        nothing = dict.fromkeys(("url", "storagePath", "mimetype", "updatedAt", "digest", "md5"))
        edges = []
        for name in fileNames:
            node = {"__typename": "File", "id": name, "name": name, "sizeBytes": len(found.files[name])}
            edges.append({"node": {**nothing, **node, "directUrl": self.file_url(found.id, name)}})
        membership = {"artifactMembership": {"files": self.page(edges)}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", **membership}}}

    def graphql_UpdateArtifact(self, artifactID: str, metadata: str, **_: Any) -> Json:
        self.artifacts[artifactID].metadata = metadata
        return {"result": {"artifact": self.node(self.artifacts[artifactID])}}

    def graphql_DeleteArtifact(self, artifactID: str, **_: Any) -> Json:
        self.artifacts.pop(artifactID, None)
        return {"result": {"artifact": {"id": artifactID}}}

    def page(self, edges: list[Json]) -> Json:
        """All of it, on one page."""
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"totalCount": len(edges), "pageInfo": page, "edges": edges}

    def info(self, project: str) -> Json:
        return {"id": "project", "internalId": "1", "name": project, "entity": {"name": ENTITY}}

    def node(self, artifact: Artifact) -> Json:
        """An artifact as the client wants it."""
        place = {"__typename": "ArtifactSequence", "name": artifact.collection, "project": self.info(artifact.project)}
        nothing = dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt"))
        known = {"__typename": "Artifact", "id": artifact.id, "artifactSequence": place, "createdAt": "2026"}
        known |= {"versionIndex": artifact.version, "artifactType": {"name": artifact.type}, "digest": artifact.digest}
        known |= {"metadata": artifact.metadata, "ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": []}
        known |= {"state": "PENDING" if artifact.version is None else "COMMITTED", "aliases": []}
        known |= {"size": sum(map(len, artifact.files.values())), "fileCount": len(artifact.files)}
        return {**nothing, **known, "digestAlgorithm": "MANIFEST_MD5"}
