"""Planning, submitting and watching many runs, beside one sbatch call for each run, on a real SLURM of one's own.

    python benchmarks/launch.py [--runs 10 100 1000 10000 100000] [--one_by_one 1000] [--json FILE]

The private SLURM of tests/slurm is used; jobs are submitted to begin tomorrow and are cancelled. Its queue takes 10,000
jobs, cancelled ones included, so larger experiments go out in waves of 1,000, as where a cluster limits a user's jobs.
The type check is measured apart: for numbers and classes in all combinations, and for texts, which are its worst case.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from figures import this_machine, write_figures

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "slurm")]
from clean_copy import clean_copy  # noqa: E402
from private_slurm import PrivateSlurm  # noqa: E402

WAVE = 1_000  # of a larger experiment: jobs that a cluster lets one user have in the queue

# What the type check has to look at. The last is the worst: each new text is parsed with its run.
OPTIMIZERS = "SGD Adam AdamW RMSprop Adagrad NAdam RAdam Adamax Adadelta ASGD".split()
CHECKED = {
    "one run": {"trial": [0]},
    "1,000 runs with a number of their own": {"model.optimizer.lr": {"linspace": dict(start=0.001, stop=1, num=1000)}},
    "1,000 runs: 10 optimizers × 2 networks × 50 rates": {
        "model.optimizer": OPTIMIZERS,
        "model.network": ["MLP", "ConvNet"],
        "model.optimizer.lr": {"linspace": dict(start=0.001, stop=1, num=50)},
    },
    "100 runs with a text of their own": {"codeversion": [f"version {number}" for number in range(100)]},
}


def timed(slurm: PrivateSlurm, *command: str | Path, cwd: Path | None = None) -> tuple[float, float]:
    """CPU seconds (the command and what it has started) and seconds on the clock."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [str(part) for part in command], check=True, env=slurm.environment, stdout=subprocess.DEVNULL, cwd=cwd
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, time.monotonic() - clock


def measure(slurm: PrivateSlurm, project: Path, count: int) -> dict[str, tuple[float, float]]:
    """What each command takes for an experiment of `count` runs."""
    spec = project / "spec.yaml"
    resources = dict(gpus=0, begin="now+1day", cluster="queue" if count > WAVE else "generic")
    request = dict(name=f"n{count}", parameters={"trial": {"repeat": count}}, resources=resources)
    spec.write_text(yaml.safe_dump(request))
    door, folder = (sys.executable, project / "SlurmTrain.py"), project / "runs" / f"n{count}"
    calls = len(slurm.sbatch_calls())
    found = {
        "plan": timed(slurm, *door, "plan", spec, cwd=project),
        "submit --dry-run": timed(slurm, *door, "submit", spec, "--dry-run", "--no-check", cwd=project),
        "submit": timed(slurm, *door, "submit", spec, "--yes", "--no-check", cwd=project),
        "status": timed(slurm, *door, "status", folder, cwd=project),
        "retry --dry-run": timed(slurm, *door, "retry", folder, "--dry-run", cwd=project),
    }
    found["sbatch calls"] = (len(slurm.sbatch_calls()) - calls, 0.0)
    timed(slurm, *door, "cancel", folder, cwd=project)
    slurm.clear()
    return found


def one_by_one(slurm: PrivateSlurm, project: Path, count: int) -> tuple[float, float]:
    """The usual way: a loop over the grid that calls sbatch for each run."""
    loop = f"for i in $(seq {count}); do sbatch --begin=now+1day --wrap='true' > /dev/null; done"
    took = timed(slurm, "bash", "-c", loop)
    slurm.clear()
    return took


def check(slurm: PrivateSlurm, project: Path) -> dict[str, float]:
    """CPU seconds of a dry run with the type check, for each kind of experiment in CHECKED."""
    spec = project / "spec.yaml"
    times = {}
    for kind, parameters in CHECKED.items():
        spec.write_text(yaml.safe_dump(dict(name="check", parameters=parameters)))
        took, _ = timed(slurm, sys.executable, project / "SlurmTrain.py", "submit", spec, "--dry-run", cwd=project)
        times[kind] = round(took, 1)
    return times


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[10, 100, 1000, 10000, 100000], help="sizes of the experiments"
    )
    parser.add_argument(
        "--one_by_one", type=int, default=1000, metavar="N", help="largest number of single sbatch calls"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    from cookiecutter.main import cookiecutter

    rows = []
    with tempfile.TemporaryDirectory() as scratch, PrivateSlurm() as slurm:
        template = clean_copy(Path(scratch) / "template")
        project = Path(cookiecutter(str(template), no_input=True, output_dir=scratch))
        checked = check(slurm, project)
        print("type check, CPU s: " + ", ".join(f"{kind} {seconds}" for kind, seconds in checked.items()), flush=True)
        version = slurm.run("sbatch", "--version")
        clusters = project / "configs" / "clusters"
        preset = (clusters / "generic.yaml").read_text(encoding="utf-8")
        (clusters / "queue.yaml").write_text(f"{preset}\njobs_per_user: {WAVE}\n", encoding="utf-8")
        for count in arguments.runs:
            found = measure(slurm, project, count)
            alone = one_by_one(slurm, project, count) if count <= arguments.one_by_one else None
            row = {"runs": count} | {
                f"{name}, CPU s": round(cpu, 2) for name, (cpu, _) in found.items() if name != "sbatch calls"
            }
            row["sbatch calls"] = found["sbatch calls"][0]
            row["submit, s"] = round(found["submit"][1], 2)
            row["one by one, s"] = round(alone[1], 2) if alone else "not run"
            row["ratio"] = round(alone[1] / found["submit"][1], 1) if alone else "not run"
            rows.append(row)
            print("  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)
    if arguments.json:
        sizes = " ".join(map(str, arguments.runs))
        command = f"python benchmarks/launch.py --runs {sizes} --one_by_one {arguments.one_by_one}"
        write_figures(arguments.json, this_machine(version), command, rows)
        kinds = [{"dry run with the check": kind, "CPU s": seconds} for kind, seconds in checked.items()]
        write_figures(arguments.json.with_name("launch_check.json"), this_machine(), command, kinds)


if __name__ == "__main__":
    main()
