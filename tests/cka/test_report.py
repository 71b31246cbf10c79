"""`python Report.py cka` on runs of a generated project."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_hpc import entrance
from lightning_hpc.report.commands import map_of


@pytest.fixture
def report(project):
    """Runs Report.py in this process."""
    return lambda argv: entrance.report(argv, project)


def test_one_run_two_runs_and_checkpoints(train, report, tmp_path, capsys):
    a, b = train("fit").folder, train("fit", "--trial=1").folder
    assert report(["cka", str(a)]) == 0
    assert f"picture: {a}/cka/best.png, numbers: {a}/cka/best.npz" in capsys.readouterr().out
    data = np.load(a / "cka" / "best.npz")
    np.testing.assert_allclose(data["matrix"].diagonal(), 1, atol=1e-6)
    assert data["samples"] == 360 and (a / "cka" / "best.png").exists()
    assert not list(tmp_path.glob("*.png")), "where the command was typed, nothing appears"

    last = str(a / "checkpoints" / "last.ckpt")
    arguments = ["--layers", "block1.*", "head.2", "--max_batches", "2", "--output", "maps/a-b.png"]
    assert report(["cka", last, str(b), *arguments]) == 0
    data = np.load(tmp_path / "maps" / "a-b.npz")
    assert data["rows"].tolist() == data["columns"].tolist() == [*(f"block1.{i}" for i in range(7)), "head.2"]
    assert data["samples"] == 128 and str(data["column_label"]) == str(b)
    assert 0 < data["matrix"][-1, -1] < 0.999, "two seeds give two networks"


@pytest.mark.parametrize(
    "other, name",
    [
        (None, "last"),
        ("runs/x/001-b", "last-and-001-b"),
        ("runs/x/000-a/checkpoints/best.ckpt", "last-and-best"),
        ("runs/x/001-b/checkpoints/best.ckpt", "last-and-best-of-001-b"),
    ],
)
def test_a_map_is_named_after_what_it_shows(tmp_path, monkeypatch, other, name):
    monkeypatch.chdir(tmp_path)
    for run in ("000-a", "001-b"):
        Path("runs/x", run).mkdir(parents=True)
    checkpoint = Path("runs/x/000-a/checkpoints/last.ckpt")
    assert map_of(checkpoint, other and Path(other)) == Path("runs/x/000-a/cka", f"{name}.png")


def test_errors_are_one_line(train, report, tmp_path, capsys):
    assert report(["cka", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    run = train("fit").folder
    assert report(["cka", str(run), "--layers", "blok1.0"]) == 2
    assert "no layer of ConvNet matches 'blok1.0'; nearest: block1.0" in capsys.readouterr().err.splitlines()[-1]


def test_help_has_examples_and_is_quick(project):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "Report.py", "cka", "--help"], cwd=project, capture_output=True, text=True
    )
    assert result.returncode == 0 and "Report.py cka RUN_A RUN_B --layers" in result.stdout
    assert " torch\n" not in result.stderr
