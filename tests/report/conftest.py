"""Pages in a real browser, and folders of runs to show in it."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import write_run

from lightning_hpc import entrance


@pytest.fixture
def open_page(browser):
    """Open an address and wait until it can be used.

    The test fails at its end if a page has complained of anything, or asked for anything.
    """
    contexts, complaints = [], []

    def open_one(address, width=1400, height=900, dark=False):
        context = browser.new_context(
            viewport=dict(width=width, height=height), color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_function("window.page", timeout=20_000)
        page.on("request", lambda request: complaints.append(request.url))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Twenty-four runs of one grid: three learning rates, two widths, four trials; one has failed, one is running."""
    folder = tmp_path_factory.mktemp("grid") / "runs"
    number = 0
    for rate in (0.001, 0.01, 0.1):
        for width in (16, 64):
            for trial in range(4):
                quality = 0.9 - abs(np.log10(rate) + 2) / 10 + trial / 1000
                curve = [quality - 0.5 / (epoch + 1) for epoch in range(5)]
                rows = [("step", "epoch", "seconds", "train/loss", "val/acc")]
                rows += [(epoch * 10, epoch, 2.5 * epoch, 1 / (epoch + 1), value) for epoch, value in enumerate(curve)]
                write_run(
                    folder / "grid" / f"{number:03d}-lr={rate}-width={width}-{number + 0xA0000000:08x}",
                    state={3: "failed", 7: "running"}.get(number, "done"), started=number, lr=rate, width=width,
                    metrics={"val/acc": curve[-1], "train/loss": 0.2}, rows=rows,
                    changes={"model.lr": rate, "model.width": width, "trial": trial},
                    maps=[np.eye(3) * 0.5 + epoch / 10 for epoch in range(3)] if trial == 0 else (),
                )  # fmt: skip
                number += 1
    return folder


@pytest.fixture
def make(tmp_path):
    """Write a page as `Report.py html` does, and return its address."""

    def make_page(folder: Path, *options: str) -> str:
        file = tmp_path / "report.html"
        assert entrance.report(["html", str(folder), "-o", str(file), *options], tmp_path) == 0
        return file.as_uri()

    return make_page


@pytest.fixture(scope="session")
def grid(runs, tmp_path_factory):
    """The address of a page with the runs of the grid."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    assert entrance.report(["html", str(runs), "-o", str(file)], file.parent) == 0
    return file.as_uri()
