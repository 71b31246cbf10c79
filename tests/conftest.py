"""What every test of the template shares.

No Python file of the machine room or of the researcher's package holds a template marker, so their modules are
imported, linted and tested where they stand: `lightning_hpc` from the project's folder, and `model`, `networks` and
`data` by their own names, since the name of the folder they are in is a Jinja expression.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from baked import project, train  # noqa: F401
from chromium import browser  # noqa: F401
from hypothesis import settings
from private_sshd import sshd  # noqa: F401
from small_disk import small_disk  # noqa: F401
from told_slurm import told  # noqa: F401
from webhook import webhook  # noqa: F401

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
PACKAGE = TEMPLATE / "{{cookiecutter.package_name}}"

# Compiled files beside the modules would be copied into every project that is generated from this folder.
sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "template-pycache")

PATHS = [str(TEMPLATE), str(PACKAGE)]
sys.path[:0] = PATHS
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))
for name in [name for name in os.environ if name.startswith(("WANDB_", "SLURM_", "SBATCH_"))]:
    del os.environ[name]  # what the machine has set must not leak into the tests
os.environ["WANDB_MODE"] = "disabled"

# An example may take as long as it likes: on a busy machine a deadline fails tests that are right.
settings.register_profile("template", deadline=None)
settings.register_profile("mutation", deadline=None, max_examples=10, database=None)  # tests/mutation
settings.load_profile("template")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with SLURM's tests: they mostly wait, and meanwhile the other processes have the cores.

    The first of all are those that share minutes of preparation, so that they are not shared out between processes.
    """

    def place(item: pytest.Item) -> int:
        if item.path.name == "test_survival.py":
            return 0
        return 1 if item.path.is_relative_to(ROOT / "tests" / "slurm") else 2

    items.sort(key=place)
