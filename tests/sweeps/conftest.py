"""A project whose Train.py is quick (objective.py), and programs that run its sweeps."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from package.launch.local_sweep import LocalSweep
from package.launch.sweep_file import Sweep, checked

AGENT = """import sys
from pathlib import Path
from package.launch.agent import main
sys.exit(main(sys.argv[1:], root=Path(__file__).resolve().parent))
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The project's folder."""
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "base.yaml").write_text(yaml.safe_dump(dict(x=0.0, y=0.0, steps=3, pause=0.01)))
    shutil.copy(Path(__file__).with_name("objective.py"), root / "Train.py")
    (root / "SweepAgent.py").write_text(AGENT)
    return root


def sweep(**config) -> Sweep:
    """A sweep's file with the metric of objective.py."""
    return Sweep(checked({"metric": {"name": "loss", "goal": "minimize"}, **config}, "bowl"), Path("bowl.yaml"))


@pytest.fixture
def create(tiny: Path) -> Callable[..., LocalSweep]:
    return lambda **config: LocalSweep.create(sweep(**config), tiny)


@pytest.fixture
def agent(tiny: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts an agent; what is left of agents at the end is killed."""
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, str(tiny / "SweepAgent.py"), *arguments]
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
