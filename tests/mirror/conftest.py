"""Runs that are stopped on one machine and continued on another: folders of runs that have only a mirror in common."""

import json
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

LONGER = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=4", "--checkpoints.every_n_steps=2")


class Machine:
    """A folder of runs, and what has become of the run in it."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    @property
    def folder(self) -> Path:
        (folder,) = [file.parent for file in self.runs.glob("*/*/config.yaml")]
        return folder

    @property
    def status(self) -> dict:
        return json.loads((self.folder / "status.json").read_text())


@pytest.fixture
def mirror(tmp_path) -> Path:
    """A mirror that is a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture
def fit_on(train, tmp_path, mirror, monkeypatch):
    """Runs `fit` on a machine of some name, with the mirror, and lets it notice a signal at some training batch."""
    from lightning_hpc import signals
    from lightning_hpc.survive.checkpoints import Checkpoints

    start = Checkpoints.on_train_batch_start

    def fit(
        machine: str, *arguments: str, stop_at: int | None = None, reason: str = "preempted"
    ) -> tuple[int, Machine]:
        def at_some_batch(self, trainer, *batch):
            if trainer.fit_loop.total_batch_idx == stop_at:
                patch.setattr(signals, "received", lambda: reason)
            start(self, trainer, *batch)

        typed = [argument.split("=")[0] for argument in arguments]
        url = [] if "--mirror.url" in typed else [f"--mirror.url=file://{mirror}"]
        runs = tmp_path / machine
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_start", at_some_batch)
            run = train("fit", *LONGER, *url, f"--runs_dir={runs}", *arguments)
        return run.code, Machine(runs)

    return fit


@pytest.fixture
def address(mirror) -> str:
    """The address of that mirror."""
    return f"file://{mirror}"


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that has begun, without a training."""
    from fake_run import make_run

    return make_run(tmp_path / "here" / "000-base-01234567")
