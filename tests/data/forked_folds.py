"""Cross-validations, one undisturbed and one killed again and again: `python forked_folds.py PROJECT FOLDER SETTING…`.

Writes FOLDER/ends.json, the exit codes of the killed ones, and FOLDER/attempts.json.
"""

import json
import os
import signal
import time
from pathlib import Path

from forked import COMMAND, project, scratch, warm

from lightning_hpc import processes

KILLS = ((0, 6, signal.SIGKILL), (1, 4, signal.SIGTERM), (1, 10, signal.SIGUSR1))  # fold, step, signal


def start(folder):
    """A cross-validation in a process group of its own, as a batch system would end all of it."""
    os.chdir(folder)
    return warm.Forked(COMMAND, process_group=0)


def step_of(folder, fold):
    """The newest checkpoint of a fold."""
    files = folder.glob(f"runs/cv/*fold={fold},*/checkpoints/step-*.ckpt")
    return max((int(file.stem[5:]) for file in files), default=0)


if __name__ == "__main__":
    warm.warm_up(project)
    processes.subprocess = warm.stand_in
    whole, killed = (Path(scratch, name) for name in ("whole", "killed"))
    for folder in (whole, killed):
        folder.mkdir()
    assert start(whole).wait() == 0
    ends = []
    for fold, step, kill in KILLS:
        # A step that this attempt has made: a process that is only starting does not take notice yet.
        step = max(step, step_of(killed, fold) + 2)
        process, deadline = start(killed), time.monotonic() + 600
        while step_of(killed, fold) < step:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, kill) if kill == signal.SIGKILL else os.kill(process.pid, kill)
        ends.append(process.wait())
    Path(scratch, "attempts.json").write_text(
        json.dumps([json.loads(file.read_text())["attempt"] for file in sorted(killed.glob("runs/cv/*/status.json"))])
    )
    ends.append((killed / "runs" / "cv" / "cross-validation.json").exists())
    ends.append(start(killed).wait())
    Path(scratch, "ends.json").write_text(json.dumps(ends))
