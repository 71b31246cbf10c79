"""The sweeps in configs/sweeps: every value is one that Train.py takes, and the metric is one that is logged."""

from pathlib import Path

import pytest

from lightning_hpc.entrance import create_sweep as main

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = sorted(path.name for path in (ROOT / "configs" / "sweeps").iterdir())


@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweep_is_right(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([sweep, "--dry-run"], ROOT) == 0
