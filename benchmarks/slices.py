"""One run behind a bigger job of somebody else's, as a whole and in slices, on real SLURMs of one's own.

    python benchmarks/slices.py [--gap 720] [--bigger 180] [--steps 400] [--json FILE]

Each way has a private SLURM of tests/slurm with two nodes. A job of others has one node for `gap` seconds. Then a
bigger one, which wants both, waits in front; the other node is idle until it starts. The run trains for real, with a
pause in each step so that it takes minutes. Both ways go on at the same time; their results are compared to the bit.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from figures import this_machine, write_figures

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"  # where lightning_hpc is
sys.path[:0] = [str(PROJECT), str(ROOT / "tests"), str(ROOT / "tests" / "slurm"), str(ROOT / "tests" / "resume")]
sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "template-pycache")
from chain import read  # noqa: E402
from clean_copy import clean_copy  # noqa: E402
from private_slurm import PrivateSlurm  # noqa: E402
from same import unequal  # noqa: E402

STEPS_OF_AN_EPOCH, PAUSE = 40, 0.5  # seconds

WAYS = {"one job of 30 min": ["--time=30"], "slices of 4 min": ["--time=30", "--slice=4"]}

MODEL = """\
import time

from my_research_project.model import Classifier


class Slow(Classifier):
    def training_step(self, batch, batch_idx):
        time.sleep({pause})
        return super().training_step(batch, batch_idx)
"""

# Columns of metrics.csv that tell of time and not of training.
OF_TIME = ("seconds", "time/", "memory/", "usage/")


def prepare(folder: Path, steps: int) -> Path:
    """Generate a project with a run that takes minutes; returns its folder."""
    from cookiecutter.main import cookiecutter

    template = clean_copy(folder / "template")
    project = Path(cookiecutter(str(template), no_input=True, output_dir=str(folder)))
    (project / "slow.py").write_text(MODEL.format(pause=PAUSE))
    trainer = dict(max_epochs=steps // STEPS_OF_AN_EPOCH, limit_train_batches=STEPS_OF_AN_EPOCH, accelerator="cpu")
    settings = dict(cka=None, trainer=trainer, model=dict(class_path="slow.Slow"), data=dict(batch_size=16))
    (project / "configs" / "slow.yaml").write_text(yaml.safe_dump(settings))
    request = dict(name="run", configs=["slow.yaml"], parameters={"trial": [0]}, resources=dict(gpus=0))
    (project / "spec.yaml").write_text(yaml.safe_dump(request))
    return project


def wait_in_line(way: str, slurm: PrivateSlurm, project: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Submit others' jobs and then the run, and wait until it is done; returns the way's row of the table."""
    slurm.environment |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "HOME": str(project)}
    slurm.environment.pop("PYTHONPATH", None)
    others = ["--exclusive", "--output=/dev/null"]
    for length, where in ((options.gap, ["--nodelist=127.0.0.1"]), (options.bigger, ["--nodes=2"])):
        slurm.sbatch(*others, *where, f"--time={length // 60}", f"--wrap=sleep {length - 5}", cwd=project)

    command = [sys.executable, "SlurmTrain.py", "submit", "spec.yaml", "--yes", "--no-check", *WAYS[way]]
    submitted = time.time()
    done = subprocess.run(command, cwd=project, env=slurm.environment, check=True, capture_output=True, text=True)
    print(done.stdout, flush=True)
    return row_of(way, slurm, project / "runs" / "run", submitted)


def row_of(way: str, slurm: PrivateSlurm, experiment: Path, submitted: float) -> dict[str, Any]:
    """Wait for the end of an experiment's only run; returns the way's row of the table.

    Args:
        way: one of WAYS.
        slurm: where it was submitted.
        experiment: its folder.
        submitted: when, in seconds since 1970.
    """

    def status() -> dict[str, Any]:
        files = list(experiment.glob("000-*/status.json"))
        return json.loads(files[0].read_text()) if files else {}

    note = experiment / "logs" / ".job-0"  # of the batch file, when its job begins
    slurm.wait(note.exists, f"{way}: the first job", 3600, experiment)
    began = time.time()
    slurm.wait(lambda: status().get("state") in ("done", "failed"), f"{way}: the end of the run", 3600, experiment)
    end = status()
    assert end["state"] == "done", end
    updated = datetime.fromisoformat(end["updated"]).timestamp()
    return {
        "way": way,
        "begun after, s": round(began - submitted),
        "jobs": end["attempt"],
        "steps": end["step"],
        "training, s": round(end["seconds"]),
        "done after, s": round(updated - submitted),
        "a start, s": round(end["start_seconds"]),
        "a save, s": end["save_seconds"],
    }


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs, to the bit: all that their last checkpoints hold, and their metrics."""
    found = list(unequal(*(read(run / "checkpoints" / "last.ckpt") for run in (one, other)), "last.ckpt"))
    if metrics(one) != metrics(other):
        found.append("metrics.csv")
    return found


def metrics(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what tells of time."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith(OF_TIME)} for row in rows]


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gap", type=int, default=720, metavar="S", help="how long one node is idle, whole minutes")
    parser.add_argument("--bigger", type=int, default=180, metavar="S", help="how long the bigger job takes")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help=f"of the run, each of {PAUSE} s")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        projects, slurms = [], []
        for number in range(len(WAYS)):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            projects.append(prepare(folder, options.steps))
            slurms.append(stack.enter_context(PrivateSlurm()))  # one after the other: they look for free ports
        with ThreadPoolExecutor() as pool:
            rows = list(pool.map(wait_in_line, WAYS, slurms, projects, [options] * len(WAYS)))
        one, other = (next(project.glob("runs/run/000-*")) for project in projects)
        found = differences(one, other)
        version = slurms[0].run("sbatch", "--version")
    for row in rows:
        print("  ".join(f"{name}: {value}" for name, value in row.items()))
    print(f"the two differ in {len(found)} places{': ' if found else ''}{', '.join(found)}")
    assert not found

    if options.json:
        command = f"python benchmarks/slices.py --gap {options.gap} --bigger {options.bigger} --steps {options.steps}"
        note = f"the checkpoints and metrics of the two differ in {len(found)} places"
        write_figures(options.json, f"{this_machine(version)}; {note}", command, rows)


if __name__ == "__main__":
    main()
