"""Planning, submitting and watching many runs, beside one sbatch call for each run, on a real SLURM of one's own.

    python benchmarks/launch.py [--runs 10 100 1000 10000] [--one_by_one 1000] [--json FILE]

The private SLURM of tests/slurm is used; jobs are submitted to begin tomorrow and are cancelled. The type check is
measured apart, for a grid whose numbers are all different from each other, which is its worst case.
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

CHECKED = 100  # runs of the type check: it takes the same time for each


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
    request = dict(name=f"n{count}", parameters={"trial": {"repeat": count}}, resources=dict(gpus=0, begin="now+1day"))
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


def check(slurm: PrivateSlurm, project: Path) -> tuple[float, float]:
    """What the type check adds to a dry run: start-up of torch, and seconds for each run that has to be parsed."""
    spec = project / "spec.yaml"
    times = []
    for count in (1, 1 + CHECKED):
        rates = {"linspace": dict(start=0.001, stop=1, num=count)}
        spec.write_text(yaml.safe_dump(dict(name="check", parameters={"model.optimizer.lr": rates})))
        times.append(
            timed(slurm, sys.executable, project / "SlurmTrain.py", "submit", spec, "--dry-run", cwd=project)[0]
        )
    return times[0], (times[1] - times[0]) / CHECKED


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10000], help="sizes of the experiments")
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
        start, each = check(slurm, project)
        version = slurm.run("sbatch", "--version")
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
    print(f"type check: {start:.1f} CPU s with one run, {1000 * each:.0f} ms for each further one that must be parsed")
    if arguments.json:
        note = f"type check: {start:.1f} CPU s with one run, {1000 * each:.0f} ms for each further one"
        sizes = " ".join(map(str, arguments.runs))
        command = f"python benchmarks/launch.py --runs {sizes} --one_by_one {arguments.one_by_one}"
        write_figures(arguments.json, f"{this_machine(version)}; {note}", command, rows)


if __name__ == "__main__":
    main()
