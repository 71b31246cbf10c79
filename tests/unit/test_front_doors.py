"""What a user's code may import from the machine room: every name is there, is described, and costs nothing before."""

import importlib
import subprocess
import sys

import pytest

ROOMS = tuple(f"lightning_hpc.{room}" for room in ("training", "data", "trackers", "cka", "results"))

# Help and planning look into these rooms for classes that configurations name. CKA is only imported to be used.
LAZY = ROOMS[:3]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there_and_described(room):
    module = importlib.import_module(room)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        public = getattr(module, name)
        assert public.__doc__, f"{room}.{name} has no docstring"
        assert public.__name__ == name
        assert name in dir(module)


def test_a_models_imports_are_those_of_the_pages():
    from lightning_hpc.data import DataModule, Source, fetch_all  # noqa: F401
    from lightning_hpc.trackers import Comet, MLflow, WandB  # noqa: F401
    from lightning_hpc.training import EMA, SWA, StopOnDivergence, WarmupCosine, configure_optimizers  # noqa: F401


@pytest.mark.parametrize("room", LAZY)
def test_a_name_that_is_not_there_is_an_error_that_says_so(room):
    with pytest.raises(AttributeError, match=f"{room} has no attribute Nothing"):
        getattr(importlib.import_module(room), "Nothing")  # noqa: B009


def test_the_rooms_alone_import_no_torch():
    program = f"import sys, {', '.join(LAZY)}; assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
