"""Make the pictures of the documentation from real runs. All of them take about ten minutes on two cores.

    .venv/bin/python docs/pictures.py                 all
    .venv/bin/python docs/pictures.py rooms life      some: the names of the groups below

It generates projects, trains in them, and draws what they have written. `report` needs Chromium, `queue` SLURM, `rooms`
and `life` Graphviz: apt-get install chromium slurmctld slurmd slurm-client graphviz. Look at what it has made before
you commit it.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PICTURES = DOCS / "pictures"
SAMPLE = DOCS / "sample-report.html"
sys.path[:0] = [str(DOCS), *(str(ROOT / folder) for folder in ("benchmarks", "tests", "tests/unit", "tests/slurm"))]

RATES, WIDTHS, TRIALS = ("0.0003", "0.003", "0.03"), ("4", "16"), ("0", "1", "2", "3")
SIZE = dict(width=1280, height=860)  # pixels

# File → hash of the page's address, and whether the theme is dark.
VIEWS = {
    "report-curves-light.png": ("#metric=val/loss&mean=1&log=1", False),
    "report-curves-dark.png": ("#metric=val/loss&mean=1&log=1", True),
    "report-cka.png": ("#tab=maps&q=trial%3D0+width%3D16", False),
}

# Of the runs that are filmed: few epochs, each step logged, no bar that draws over itself.
FILMED = {
    "max_epochs: 10": "max_epochs: 6\n  enable_progress_bar: false",
    "log_every_n_steps: 10": "log_every_n_steps: 1",
}

SPECIFICATION = """\
name: rates
parameters:
  model.network.width: [4, 8]
  model.optimizer.lr: [0.001, 0.01, 1000.0]
