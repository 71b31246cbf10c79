"""The tutorial on sweeps, typed command by command: without W&B, and with its real client and a stand-in server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import blocks, commands, named_file

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "sweep.md"
FILE = "configs/sweeps/small.yaml"
FEWER = {FILE: ("run_cap: 20", "run_cap: 2"), "configs/base.yaml": ("epochs: 10", "epochs: 1")}
ID = "team/project/ID"  # on the page; W&B gives each sweep its own
IN_WANDB = (["CreateSweep.py", FILE], ["SweepAgent.py", ID])
# What the commands print, by a word of theirs.
LOCAL = {
    "--dry-run": "metric val/loss_best is logged",
    "--local": "local sweep: sweeps/small",
    "small": "trial 1: done",
    "--status": "2 of 2 trials have ended",
    "html": "small.html: 2 runs",
    "table": "val/loss",
}


@pytest.fixture
def mine(project, tmp_path) -> Path:
    """A project with the page's file, and shorter trials."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    for written in ("runs", "sweeps"):  # by other tests of the session
        shutil.rmtree(folder / written, ignore_errors=True)
    for _, content in blocks(PAGE.read_text(encoding="utf-8")):
        if name := named_file(content):
            (folder / name).write_text(content)
    for name, (many, few) in FEWER.items():
        replace(folder / name, many, few)
    return folder


def replace(file: Path, shown: str, typed: str) -> None:
    text = file.read_text()
    assert shown in text
    file.write_text(text.replace(shown, typed))


def on_the_page() -> list[list[str]]:
    """All commands of the page."""
    shown = blocks(PAGE.read_text(encoding="utf-8"))
    return [words for _, content in shown for words, _ in commands(content)]


def types(folder: Path, *words: str) -> str:
    """Type a command; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_a_sweep_without_wandb(mine):
    here = [words for words in on_the_page() if words not in IN_WANDB]
    assert len(here) == len(LOCAL)
    for words, (part, printed) in zip(here, LOCAL.items(), strict=True):
        assert part in words and printed in types(mine, *words)
    assert len(list(mine.glob("runs/small/*/metrics.csv"))) == 2 and (mine / "small.html").exists()


def test_a_sweep_in_wandb(mine, server, key, wandb_env):
    wandb_env.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")
    create, (program, _) = (words for words in on_the_page() if words in IN_WANDB)
    # The stand-in draws nothing: it goes through values.
    replace(mine / FILE, "{distribution: log_uniform_values, min: 1.0e-4, max: 3.0e-2}", "{values: [0.001, 0.003]}")
    replace(mine / FILE, "[8, 16, 32]", "[8]")

    said = types(mine, *create)
    (sweep,) = server.sweeps
    named = next(word for word in said.split() if word.endswith(f"/{sweep}") and "://" not in word)
    types(mine, program, named)
    assert [run.state for run in server.sweep.runs.values()] == ["finished", "finished"]
    assert all(run.summary["val/loss_best"] > 0 for run in server.runs.values()) and len(server.runs) == 2
