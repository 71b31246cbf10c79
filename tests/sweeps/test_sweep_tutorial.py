"""The tutorial on sweeps, typed command by command, as far as it goes without W&B's server."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import blocks, commands, named_file

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "sweep.md"
FEWER = {"configs/sweeps/small.yaml": ("run_cap: 20", "run_cap: 2"), "configs/base.yaml": ("epochs: 10", "epochs: 1")}
# In W&B; tests/wandb has such sweeps, with the real client and a stand-in for the server.
IN_WANDB = (["CreateSweep.py", "configs/sweeps/small.yaml"], ["SweepAgent.py", "team/project/ID"])
PRINTED = {
    "--dry-run": "metric val/loss_best is logged",
    "--local": "local sweep: sweeps/small",
    "small": "trial 1: done",
    "--status": "2 of 2 trials have ended",
    "html": "small.html: 2 runs",
    "table": "val/loss",
}


def test_a_sweep_without_wandb(project, tmp_path):
    mine = tmp_path / "project"
    shutil.copytree(project, mine)
    for written in ("runs", "sweeps"):  # by other tests of the session
        shutil.rmtree(mine / written, ignore_errors=True)
    shown = [content for _, content in blocks(PAGE.read_text(encoding="utf-8"))]
    for content in shown:
        if name := named_file(content):
            (mine / name).write_text(content)
    for name, (many, few) in FEWER.items():
        file = mine / name
        assert many in file.read_text()
        file.write_text(file.read_text().replace(many, few))

    typed = [words for content in shown for words, _ in commands(content)]
    assert all(words in typed for words in IN_WANDB)
    here = [words for words in typed if words not in IN_WANDB]
    assert len(here) == len(PRINTED)
    for words, (part, printed) in zip(here, PRINTED.items(), strict=True):
        done = subprocess.run([sys.executable, *words], cwd=mine, capture_output=True, text=True)
        assert part in words and done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        assert printed in done.stdout + done.stderr
    assert len(list(mine.glob("runs/small/*/metrics.csv"))) == 2 and (mine / "small.html").exists()
