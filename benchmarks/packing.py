"""Four small runs as four jobs of which one may run at a time, and in one job, on a real SLURM of one's own.

    python benchmarks/packing.py [--steps 200] [--json FILE]

Once with runs that only compute, and once with runs that wait for 0.1 s in each step, as one does whose data come from
elsewhere: for a run that shares its job this time is not lost. There is no GPU; what shares is the CPUs. The results
of both ways are compared to the bit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from figures import this_machine, write_figures

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "slurm")]
from clean_copy import clean_copy  # noqa: E402
from private_slurm import PrivateSlurm  # noqa: E402
from slices import differences  # noqa: E402

RUNS, WAIT = 4, 0.1  # seconds

WAYS = {"apart": ["--throttle=1"], "packed": [f"--pack={RUNS}"]}

MODEL = """\
import time

from my_research_project.model import Classifier


class Waiting(Classifier):
    def __init__(self, *args, wait: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.wait = wait

    def training_step(self, batch, batch_idx):
        time.sleep(self.wait)
        return super().training_step(batch, batch_idx)
"""


def prepare(folder: Path, steps: int) -> Path:
    """Generate a project with a small run; returns its folder."""
    from cookiecutter.main import cookiecutter

    template = clean_copy(folder / "template")
    project = Path(cookiecutter(str(template), no_input=True, output_dir=str(folder)))
    (project / "waiting.py").write_text(MODEL)
    trainer = dict(max_epochs=steps // 40, limit_train_batches=40, limit_val_batches=1, accelerator="cpu")
    settings = dict(cka=None, trainer=trainer, model=dict(class_path="waiting.Waiting"))
    (project / "configs" / "waiting.yaml").write_text(yaml.safe_dump(settings))
    return project


def measure(slurm: PrivateSlurm, project: Path, wait: float, way: str) -> float:
    """Submit four runs one way and wait until all are done; returns the seconds on the clock."""
    name = f"{way}-{wait:g}"
    parameters = {"trial": list(range(RUNS)), "model.wait": [wait]}
    spec = dict(name=name, configs=["waiting.yaml"], parameters=parameters, resources=dict(gpus=0))
    (project / "spec.yaml").write_text(yaml.safe_dump(spec))
    began = time.monotonic()
    command = [sys.executable, "SlurmTrain.py", "submit", "spec.yaml", "--yes", "--no-check", *WAYS[way]]
    subprocess.run(command, cwd=project, env=slurm.environment, check=True)
    states: list[str] = []

    def all_ended() -> bool:
        files = (project / "runs" / name).glob("*/status.json")
        states[:] = [json.loads(file.read_text())["state"] for file in files]
        return len(states) == RUNS and set(states) <= {"done", "failed"}

    slurm.wait(all_ended, f"{name}: the end", 1800, project / "runs" / name)
    assert set(states) == {"done"}, states
    return time.monotonic() - began


def compare(slurm: PrivateSlurm, project: Path, wait: float) -> dict[str, Any]:
    """Both ways for one kind of run: a row of the table."""
    apart, packed = (measure(slurm, project, wait, way) for way in WAYS)
    for run in (project / "runs" / f"apart-{wait:g}").glob("[0-9]*-*"):
        (same,) = (project / "runs" / f"packed-{wait:g}").glob(f"*-{run.name[-8:]}")
        assert not (found := differences(run, same)), found
    return {
        "a run": f"waits {wait:g} s in each step" if wait else "computes",
        "one at a time, s": round(apart),
        "one job of 4, s": round(packed),
        "ratio": round(apart / packed, 1),
    }


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of each run, a multiple of 40")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch, PrivateSlurm() as slurm:
        project = prepare(Path(scratch), options.steps)
        slurm.environment |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "HOME": scratch}
        slurm.environment.pop("PYTHONPATH", None)
        rows = [compare(slurm, project, wait) for wait in (0.0, WAIT)]
        version = slurm.run("sbatch", "--version")
    for row in rows:
        print("  ".join(f"{name}: {value}" for name, value in row.items()))
    if options.json:
        load = f"load average {os.getloadavg()[2]:.0f}"
        command = f"python benchmarks/packing.py --steps {options.steps}"
        write_figures(options.json, this_machine(version, load), command, rows)


if __name__ == "__main__":
    main()
