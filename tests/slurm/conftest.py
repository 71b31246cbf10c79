"""A private SLURM and a generated project to submit from, both shared by the tests of a session."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from private_slurm import PrivateSlurm, missing
from submitted import Project

# Its training steps take as long as a test needs, without a trace in the results; it can also fail. Only the first
# attempts take long: the rest of a run that is disturbed is not waited for.
SLOW_MODEL = """\
import os
import time

from my_research_project.model import Classifier


class Slow(Classifier):
    def __init__(self, *args, pause: float = 0.0, pauses: int = 1, fails: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("RESUBMITTED") or 0)
        self.pause, self.fails = pause if restarts < pauses else 0.0, fails

    def training_step(self, batch, batch_idx):
        if self.fails:
            raise RuntimeError("this run fails on purpose")
        if self.global_rank == 0:  # the other rank then waits in an all-reduce
            time.sleep(self.pause * float(os.environ.get("PAUSE", 1)))
        return super().training_step(batch, batch_idx)
"""
QUICK = {
    "cka": None,
    "trainer": {"max_epochs": 1, "limit_train_batches": 10, "limit_val_batches": 1, "accelerator": "cpu"},
    "model": {"class_path": "slow.Slow"},
}


@pytest.fixture(scope="session")
def slurm() -> Iterator[PrivateSlurm]:
    """The daemons. Without them the tests are skipped, but fail in continuous integration."""
    if absent := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no SLURM here: {', '.join(absent)} not found")
    with PrivateSlurm() as running:
        yield running


@pytest.fixture(scope="session")
def project(project: Path, slurm: PrivateSlurm, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A default project with a quick configuration and the model above."""
    folder = tmp_path_factory.mktemp("users") / "Zoë's 100% §1"
    shutil.copytree(project, folder)
    (folder / "slow.py").write_text(SLOW_MODEL)
    (folder / "configs" / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    slurm.environment |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "HOME": str(folder.parent)}
    slurm.environment.pop("PYTHONPATH", None)  # `package`, which only the template's other tests need
    return Project(folder, slurm)


@pytest.fixture(autouse=True)
def nothing_left(slurm: PrivateSlurm) -> Iterator[None]:
    """No job survives its test."""
    yield
    slurm.clear()
