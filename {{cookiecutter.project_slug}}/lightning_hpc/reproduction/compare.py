"""The command `Report.py compare`."""

import argparse
import shutil
import string
from collections.abc import Sequence
from pathlib import Path

from ..results.reading import Results, read
from ..settings.errors import SettingsError, did_you_mean
from ..settings.places import existing
from .chart import Curve, chart
from .comparison import aligned, code_lines, environment_rows, metric_rows, settings_rows

HELP = "runs side by side: settings that differ, metrics, curves, and differences of code and environment"
EXAMPLES = """examples:
  python Report.py compare runs/default/000-0123abcd runs/default/001-trial=1-4567cdef
  python Report.py compare runs/wide/* --metrics val/acc
"""
MOST_RUNS = len(string.ascii_uppercase)
WIDEST = 100  # characters of a chart


def add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options to those of Report.py."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("compare", help=HELP, description=HELP, epilog=EXAMPLES, formatter_class=raw)
    command.add_argument("runs", type=existing, nargs="+", metavar="RUN", help="the runs' folders, two or more")
    command.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="curves of these; default: train/loss and what decides the best"
    )


def print_comparison(arguments: argparse.Namespace, root: Path) -> int:
    """Print what differs between runs; returns the exit code.

    Raises:
        SettingsError: a folder is no run's, or there are too few or too many.
    """
    for folder in arguments.runs:
        if not (folder / "status.json").is_file():
            raise SettingsError(f"{folder} is not a run's folder: it has no status.json")
    if not 2 <= len(set(arguments.runs)) <= MOST_RUNS:
        raise SettingsError(f"compare needs 2 to {MOST_RUNS} runs, got {len(set(arguments.runs))}")

    results = read(*arguments.runs)
    letters = list(string.ascii_uppercase[: len(results)])
    metrics = arguments.metrics or usual_metrics(results)
    heading = ["", *letters]
    sections = {
        "settings that differ": table(heading, settings_rows(results)),
        "metrics": table(heading, metric_rows(results)),
        **curves_of(results, letters, metrics),
        "code": code_lines(results.folders, [row.status for row in results.rows], letters),
        "environment": table(heading, environment_rows(results.folders)),
    }

    print("\n".join(runs_lines(results, letters)))
    for title, lines in sections.items():
        print(f"\n{title}")
        print("\n".join(f"  {line}" for line in lines))
    return 0


def runs_lines(results: Results, letters: Sequence[str]) -> list[str]:
    """Which letter stands for which run, and how it stands."""
    lines = []
    for letter, folder, row in zip(letters, results.folders, results.rows, strict=True):
        cells = row.cells()
        reason = f": {cells['reason']}" if cells["reason"] else ""
        lines.append(f"{letter}  {folder}  {cells['state']}{reason}")
    return lines


def table(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Rows under a heading; a word where there are none."""
    return aligned([heading, *rows]) if rows else ["none"]


def usual_metrics(results: Results) -> list[str]:
    """train/loss, and the metrics that decide which checkpoint is the best, as far as runs have logged them."""
    wanted = dict.fromkeys(["train/loss", *(str(row.status.get("monitor")) for row in results.rows)])
    logged = set(results.curves["metric"])
    return [name for name in wanted if name in logged]


def curves_of(results: Results, letters: Sequence[str], metrics: Sequence[str]) -> dict[str, list[str]]:
    """Title → lines of the chart of each metric.

    Raises:
        SettingsError: no run has logged a metric of this name.
    """
    width = min(shutil.get_terminal_size().columns - 2, WIDEST)
    logged = results.curves
    charts = {}
    for name in metrics:
        values = logged[logged["metric"] == name]
        if not len(values):
            near = did_you_mean(name, [str(known) for known in set(logged["metric"])])
            raise SettingsError(f"--metrics {name}: none of these runs has logged it{near}")
        curves: dict[str, Curve] = {}
        for letter, folder in zip(letters, results.folders, strict=True):
            of_run = values[values["run"] == str(folder)]
            curves[letter] = list(zip(of_run["step"], of_run["value"], strict=True))
        charts[f"{name} by step"] = chart(curves, width)
    return charts
