"""A project whose Train.py is quick (objective.py), and programs that run its sweeps."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lightning_hpc.sweeps.local_sweep import LocalSweep
from lightning_hpc.sweeps.sweep_file import Sweep, read_specification

DOOR_FILE = """import sys
from pathlib import Path
from lightning_hpc.entrance import DOOR as main
sys.exit(main(sys.argv[1:], root=Path(__file__).resolve().parent))
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The project's folder."""
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "base.yaml").write_text(yaml.safe_dump(dict(x=0.0, y=0.0, steps=3, pause=0.01)))
    shutil.copy(Path(__file__).with_name("objective.py"), root / "Train.py")
    (root / "SweepAgent.py").write_text(DOOR_FILE.replace("DOOR", "sweep_agent"))
    (root / "CreateSweep.py").write_text(DOOR_FILE.replace("DOOR", "create_sweep"))
    return root


def sweep(**config) -> Sweep:
    """A sweep's file with the metric of objective.py."""
    content = {"metric": {"name": "loss", "goal": "minimize"}, **config}
    return Sweep(read_specification(content, "bowl"), Path("bowl.yaml"))


@pytest.fixture
def create(tiny: Path) -> Callable[..., LocalSweep]:
    return lambda **config: LocalSweep.create(sweep(**config), tiny)


@pytest.fixture
def start(tiny: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a program of the project; what is left of programs at the end is killed."""
    started = []

    def start(program: str, *arguments: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, str(tiny / program), *arguments]
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def agent(start) -> Callable[..., subprocess.Popen]:
    """Starts an agent."""
    return functools.partial(start, "SweepAgent.py")
