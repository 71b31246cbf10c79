"""What all tests share: one thread, no W&B, and runs in temporary folders."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models are quicker so, and repeatable on any machine

ROOT = Path(__file__).parents[1]


class Run:
    """A finished command of Train.py: its exit code, and its run's folder with what is in it."""

    def __init__(self, code: int, folder: Path | None) -> None:
        self.code = code
        self.folder = folder

    @property
    def status(self) -> dict:
        return json.loads((self.folder / "status.json").read_text())


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs `Train.py COMMAND …` in this process, quickly: two epochs of two batches unless told otherwise."""
    from lightning_hpc.entrance import train as main

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as if the tests' own files lay next to Train.py
    quick = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu", "--cka=null"]

    def run(command: str, *arguments: str) -> Run:
        shorter = [] if "--run" in arguments else [a for a in quick if a.split("=")[0] not in arguments]
        here = [] if "--run" in arguments else ["--runs_dir=runs"]  # in tmp_path, not in the project's folder
        code = main([command, *here, *shorter, *arguments], root=ROOT)
        folders = sorted(tmp_path.glob("runs/*/*/status.json"), key=lambda file: file.stat().st_mtime)
        return Run(code, folders[-1].parent if folders else None)

    yield run
    for name in [name for name in sys.modules if name.startswith("written_by_a_test")]:
        del sys.modules[name]
