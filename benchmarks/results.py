"""Reading and showing the results of thousands of runs, beside pandas and PyYAML file by file and a plain HTML table.

    python benchmarks/results.py [--runs 1000 10000] [--file_by_file 1000] [--json FILE]

The page is opened in Chromium, if Playwright and a Chromium are installed.

Made-up runs in 100 experiments: status.json, a config.yaml of 130 lines, overlay.yaml, and a metrics.csv of 60 rows and
26 columns, of which most are empty, as real ones are. CPU seconds, after the files have been read once.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from figures import this_machine, write_figures
from template_path import use_template

use_template(researchers_files=False)

from lightning_hpc.report.content import page_content  # noqa: E402
from lightning_hpc.report.page import make_page  # noqa: E402
from lightning_hpc.results import Results, read, reading, rows  # noqa: E402

ROWS, METRICS, LAYERS = 60, 24, 110
LOOKS = 5  # at what has not changed
PATIENCE = 120  # seconds that a page has until it can be used


def make_runs(folder: Path, count: int) -> None:
    """Write run folders as Train.py does, with numbers from a seed."""
    draw = random.Random(0)
    names = [f"{stage}/metric{number}" for stage in ("train", "val") for number in range(METRICS // 2)]

    # What all runs have in common is turned into text once: PyYAML takes longer for it than all else here.
    layers = {f"layer{number}": {"width": 64 + number, "activation": "ReLU"} for number in range(LAYERS // 3)}
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": "RATE", "momentum": 0.9}}
    model = {"class_path": "project.model.Classifier", "init_args": {"optimizer": optimizer, **layers}}
    trainer = {"max_epochs": 20, "precision": None}
    common = yaml.safe_dump({"seed_everything": "SEED", "trainer": trainer, "model": model}, sort_keys=False)

    for number in range(count):
        run = folder / f"experiment{number % 100:02d}" / f"{number:05d}-lr-{draw.getrandbits(32):08x}"
        run.mkdir(parents=True)
        rate, seed = 10 ** draw.uniform(-5, -1), number % 10
        overlay = {"name": run.parent.name, "model.optimizer.lr": rate, "trial": seed}
        config = common.replace("RATE", f"{rate:.18f}").replace("SEED", str(seed))
        command = f"python Train.py fit --name {run.parent.name} --model.optimizer.lr {rate} --trial {seed}"

        lines = [",".join(["step", "epoch", *names])]
        for row in range(ROWS):
            epoch, is_validation = divmod(row, 3)
            stage = "val" if is_validation == 2 else "train"
            cells = [str(draw.random()) if name.startswith(stage) else "" for name in names]
            lines.append(",".join([str(row * 10), str(epoch), *cells]))

        status = {
            "state": draw.choice(["done", "done", "done", "running", "failed"]), "reason": None, "exit_code": 0,
            "attempt": 1, "name": run.parent.name, "identity": f"{draw.getrandbits(64):016x}", "command": command,
            "host": "node1", "pid": 1, "slurm_job": str(number), "restarts": 0, "attempt_step": 0, "seconds": 100.5,
            "started": f"2026-11-28T22:{number // 60 % 60:02d}:{number % 60:02d}+00:00", "step": 600, "epoch": 20,
            "lightning_hpc": "0.1.0", "monitor": "val/metric0", "best": draw.random(),
            "metrics": {name: draw.random() for name in names[:8]},
        }  # fmt: skip
        (run / "config.yaml").write_text(f"# Resolved settings of: {command}\n{config}")
        (run / "overlay.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False))
        (run / "metrics.csv").write_text("\n".join(lines) + "\n")
        (run / "status.json").write_text(json.dumps(status, indent=2))


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def ours(folder: Path) -> dict[str, float]:
    """The table, the curves, and the table again: of that the best of a few, as it is over in a moment."""
    rows._known.clear()
    reading._latest = None
    kept = {}
    times = {"table": cpu(lambda: kept.update(results=read(folder)) or kept["results"].table)}
    times["curves"] = cpu(lambda: kept["results"].curves)
    times["table again"] = min(cpu(lambda: read(folder).table) for _ in range(LOOKS))
    assert len(kept["results"].curves) == len(kept["results"]) * ROWS * METRICS // 2
    return times


def pages(results: Results, folder: Path) -> dict[str, Any]:
    """Making the page, its size, and the seconds until it can be used; the same for a plain table of HTML."""
    ours, plain = folder / "ours.html", folder / "plain.html"
    figures = {"page, CPU s": cpu(lambda: ours.write_text(make_page(page_content(results, "runs", ""))))}
    results.table.to_html(plain)

    ready = {"page": (ours, "window.page"), "plain HTML": (plain, "document.querySelector('tr:last-child').offsetTop")}
    for name, (file, condition) in ready.items():
        figures[f"{name}, MB"] = file.stat().st_size / 1e6
        if seconds := usable_after(file, condition):
            figures[f"{name}, usable after s"] = seconds
    return figures


def usable_after(file: Path, condition: str) -> float | str | None:
    """Seconds from opening a page in Chromium until a condition of JavaScript holds.

    Returns:
        None without Chromium; a text if it took longer than anybody waits.
    """
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import TimeoutError as TooLong
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if program is None:
        return None

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto("about:blank")
        begin = time.perf_counter()
        try:
            page.goto(file.as_uri(), timeout=PATIENCE * 1000)
            page.wait_for_function(condition, timeout=PATIENCE * 1000)
            page.evaluate("() => new Promise(requestAnimationFrame)")  # drawn once
            usable: float | str = time.perf_counter() - begin
        except TooLong:
            usable = f"more than {PATIENCE}"
        browser.close()
    return usable


def file_by_file(folder: Path, count: int) -> dict[str, float]:
    """The usual way, for the first `count` runs."""
    runs = sorted(file.parent for file in folder.glob("*/*/status.json"))[:count]

    def table() -> None:
        records = []
        for run in runs:
            settings = yaml.load((run / "config.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            records.append({**json.loads((run / "status.json").read_text()), **settings})
        pd.json_normalize(records)

    def curves() -> None:
        tables = {run.name: pd.read_csv(run / "metrics.csv") for run in runs}
        pd.concat(tables, names=["run"])

    return {"table": cpu(table), "curves": cpu(curves)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--file_by_file", type=int, default=1000, help="so many runs in the usual way")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()

    rows = [measure(count, min(count, arguments.file_by_file)) for count in arguments.runs]

    if arguments.json:
        command = f"python benchmarks/results.py --runs {' '.join(map(str, arguments.runs))}"
        write_figures(arguments.json, this_machine(), command, rows)


def measure(count: int, usual_count: int) -> dict[str, Any]:
    """CPU seconds for so many runs, and how often they go into those of the usual way; printed as they are known."""
    row: dict[str, Any] = {"runs": count}
    show(row)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "runs")
        make_runs(folder, count)
        read(folder)  # the files are in memory from here on
        times = ours(folder)
        usual = {what: seconds * count / usual_count for what, seconds in file_by_file(folder, usual_count).items()}

        for what, seconds in times.items():
            row[f"{what}, CPU s"] = seconds
            if what in usual:
                row[f"{what} file by file, CPU s"] = usual[what]
                row[f"{what}, ratio"] = usual[what] / seconds
        show({what: value for what, value in row.items() if what != "runs"})

        page = pages(read(folder), Path(name))
        show(page)
    return row | page


def show(figures: dict[str, Any]) -> None:
    """Print some figures, without waiting for the others."""
    for what, value in figures.items():
        print(f"{what}: {value}" if isinstance(value, str) else f"{what}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
