"""Make the pictures of the documentation and the sample of a report from real runs: a few minutes on two cores.

    .venv/bin/python docs/pictures.py

It generates a project, trains a grid of learning rates, widths and trials in it, writes the page of all runs, and
photographs it in Chromium. Look at what it has made before you commit it.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
SAMPLE = DOCS / "sample-report.html"
RATES, WIDTHS, TRIALS = ("0.0003", "0.003", "0.03"), ("4", "16"), ("0", "1", "2", "3")
SIZE = dict(width=1280, height=860)  # pixels

# File → hash of the page's address, and whether the theme is dark.
VIEWS = {
    "report-curves-light.png": ("#metric=val/loss&mean=1&log=1", False),
    "report-curves-dark.png": ("#metric=val/loss&mean=1&log=1", True),
    "report-cka.png": ("#tab=maps&q=trial%3D0+width%3D16", False),
}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        project = generate(Path(folder))
        train(project)
        run(project, "Report.py", "html", "-o", "report.html")
        shutil.copy(project / "report.html", SAMPLE)
        photograph(SAMPLE)

        shutil.copy(max(project.glob("runs/rates/*/cka/epoch-*.png")), PICTURES / "cka.png")
    for file in [SAMPLE, *sorted(PICTURES.iterdir())]:
        print(f"{file.relative_to(DOCS.parent)}: {file.stat().st_size / 1000:.0f} kB")


def generate(folder: Path) -> Path:
    """Generate a project with the defaults."""
    cookiecutter = [sys.executable, "-m", "cookiecutter", str(DOCS.parent), "--no-input", "--output-dir", str(folder)]
    subprocess.run(cookiecutter, check=True, stdout=subprocess.DEVNULL)
    return folder / "my-research-project"


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
