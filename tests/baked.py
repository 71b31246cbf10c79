"""One default project, generated once per process of the tests, whose commands run in that process.

tests/conftest.py alone imports these fixtures: each place that does makes one more project, and Python would take the
user's modules from the first one while a test writes into another.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from clean_copy import clean_copy


class Run:
    """A finished command of Train.py: its exit code and the newest run folder, with what is in it."""

    def __init__(self, code: int, folder: Path | None) -> None:
        self.code = code
        self.folder = folder

    @property
    def status(self) -> dict:
        return json.loads((self.folder / "status.json").read_text())

    @property
    def config(self) -> dict:
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def column(self, name: str) -> list[float]:
        """All values of a metric, in order."""
        return [float(row[name]) for row in self.rows if row.get(name)]

    def checkpoint(self, name: str = "last") -> dict:
        import torch

        return torch.load(self.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a default project."""
    from cookiecutter.main import cookiecutter

    place = tmp_path_factory.mktemp("baked")
    template = clean_copy(place / "template")
    folder = Path(cookiecutter(str(template), no_input=True, output_dir=place))
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture
def train(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Runs `Train.py COMMAND …` in this process, with its runs in tmp_path/runs; quick unless told otherwise."""
    import torch

    from lightning_hpc import signals
    from lightning_hpc.entrance import train as main

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu", "--cka=null"]

    def run(command: str, *arguments: str, defaults: bool = False) -> Run:
        typed = [argument.split("=")[0] for argument in arguments]
        shorter = [] if defaults or "--run" in typed else [a for a in quick if a.split("=")[0] not in typed]
        signals.reset()
        here = [] if "--run" in typed or "--runs_dir" in typed else ["--runs_dir=runs"]
        code = main([command, *here, *shorter, *arguments], root=project)
        folders = sorted(tmp_path.glob("runs/*/*/status.json"), key=lambda file: os.stat(file).st_mtime_ns)
        return Run(code, folders[-1].parent if folders else None)

    yield run
