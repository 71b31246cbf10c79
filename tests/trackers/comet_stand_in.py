"""A stand-in for the server of Comet: what the real client needs to record experiments, in memory, on loopback.

It knows what comet_ml 3.58 asks for. Everything is answered; what is not known here gets an empty object.
"""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Nothing: the client drops connections as it ends."""


class CometStandIn:
    """The server; it runs inside `with CometStandIn() as server:`.

    Attributes:
        experiments: key → its metrics, as (name, step, value); parameters, tags, others and pictures.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, Json] = {}
        self.lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if body[:2] == b"\x1f\x8b":
                    body = gzip.decompress(body)
                with stand_in.lock:
                    status, reply = stand_in.handle(self.path, body)
                data = json.dumps(reply).encode()
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

    def __enter__(self) -> "CometStandIn":
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

    def handle(self, path: str, body: bytes) -> tuple[int, Json]:
        """Answer a request: HTTP status, and what is sent as JSON."""
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
