"""`python Report.py cka` on runs of a generated project."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from baked import project, train  # noqa: F401


@pytest.fixture
def report(project, monkeypatch):  # noqa: F811
    specification = importlib.util.spec_from_file_location("Report", project / "Report.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


def test_one_run_two_runs_and_checkpoints(train, report, tmp_path, capsys):  # noqa: F811
    a, b = train("fit").folder, train("fit", "--trial=1").folder
    assert report(["cka", str(a)]) == 0
    assert "picture: cka.png, numbers: cka.npz" in capsys.readouterr().out
    data = np.load(tmp_path / "cka.npz")
    np.testing.assert_allclose(data["matrix"].diagonal(), 1, atol=1e-6)
    assert data["samples"] == 360 and (tmp_path / "cka.png").exists()

    last = str(a / "checkpoints" / "last.ckpt")
    arguments = ["--layers", "block1.*", "head.2", "--max_batches", "2", "--output", "maps/a-b.png"]
    assert report(["cka", last, str(b), *arguments]) == 0
    data = np.load(tmp_path / "maps" / "a-b.npz")
    assert data["rows"].tolist() == data["columns"].tolist() == [*(f"block1.{i}" for i in range(7)), "head.2"]
    assert data["samples"] == 128 and str(data["column_label"]) == str(b)
    assert 0 < data["matrix"][-1, -1] < 0.999, "two seeds give two networks"


def test_errors_are_one_line(train, report, tmp_path, capsys):  # noqa: F811
    assert report(["cka", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    run = train("fit").folder
    assert report(["cka", str(run), "--layers", "blok1.0"]) == 2
    assert "no layer of ConvNet matches 'blok1.0'; nearest: block1.0" in capsys.readouterr().err.splitlines()[-1]


def test_help_has_examples_and_is_quick(project):  # noqa: F811
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "Report.py", "cka", "--help"], cwd=project, capture_output=True, text=True
    )
    assert result.returncode == 0 and "Report.py cka RUN_A RUN_B --layers" in result.stdout
    assert " torch\n" not in result.stderr
