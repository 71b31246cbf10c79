"""The specifications in configs/jobs: each can be planned, and Train.py accepts its runs."""

from pathlib import Path

import pytest

from lightning_hpc.planning.plan import plan
from lightning_hpc.planning.specification import read_specification
from lightning_hpc.settings.parser import check_all

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "jobs").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_specification_can_be_planned_and_its_runs_are_accepted(file: Path):
    found = plan(read_specification(file), ROOT)
    assert len({run.identity for run in found.runs}) == len(found.runs) > 0
    some = found.runs[:: max(1, len(found.runs) // 5)]  # reading one takes a moment; `submit` reads them all
    check_all((str(run), found.settings_of(run)) for run in some)
