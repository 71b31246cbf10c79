"""Help, planning and mistakes answer at once: torch takes seconds to import, so it comes only when something trains."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "torchmetrics", "wandb", "matplotlib", "pandas", "scipy", "sklearn", "transformers")

PROBE = f"""
import sys
{{code}}
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def loaded(code, folder):
    """Which heavy packages a piece of code imports in a fresh Python; its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, cwd=folder, timeout=600
    )
    assert "loaded:" in done.stderr, done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split()), done


MAIN = "from pathlib import Path; from lightning_hpc.entrance import train as main; code = main({argv!r}, Path())"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_needs_no_torch(argv, tmp_path):
    heavy, done = loaded(MAIN.format(argv=argv), tmp_path)
    assert heavy == set()
    assert all(command in done.stdout for command in ("fit", "validate", "test", "predict", "--config", "examples:"))


@pytest.mark.parametrize(
    "argv, message",
    [
        (["fti"], "error: unknown command fti (did you mean fit?); see python Train.py --help\n"),
        (["fit", "--config", "away.yaml"], "error: no such settings file: away.yaml\n"),
        (["test", "--run", "away"], "error: --run away is not a run's folder: it has no config.yaml\n"),
    ],
)
def test_wrong_usage_is_answered_without_torch(argv, message, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text("name: default\n")
    heavy, done = loaded(MAIN.format(argv=argv) + "; assert code == 2", tmp_path)
    assert heavy == set()
    assert done.stderr.startswith(message)


def test_planning_needs_no_torch(tmp_path):
    heavy, _ = loaded("from lightning_hpc.planning import plan; from lightning_hpc.slurm import command_line", tmp_path)
    assert heavy == set()
