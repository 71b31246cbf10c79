"""A warm parent: what it forks is a run like any other, to the bit, and nobody is left when something is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from same import unequal

import lightning_hpc
from lightning_hpc.processes import Child, has_not_ended
from lightning_hpc.warm import Warm

QUICK = (
    "--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.accelerator=cpu", "--cka=null",
    "--trainer.logger=false", "--trainer.enable_model_summary=false",
)  # fmt: skip
LONG = ("--trainer.max_epochs=9999", "--trainer.accelerator=cpu", "--cka=null", "--trainer.logger=false")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are started as new programs")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def warm(project, environment):
    """One for all tests of this file: it loads torch once."""
    with Warm(project) as parent:
        assert parent.get_ready(environment)
        yield parent


def started(warm: Warm | None, project: Path, environment: dict[str, str], folder: Path, *settings: str) -> Child:
    """A run in this folder."""
    command = [sys.executable, str(project / "Train.py"), "fit", f"--runs_dir={folder}", *settings]
    return Child(command, environment, warm=warm)


def status_in(folder: Path) -> dict:
    """status.json of the only run in a folder; {} before there is one."""
    files = list(folder.glob("*/*/status.json"))
    return json.loads(files[0].read_text()) if files else {}


def wait_for_step(child: Child, folder: Path) -> None:
    """Wait until a run has logged something."""
    end = time.monotonic() + 300
    while not any(file.stat().st_size > 60 for file in folder.glob("*/*/metrics.csv")):
        assert child.wait(0.02) is None and time.monotonic() < end


def test_a_forked_run_is_equal_to_the_bit_to_one_that_is_started(warm, project, environment, tmp_path):
    folders = [tmp_path / name for name in ("forked", "again", "started")]
    for folder in folders:
        parent = None if folder.name == "started" else warm
        with started(parent, project, environment, folder, *QUICK) as child:
            assert child.wait(300) == 0
        status = status_in(folder)
        assert (status["state"], status["exit_code"], status["pid"]) == ("done", 0, child.pid)

    checkpoints = [torch.load(next(folder.glob("*/*/checkpoints/last.ckpt"))) for folder in folders]
    assert not list(unequal(checkpoints[0], checkpoints[2], "forked"))
    assert not list(unequal(checkpoints[1], checkpoints[2], "again"))
    runs = [next(folder.glob("*/*")).name for folder in folders]
    assert runs[0] == runs[1] == runs[2]


def test_what_is_wrong_has_its_exit_code_and_its_line(project, environment, tmp_path):
    """In a process of its own, whose outputs are the run's."""
    program = f"""
import os, sys
from pathlib import Path
from lightning_hpc.processes import Child
from lightning_hpc.warm import Warm
with Warm(Path({str(project)!r})) as warm:
    assert warm.get_ready(os.environ)
    for arguments in (["fit", "--model.network.widht=3"], ["--help"]):
        with Child([sys.executable, {str(project / "Train.py")!r}, *arguments], warm=warm) as child:
            print("exit code", child.wait(300), flush=True)
"""
    environment = environment | {"PYTHONPATH": str(project)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "error: " in ran.stderr and "width" in ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.startswith("exit code")] == ["exit code 2", "exit code 0"]
    assert "usage: python Train.py" in ran.stdout


@pytest.mark.parametrize(
    "number, code, state", [(signal.SIGTERM, 75, "preempted"), (signal.SIGKILL, -signal.SIGKILL, "running")]
)
def test_signals_are_those_of_a_program(warm, project, environment, tmp_path, number, code, state):
    with started(warm, project, environment, tmp_path, *LONG) as child:
        assert os.getpgid(child.pid) == child.pid  # out of the terminal's reach
        wait_for_step(child, tmp_path)
        child.send(number)
        assert child.wait(120) == code
    assert status_in(tmp_path)["state"] == state


def test_a_file_that_has_changed_or_another_environment_means_a_new_program(warm, project, environment):
    command = [sys.executable, str(project / "Train.py"), "--help"]
    assert warm.fork(command, {**environment, "OMP_NUM_THREADS": "2"}) is None
    assert warm.fork([sys.executable, str(project / "Report.py"), "--help"], environment) is None

    file = project / "lightning_hpc" / "signals.py"
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert warm.fork(command, environment) is None
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert warm.get_ready(environment)  # a new parent


def test_a_parent_whose_files_change_while_it_loads_them_forks_nothing(environment, tmp_path):
    """It has the old code then, and a run would note the new one."""
    shutil.copytree(Path(lightning_hpc.__file__).parent, tmp_path / "lightning_hpc")
    program = """
import os
import socket
from lightning_hpc.warm import serve

looks = []
def edited_at_the_second_look():
    looks.append(1)
    if len(looks) == 2:
        with open("lightning_hpc/training/fit.py", "a") as file:
            file.write("# edited\\n")
    return 1

def said(connection, ready):
    print("can fork" if ready else "can't fork", flush=True)
    os._exit(0)

serve.number_of_threads, serve.say = edited_at_the_second_look, said
serve.serve(socket.socketpair()[0].detach(), False)
"""
    paths = {**environment, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert told.stdout.strip() == "can't fork", told.stderr


def test_when_the_parent_is_killed_its_run_saves_and_ends(warm, project, environment, tmp_path):
    with started(warm, project, environment, tmp_path, *LONG) as child:
        wait_for_step(child, tmp_path)
        os.kill(int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert child.wait(120) == -signal.SIGKILL  # nobody knows the exit code
        assert not has_not_ended(child.pid)
    status = status_in(tmp_path)
    assert (status["state"], status["exit_code"]) == ("preempted", 75) and status["step"] > 0


def test_a_train_py_that_is_another_program_is_never_forked(tmp_path, environment):
    (tmp_path / "Train.py").write_text("print('mine')\n")
    with Warm(tmp_path) as parent:
        assert not parent.get_ready(environment)
        assert parent.fork([sys.executable, str(tmp_path / "Train.py")], environment) is None
