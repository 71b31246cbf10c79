"""What has been submitted to the private SLURM, and the project that it was submitted from."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from private_slurm import PrivateSlurm

# Several runs in one process, which has torch loaded once.
UNDISTURBED = """\
import json, runpy, sys
for call in json.loads(sys.argv[1]):
    sys.argv = ["Train.py", *call]
    try:
        runpy.run_path("Train.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, call
"""

# A cluster's preset.
NO_REQUEUE = (
    "description: No requeue\nsource: https://example.org\nchecked: 2026-01-02\nstatus: current\nrequeue: false\n"
)

SECONDS = 300  # to wait at most: each start of a run takes some seconds of a core


class Experiment:
    """An experiment that has been submitted."""

    def __init__(self, folder: Path, slurm: PrivateSlurm) -> None:
        self.folder, self.slurm = folder, slurm
        self.logs = folder / "logs"

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "manifest.jsonl").read_text().splitlines()]

    @property
    def job(self) -> str:
        """The newest array of this experiment."""
        lines = self.slurm.run("squeue", "-h", "-t", "all", "-o", "%F %o").splitlines()
        files = [str(self.folder / name) for name in ("job.sbatch", "pack.sbatch")]
        return max((line.split()[0] for line in lines if any(file in line for file in files)), key=int)

    def run(self, index: int) -> Path:
        return self.folder / self.rows[index]["folder"]

    def status(self, index: int) -> dict:
        file = self.run(index) / "status.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def metrics(self, index: int) -> list[dict[str, str]]:
        with (self.run(index) / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def states(self) -> list[str | None]:
        return [self.status(row["index"]).get("state") for row in self.rows]

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
        self.slurm.wait(ready, f"{self.folder.name}: {what}", seconds, self.logs)

    def training(self, index: int) -> bool:
        log = self.run(index) / "logs" / "rank-0.log"
        return self.status(index).get("state") == "running" and log.exists() and "epoch 1/" in log.read_text()

    def wait_states(self, *states: str) -> None:
        """Wait until the runs' own states, in order, are these."""
        self.wait(lambda: self.states() == list(states), str(states))

    def wait_empty(self) -> None:
        """Wait until nothing of this experiment is in the queue."""
        self.wait(lambda: str(self.folder) not in self.slurm.run("squeue", "-h", "-o", "%o"), "an empty queue")

    def log(self, index: int) -> str:
        return (self.logs / f"{index}.log").read_text()


class Project:
    """The generated project, in a folder whose name holds what shell scripts stumble over."""

    def __init__(self, folder: Path, slurm: PrivateSlurm) -> None:
        self.folder, self.slurm = folder, slurm

    def command(self, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        """Run one of the project's programs; returns what it prints."""
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=self.slurm.environment | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def spec(self, name: str, **spec) -> Path:
        """Write a specification of that name; returns its file."""
        file = self.folder / "configs" / "jobs" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        specification = {"name": name, "configs": ["quick.yaml"], **spec}
        file.write_text(yaml.safe_dump(specification, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return file

    def forbid_requeue(self, cluster: str, more: str = "") -> None:
        """Write the preset of a cluster where nothing may be requeued, with `more` lines at its end."""
        (self.folder / "configs" / "clusters" / f"{cluster}.yaml").write_text(NO_REQUEUE + more)

    def with_train(self, folder: Path, program: str) -> "Project":
        """A copy of the project with another Train.py, and without the runs of other tests."""
        shutil.copytree(self.folder, folder)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        (folder / "Train.py").write_text(program)
        return Project(folder, self.slurm)

    def submit(self, name: str, *options: str, **spec) -> Experiment:
        """Write a specification and submit it."""
        self.command("SlurmTrain.py", "submit", self.spec(name, **spec), "--yes", *options)
        return self.experiment(name)

    def experiment(self, name: str) -> Experiment:
        return Experiment(self.folder / "runs" / name, self.slurm)

    def undisturbed(self, runs: dict[str, Sequence[int]]) -> dict[str, dict[int, Path]]:
        """Some runs of some experiments again, here, at once and without interruption; returns their folders."""
        calls = []
        for name, indices in runs.items():
            rows = self.experiment(name).rows
            for index in indices:
                settings = [f"--{key}={json.dumps(value)}" for key, value in rows[index]["overlay"].items()]
                calls.append(["fit", "--config", "quick.yaml", f"--name={name}-undisturbed", *settings])
        self.command("-c", UNDISTURBED, json.dumps(calls), PAUSE="0", PYTHONPATH=str(self.folder))

        folders: dict[str, dict[int, Path]] = {}
        for name, indices in runs.items():
            rows, parent = self.experiment(name).rows, self.folder / "runs" / f"{name}-undisturbed"
            folders[name] = {index: next(parent.glob(f"*-{rows[index]['identity'][:8]}")) for index in indices}
        return folders
