"""Programs that are forked from a process which has loaded all that training needs.

To load torch, Lightning and what the parser looks at takes 14 seconds of CPU time, to train a small run less than one.
In such a process, `processes.subprocess = warm.stand_in` lets `processes.Child` fork `python FILE ARGUMENT …`.
"""

import contextlib
import gc
import io
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

from lightning_hpc import signals


class Forked:
    """Stands for subprocess.Popen of `python FILE ARGUMENT …`."""

    returncode = None

    def __init__(self, command, env=None, stdout=None, process_group=None, preexec_fn=None, **_):
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            if process_group is not None:
                os.setpgid(0, process_group)
            if preexec_fn is not None:
                preexec_fn()
            if stdout is not None:
                os.dup2(stdout.fileno(), 1)
                os.dup2(stdout.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # not pytest's
            if env is not None:
                os.environ.clear()
                os.environ.update(env)
            signals.uninstall()  # as in a new program
            signals.reset()
            code = run(command[1:])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(9)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=float("inf")):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the forked program", timeout)
            time.sleep(0.01)
        return self.returncode


def warm_up(project):
    """Train two batches of a project in this process, so that no fork has to load anything; leaves no other trace."""
    import wandb  # noqa: F401 - a fork needs it, but this run must not appear there

    from lightning_hpc.entrance import train
    from lightning_hpc.warm import Warm

    Warm.get_ready = lambda *_: False  # programs are forked from here, and from no other warm parent

    quick = "--trainer.max_epochs=1 --trainer.limit_train_batches=2 --trainer.accelerator=cpu --cka=null".split()
    quick.append("--trainer.logger=false")
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()):
            assert train(["fit", *quick], root=Path(project)) == 0
    os.environ.clear()
    os.environ.update(environment)  # Lightning keeps its seed there
    signals.uninstall()

    gc.collect()
    gc.freeze()  # a collection in a fork would copy all pages that it shares with this process


def run(argv):
    """What `python FILE ARGUMENT …` does, in this process; returns its exit code."""
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).absolute().parent))
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


stand_in = SimpleNamespace(
    Popen=Forked, TimeoutExpired=subprocess.TimeoutExpired, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
)
