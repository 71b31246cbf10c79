"""The stand-in of a W&B server (stand_in.py) with sweeps: it hands out the points of a grid to real agents.

What it does with a run that ends is what W&B documents ("Resume preemptible Sweeps runs"): exit code 0 is finished. Any
other code, or no sign of life for some time, is crashed; but a run that was marked as preempting is handed out again,
with its id and its parameters, before any new one.
"""

import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

import yaml
from stand_in import ENTITY, Json, Run, StandIn


@dataclass
class SweepRun:
    """A run as the sweep sees it."""

    id: str
    arguments: Json
    state: str = "running"  # finished, crashed, preempted
    preempting: bool = False
    handed_out: int = 1
    seen: float = field(default_factory=time.monotonic)


@dataclass
class Sweep:
    """A sweep, with the runs that it has handed out."""

    id: str
    config: Json
    state: str = "RUNNING"
    runs: dict[str, SweepRun] = field(default_factory=dict)

    @property
    def points(self) -> list[Json]:
        names = sorted(self.config["parameters"])
        entries = [self.config["parameters"][name] for name in names]
        lists = [entry.get("values", [entry.get("value")]) for entry in entries]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]


class SweepStandIn(StandIn):
    """The server.

    Attributes:
        sweeps: id → sweep.
        agents: id → host.
        gone: seconds without a sign of life after which a run counts as gone; W&B waits five minutes.
        to_stop: ids of runs that the sweep ends early.
        away: while it is True, every request is answered with 503, as by a server that is being updated.
        turned_away: how many requests were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.gone = 300.0
        self.to_stop: set[str] = set()
        self.away = False
        self.turned_away = 0

    @property
    def sweep(self) -> Sweep:
        (sweep,) = self.sweeps.values()
        return sweep

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Json]:
        if self.away:
            self.turned_away += 1
            return 503, {}
        return super().handle(method, path, authorization, body)

    def graphql_UpsertSweep(self, config: str | None = None, id: str | None = None, **sent: Any) -> Json:
        if id is None:
            sweep = Sweep(f"sweep{len(self.sweeps)}", yaml.safe_load(config))
            self.sweeps[sweep.id] = sweep
        else:
            sweep = self.sweeps[id.removeprefix("id-")]
        sweep.state = sent.get("state") or sweep.state
        project = {"id": "project", "name": sent.get("projectName") or "project"}
        project["entity"] = {"id": "entity", "name": sent.get("entityName") or ENTITY}
        return {"upsertSweep": {"sweep": {"name": sweep.id, "project": project}, "configValidationWarnings": []}}

    def graphql_SweepWithRuns(self, sweep: str, **_: Any) -> Json:
        found = self.sweeps.get(sweep)
        if found is None:
            return {"project": {"sweep": None}}
        text = yaml.safe_dump(found.config)
        edges = {"runs": {"edges": []}}
        return {
            "project": {"sweep": {"id": f"id-{found.id}", "name": sweep, "state": found.state, "config": text} | edges}
        }

    def graphql_CreateAgent(self, host: str, sweep: str, **_: Any) -> Json:
        agent = f"agent{len(self.agents)}"
        self.agents[agent] = sweep
        return {"createAgent": {"agent": {"id": agent}}}

    def graphql_Heartbeat(self, id: str, runState: str, **_: Any) -> Json:
        sweep, mine = self.sweeps[self.agents[id]], json.loads(runState)
        for run in mine:
            sweep.runs[run].seen = time.monotonic()
        commands = [{"type": "stop", "run_id": run} for run in mine if run in self.to_stop]
        if not mine:
            commands = [self.next_command(sweep)]
        answer = [command for command in commands if command]
        return {"agentHeartbeat": {"agent": {"id": id}, "commands": json.dumps(answer)}}

    def next_command(self, sweep: Sweep) -> Json | None:
        """A run to go on with, a new one, the end, or nothing for now."""
        for run in sweep.runs.values():
            if run.state == "running" and time.monotonic() - run.seen > self.gone:
                self.ended(run, None)
            if run.state == "preempted":
                run.state, run.preempting, run.handed_out = "running", False, run.handed_out + 1
                run.seen = time.monotonic()
                return self.command("resume", run)
        if len(sweep.runs) < len(sweep.points):
            point = sweep.points[len(sweep.runs)]
            run = SweepRun(f"{sweep.id}run{len(sweep.runs)}", {key: {"value": value} for key, value in point.items()})
            sweep.runs[run.id] = run
            return self.command("run", run)
        if all(run.state != "running" for run in sweep.runs.values()):
            sweep.state = "FINISHED"
            return {"type": "exit"}
        return None

    def command(self, kind: str, run: SweepRun) -> Json:
        return {"type": kind, "run_id": run.id, "args": run.arguments, "program": "Train.py"}

    def file_stream(self, run: Run, sent: Json) -> Json:
        answer = super().file_stream(run, sent)
        for sweep in self.sweeps.values():
            if member := sweep.runs.get(run.id):
                member.seen = time.monotonic()
                member.preempting |= bool(sent.get("preempting"))
                if sent.get("complete"):
                    self.ended(member, sent["exitcode"])
        return answer

    def ended(self, run: SweepRun, code: int | None) -> None:
        run.state = "finished" if code == 0 else "preempted" if run.preempting else "crashed"
