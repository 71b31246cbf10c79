"""`python forked.py PROJECT FOLDER SETTING…`: crossvalidate in a folder, with folds that are forked and not started.

Torch is imported once: to start a process for each fold takes ten times as long as to train it.
"""

import os
import sys
import time
import traceback
from pathlib import Path
from subprocess import TimeoutExpired
from types import SimpleNamespace

project, scratch, *settings = sys.argv[1:]
sys.path.insert(0, project)

import torch  # noqa: E402
from my_research_project.training import crossvalidation  # noqa: E402
from my_research_project.training.main import main  # noqa: E402
from my_research_project.training.run import run  # noqa: E402, F401

torch.set_num_threads(1)


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

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise TimeoutExpired("fit", timeout)


crossvalidation.subprocess = SimpleNamespace(Popen=Forked, TimeoutExpired=TimeoutExpired)  # there alone

if __name__ == "__main__":
    os.chdir(scratch)
    sys.exit(main(["crossvalidate", *settings], root=Path(project)))
