"""CPU seconds from the command to the project, beside a template of one file and no hooks as the floor.

    python benchmarks/generation.py [--repeats 10] [--json FILE]

Every case is a fresh `cookiecutter` process. The cases take turns, so that a machine that slows down slows all of them.
CPU time (user and system, hooks and git included) and not the clock, because other programs may be running.
"""

import argparse
import importlib.metadata
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import this_machine, write_figures

ROOT = Path(__file__).parents[1]
COOKIECUTTER = Path(sys.executable).parent / "cookiecutter"
TARGET = 1.0  # CPU seconds for the whole generation


def cpu_seconds(*command: str | Path) -> float:
    """User and system time of a command and of everything that it has started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def make_trivial_template(folder: Path) -> Path:
    """The least that cookiecutter can generate: one question, one file."""
    project = folder / "{{cookiecutter.name}}"
    project.mkdir(parents=True)
    (folder / "cookiecutter.json").write_text('{"name": "trivial"}')
    (project / "README.md").write_text("# {{ cookiecutter.name }}\n")
    return folder


def measure(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each case, one per repeat."""
    times: dict[str, list[float]] = {"start": [], "trivial": [], "without hooks": [], "complete": []}
    with tempfile.TemporaryDirectory() as scratch:
        trivial = make_trivial_template(Path(scratch) / "template")
        generate = [COOKIECUTTER, "--no-input", "--default-config", "--output-dir"]
        for repeat in range(repeats):
            output = Path(scratch) / str(repeat)
            times["start"].append(cpu_seconds(COOKIECUTTER, "--version"))
            times["trivial"].append(cpu_seconds(*generate, output / "trivial", trivial))
            times["without hooks"].append(cpu_seconds(*generate, output / "bare", "--accept-hooks", "no", ROOT))
            times["complete"].append(cpu_seconds(*generate, output / "complete", ROOT))
    return times


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=10, help="runs of each case (default: 10)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()

    times = measure(arguments.repeats)
    least = {case: min(values) for case, values in times.items()}
    split = {
        "start of cookiecutter": least["start"],
        "questions and files": least["without hooks"] - least["start"],
        "hooks and git": least["complete"] - least["without hooks"],
    }
    machine = this_machine(f"cookiecutter {importlib.metadata.version('cookiecutter')}")
    print(machine)
    print(f"{'case':24}{'least':>8}{'median':>8}   CPU s, {arguments.repeats} runs")
    for case, values in times.items():
        print(f"{case:24}{min(values):8.3f}{statistics.median(values):8.3f}")
    print("\nwhere the complete generation spends its time (differences of the least)")
    for part, seconds in split.items():
        print(f"{part:24}{seconds:8.3f}")
    ratio = least["complete"] / least["trivial"]
    verdict = "met" if statistics.median(times["complete"]) < TARGET else "missed"
    print(f"\ncomplete / trivial: {ratio:.2f}; target of {TARGET:.0f} CPU s: {verdict}")
    if arguments.json:
        rows = [
            {
                "case": case,
                "least CPU s": round(min(values), 3),
                "median CPU s": round(statistics.median(values), 3),
                "ratio": round(min(values) / least["trivial"], 2),
            }
            for case, values in times.items()
        ]
        command = f"python benchmarks/generation.py --repeats {arguments.repeats}"
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
