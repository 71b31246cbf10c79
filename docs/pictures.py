"""Make the pictures of the documentation from real runs: a few minutes on two cores.

    .venv/bin/python docs/pictures.py

It generates a project, trains a grid of learning rates and trials in it, writes the page of all runs, and photographs
it in Chromium. Look at what it has made before you commit it.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
RATES, TRIALS = ("0.0003", "0.003", "0.03"), ("0", "1")
SIZE = dict(width=1280, height=860)  # pixels

# File → hash of the page's address, and whether the theme is dark.
VIEWS = {
    "report-curves-light.png": ("#metric=val/loss&mean=1&log=1", False),
    "report-curves-dark.png": ("#metric=val/loss&mean=1&log=1", True),
    "report-cka.png": ("#tab=maps", False),
}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        project = generate(Path(folder))
        train(project)
        run(project, "Report.py", "html", "-o", "report.html")
        photograph(project / "report.html")

        shutil.copy(max(project.glob("runs/rates/*/cka/epoch-*.png")), PICTURES / "cka.png")
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.relative_to(DOCS.parent)}: {picture.stat().st_size / 1000:.0f} kB")


def generate(folder: Path) -> Path:
    """Generate a project with the defaults."""
    cookiecutter = [sys.executable, "-m", "cookiecutter", str(DOCS.parent), "--no-input", "--output-dir", str(folder)]
    subprocess.run(cookiecutter, check=True, stdout=subprocess.DEVNULL)
    return folder / "my-research-project"


def train(project: Path) -> None:
    """Train the grid, one run after the other."""
    for rate, trial in itertools.product(RATES, TRIALS):
        settings = ["--model.optimizer.lr", rate, "--trial", trial, "--trainer.max_epochs", "6"]
        run(project, "Train.py", "fit", "--name", "rates", *settings, "--trainer.logger", "false")


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