resources: {gpus: 0, throttle: 2, time: "00:10:00"}
"""


def report(folder: Path) -> None:
    """The page of all runs, and what else shows the same 24 runs."""
    import plots

    project = generate(folder)
    train(project)
    run(project, "Report.py", "html", "-o", "report.html")
    shutil.copy(project / "report.html", SAMPLE)
    photograph(SAMPLE)
    shutil.copy(max(project.glob("runs/rates/*/cka/epoch-*.png")), PICTURES / "cka.png")
    plots.curves(project / "runs" / "rates", "model.optimizer.lr", "val/loss", PICTURES / "curves.svg")


def resume(folder: Path) -> None:
    """A run that is killed, resumes, and ends as one that was never killed: filmed, and as curves. And its CKA maps."""
    import plots
    import terminal

    project = generate(folder)
    film(project)
    with terminal.Terminal(project) as shell:
        shell.type("python Train.py fit --name killed", kill_at="epoch 3/")
        said = shell.type("python Train.py fit --name killed")
        shell.type("python Train.py fit --name whole > /dev/null 2>&1")
        hashes = shell.type("tail -qn 1 runs/*/*/fingerprints.jsonl | cut -c -71")
    same = set(re.findall(r'"weights": "(\w+)"', hashes))
    assert len(hashes.splitlines()) == 2 and len(same) == 1, hashes

    title = "A run is killed in its third epoch, resumes, and ends with the same weights as a run that was not killed."
    bright = r"resuming from|[0-9a-f]{32}"
    (PICTURES / "recording.svg").write_text(terminal.drawing(shell.lines, title, bright), encoding="utf-8")

    (whole,), (killed,) = project.glob("runs/whole/*"), project.glob("runs/killed/*")
    steps = [int(step) for step in re.findall(r"resuming from \S+ \(step (\d+)", said)]
    plots.resumed(whole, killed, steps, PICTURES / "resumed.svg")
    plots.maps(whole, [1, 2, 4, 6], PICTURES / "cka-epochs.svg")


def queue(folder: Path) -> None:
    """How an experiment stands, on a real SLURM; two of its runs fail."""
    import terminal
    from private_slurm import PrivateSlurm

    project = generate(folder)
    film(project)
    (project / "configs" / "jobs" / "rates.yaml").write_text(SPECIFICATION)
    with PrivateSlurm() as slurm, terminal.Terminal(project, slurm.environment) as shell:
        said = shell.type("python SlurmTrain.py submit configs/jobs/rates.yaml --yes")
        assert "submitted" in said, said
        while len(list(project.glob("runs/rates/*/status.json"))) < 4:
            time.sleep(0.5)
        shell.type("python SlurmTrain.py status runs/rates")
        slurm.wait(lambda: not slurm.run("squeue", "-h").strip(), "the end of all jobs", 900)
        shell.type("python SlurmTrain.py status runs/rates --why")
    title = "Six runs are submitted as one array; a table says how each stands, and another why two have failed."
    (PICTURES / "status.svg").write_text(terminal.drawing(shell.lines, title, r"\bdone\b"), encoding="utf-8")


def rooms(folder: Path) -> None:
    """Which room of lightning_hpc may import which, from the table of the test that holds them to it."""
    import diagrams
    from template_path import use_template

    use_template()
    import test_rooms

    graph = diagrams.rooms(test_rooms.MAY_IMPORT, test_rooms.IMPORT_TORCH)
    diagrams.draw(graph, PICTURES / "rooms.svg", "The rooms of lightning_hpc, and which may import which")


def life(folder: Path) -> None:
    """The life of a run: signals, saving, the queue, resuming."""
    import diagrams
    from template_path import use_template

    use_template()
    from lightning_hpc.runs.folder import EXIT_CODES

    title = "The life of a run: a signal, a save, back into the queue, and on from the checkpoint"
    diagrams.draw(diagrams.life(EXIT_CODES), PICTURES / "life.svg", title)


def slices(folder: Path) -> None:
    """Slices in a queue, from the figures of benchmarks/slices.py."""
    import plots

    plots.slices(DOCS / "benchmarks" / "data" / "slices.json", PICTURES / "slices.svg")


# What makes them → the files.
GROUPS: dict[Callable[[Path], None], tuple[str, ...]] = {
    report: (*VIEWS, "cka.png", "curves.svg"),
    resume: ("recording.svg", "resumed.svg", "cka-epochs.svg"),
    queue: ("status.svg",),
    rooms: ("rooms.svg",),
    life: ("life.svg",),
    slices: ("slices.svg",),
}


def main() -> None:
    """Make the groups that are named, or all."""
    PICTURES.mkdir(exist_ok=True)
    os.environ |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    for make, files in GROUPS.items():
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
        for name in files:
            print(f"docs/pictures/{name}: {(PICTURES / name).stat().st_size / 1000:.0f} kB")


def generate(folder: Path) -> Path:
    """Generate a project with the defaults."""
    cookiecutter = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--output-dir", str(folder)]
    subprocess.run(cookiecutter, check=True, stdout=subprocess.DEVNULL)
    return folder / "my-research-project"


def film(project: Path) -> None:
    """Give all runs of a project the settings of those that are filmed."""
    base = project / "configs" / "base.yaml"
    text = base.read_text()
    for old, new in FILMED.items():
        assert old in text, old
        text = text.replace(old, new)
    base.write_text(text)


def train(project: Path) -> None:
    """Train the grid, one run after the other in this process: to start one takes longer than to train it."""
    sys.path.insert(0, str(project))
    os.chdir(project)
    from lightning_hpc.entrance import train as fit

    for rate, width, trial in itertools.product(RATES, WIDTHS, TRIALS):
        settings = ["--model.optimizer.lr", rate, "--model.network.width", width, "--trial", trial]
        fit(["fit", "--name", "rates", *settings, "--trainer.max_epochs=6", "--trainer.logger=false"], root=project)


def run(project: Path, *command: str) -> None:
    """Run one of the project's programs."""
    subprocess.run([sys.executable, *command], cwd=project, check=True, stdout=subprocess.DEVNULL)


def photograph(page: Path) -> None:
    """Save a picture of each view."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for name, (view, is_dark) in VIEWS.items():
            window = browser.new_page(viewport=SIZE, color_scheme="dark" if is_dark else "light")
            window.goto(f"{page.as_uri()}{view}")
            window.wait_for_function("window.page")
            window.screenshot(path=PICTURES / name, full_page=True)
            window.close()
        browser.close()


if __name__ == "__main__":
    main()
