"""Cross-validations, one undisturbed and one killed again and again: `python forked_folds.py PROJECT FOLDER SETTING…`.

Writes FOLDER/ends.json, the exit codes of the killed ones, and FOLDER/attempts.json.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from forked import main, project, scratch, settings
from my_research_project.training import signals

KILLS = ((0, 6, signal.SIGKILL), (1, 4, signal.SIGTERM), (1, 10, signal.SIGUSR1))  # fold, step, signal


def start(folder):
    """A cross-validation in a session of its own, as a batch system would end all of it."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        signals.reset()
        code = main(["crossvalidate", *settings], root=Path(project))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def step_of(folder, fold):
    """The newest checkpoint of a fold."""
    files = folder.glob(f"runs/cv/*fold={fold},*/checkpoints/step-*.ckpt")
    return max((int(file.stem[5:]) for file in files), default=0)


if __name__ == "__main__":
    whole, killed = (Path(scratch, name) for name in ("whole", "killed"))
    for folder in (whole, killed):
        folder.mkdir()
    assert end(start(whole)) == 0
    ends = []
    for fold, step, kill in KILLS:
        # A step that this attempt has made: a process that is only starting does not take notice yet.
        step = max(step, step_of(killed, fold) + 2)
        pid, deadline = start(killed), time.monotonic() + 120
        while step_of(killed, fold) < step:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(pid, kill) if kill == signal.SIGKILL else os.kill(pid, kill)
        ends.append(end(pid))
    Path(scratch, "attempts.json").write_text(
        json.dumps([json.loads(file.read_text())["attempt"] for file in sorted(killed.glob("runs/cv/*/status.json"))])
    )
    ends.append((killed / "runs" / "cv" / "cross-validation.json").exists())
    ends.append(end(start(killed)))
    Path(scratch, "ends.json").write_text(json.dumps(ends))
