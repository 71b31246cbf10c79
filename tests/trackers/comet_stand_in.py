"""A stand-in for the server of Comet: what the real client needs to record experiments, in memory, on loopback.

It knows what comet_ml 3.58 asks for. Everything is answered; what is not known here gets an empty object.
"""

import gzip
import json

from loopback import Json, JsonServer


class CometStandIn(JsonServer):
    """The server; it runs inside `with CometStandIn() as server:`.

    Attributes:
        experiments: key → its metrics, as (name, step, value); parameters, tags, others and pictures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.experiments: dict[str, Json] = {}

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json]:
        """Answer a request: HTTP status, and what is sent as JSON."""
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)

        name, _, query = path.partition("?")
        if name.endswith("/logger/add/run"):
            return self.add_run(json.loads(body))
        if name.endswith("/logger/get/run"):
            return 200, self.place(json.loads(body)["previousExperiment"])
        if name.endswith("/isAlive/ver"):
            return 200, {"version": "5.0.0"}
        if "/upload" in name:
            for key, experiment in self.experiments.items():
                if key in query:
                    experiment["uploads"].append((query, body))
            return 200, {}

        try:
            sent = json.loads(body or b"{}")
        except ValueError:
            return 200, {}
        experiment = self.experiments.get(sent.get("experimentKey", ""))
        if name.endswith("/add-tags-to-experiment"):
            experiment["tags"] += sent["addedTags"]
        elif name.endswith("/log-other"):
            experiment["others"][sent["key"]] = sent["value"]
        elif name.endswith("/batch/logger/experiment/metric"):
            for value in sent["values"]:
                experiment["metrics"].append((value["metricName"], value["step"], value["metricValue"]))
        elif name.endswith("/batch/logger/experiment/parameter"):
            for value in sent["values"]:
                experiment["params"][value["parameterName"]] = value["parameterValue"]
        return 200, {}

    def add_run(self, sent: Json) -> tuple[int, Json]:
        """Begin an experiment, or say that it is there."""
        key = sent["experimentKey"]
        if key in self.experiments and not sent["getOrCreateEnabled"]:
            return 400, {"sdk_error_code": 90999, "msg": f"experiment {key} is there"}
        new = dict(project=sent.get("projectName"), metrics=[], params={}, tags=[], others={}, uploads=[])
        self.experiments.setdefault(key, new)
        return 200, self.place(key)

    def place(self, key: str) -> Json:
        """What the client wants to know of an experiment."""
        limits = dict.fromkeys(("upload_limit", "video_upload_limit", "asset_upload_limit"), 10**8)
        names = dict(workspaceName="me", projectName="mine", focusUrl=f"{self.url}/me/mine/")
        return dict(runId="run", experimentKey=key, project_id="project", ws_server_url=None, **names, **limits)
