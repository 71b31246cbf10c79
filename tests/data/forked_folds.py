"""Cross-validations, one undisturbed and one killed again and again: `python forked_folds.py PROJECT FOLDER SETTING…`.

A program of its own that imports torch once and forks what it kills: starting a process for each fold takes ten times
as long as training it. Writes FOLDER/ends.json: the exit codes of the killed ones.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

project, scratch, *settings = sys.argv[1:]
sys.path.insert(0, project)

import torch  # noqa: E402
from my_research_project.training import crossvalidation, signals  # noqa: E402
from my_research_project.training.main import main  # noqa: E402
from my_research_project.training.run import run  # noqa: E402, F401

KILLS = ((0, 6, signal.SIGKILL), (1, 4, signal.SIGTERM), (1, 10, signal.SIGUSR1))  # fold, step, signal


class Forked:
    """Stands for subprocess.Popen of `python Train.py …` in crossvalidation.py."""

    def __init__(self, command, env):
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.environ.clear()
                os.environ.update(env)
                code = main(command[2:], root=Path(project))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


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
    torch.set_num_threads(1)
    crossvalidation.subprocess = SimpleNamespace(Popen=Forked)  # there alone
    whole, killed = (Path(scratch, name) for name in ("whole", "killed"))
    for folder in (whole, killed):
        folder.mkdir()
    assert end(start(whole)) == 0
    ends = []
    for fold, step, kill in KILLS:
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
