"""The entrance of the five doors: what all of them clean up before they begin, and how they end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpc import entrance
from lightning_hpc.settings.errors import SettingsError

DOORS = {
    "train": "lightning_hpc.training.commands",
    "slurm_train": "lightning_hpc.slurm.command_line",
    "create_sweep": "lightning_hpc.sweeps.creation",
    "sweep_agent": "lightning_hpc.sweeps.agent",
    "report": "lightning_hpc.report.commands",
}
TEMPLATE = Path(entrance.__file__).parents[1]


@pytest.fixture(params=DOORS)
def door(request, monkeypatch):
    """Enters one of the five doors, behind which a room does what the test says."""

    def enter(room, root):
        monkeypatch.setattr(f"{DOORS[request.param]}.main", room)
        return getattr(entrance, request.param)(["some", "words"], root)

    return enter


def test_variables_left_empty_in_env_are_not_set(door, tmp_path, monkeypatch):
    """`WANDB_MODE=`, as .env.example has it, is no mode: W&B refuses it, in a place where that is a traceback."""
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_ENTITY", "")
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    seen = {}

    def room(argv, root, *more):
        seen.update(os.environ)
        return 0

    assert door(room, tmp_path) == 0
    assert "WANDB_MODE" not in seen and "WANDB_ENTITY" not in seen
    assert seen["WANDB_PROJECT"] == "ours"


def test_a_room_gets_its_command_line_and_its_code_is_that_of_the_door(door, tmp_path):
    def room(argv, root, *more):
        assert argv == ["some", "words"] and root == tmp_path
        return 75

    assert door(room, tmp_path) == 75


def test_a_mistake_is_one_line(door, tmp_path, capsys):
    def room(*arguments):
        raise SettingsError("lr: expected a number, got abc")

    assert door(room, tmp_path) == 2
    assert capsys.readouterr().err == "error: lr: expected a number, got abc\n"


def test_ctrl_c_is_one_line(door, tmp_path, capsys):
    def room(*arguments):
        raise KeyboardInterrupt

    assert door(room, tmp_path) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_mistakes_that_rooms_with_torch_find_are_one_line_too(tmp_path, capsys):
    from lightning_hpc.cka import CKAError
    from lightning_hpc.survive.checkpoint_files import CheckpointError

    for error in (CKAError("no layer matches"), CheckpointError("no checkpoint")):

        def room(argv, root, error=error):
            raise error

        assert entrance.enter(room, [], tmp_path) == 2
        assert capsys.readouterr().err == f"error: {error}\n"


def test_any_other_error_is_one_line_first_and_keeps_its_traceback(door, tmp_path, capsys):
    def room(*arguments):
        raise ZeroDivisionError("in a step\nof the user's")

    assert door(room, tmp_path) == 1
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert first == "error: ZeroDivisionError: in a step of the user's"
    assert second == "Traceback (most recent call last):" and last == "of the user's"


def test_what_the_file_system_refuses_is_one_line(door, tmp_path, capsys):
    def room(*arguments):
        os.close(os.open("/dev/full", os.O_WRONLY))
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"a result")

    assert door(room, tmp_path) == 1
    assert capsys.readouterr().err == "error: a file: No space left on device\n"


@pytest.mark.parametrize(
    "variables, shown",
    [
        (dict(LC_ALL="C", PYTHONIOENCODING="ascii"), "0.5 +- 0.1, 2 x 3... Zo? ?"),
        (dict(PYTHONIOENCODING="latin-1"), "0.5 ± 0.1, 2 × 3... Zoë ?"),
        (dict(PYTHONIOENCODING="utf-8"), "0.5 ± 0.1, 2 × 3… Zoë ?"),
    ],
)
def test_no_encoding_of_the_output_ends_a_command(variables, shown):
    """The last character is half of a file's name that is no UTF-8, as Python holds it."""
    program = "import sys; from pathlib import Path; from lightning_hpc import entrance\n"
    program += "text = '0.5 \\xb1 0.1, 2 \\xd7 3\\u2026 Zo\\xeb \\udcff'\n"
    program += "def room(argv, root):\n    print(text)\n    print(text, file=sys.stderr)\n    return 0\n"
    program += "sys.exit(entrance.enter(room, [], Path()))"
    environment = os.environ | variables | dict(PYTHONPATH=str(TEMPLATE))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.returncode == 0
    encoding = variables["PYTHONIOENCODING"]
    assert done.stdout.decode(encoding) == done.stderr.decode(encoding) == f"{shown}\n"


def test_a_reader_that_has_gone_away_is_no_traceback():
    program = "import sys; from pathlib import Path; from lightning_hpc import entrance\n"
    program += "def room(argv, root):\n    print('x' * 1_000_000)\n    return 0\n"
    program += "sys.exit(entrance.enter(room, [], Path()))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 141  # as a shell says of a program that a closed pipe has ended


@pytest.mark.parametrize("closed", ["1", "0 1 2"])
def test_closed_outputs_lead_nowhere(tmp_path, closed):
    """As by `>&-`: no traceback, and what a program prints is not in the file that was opened next."""
    program = "import os, sys; from pathlib import Path; from lightning_hpc import entrance\n"
    program += "def room(argv, root):\n    with open('file', 'w') as file:\n        os.system('echo of another')\n"
    program += "        print('of ours')\n        file.write('whole')\n    return 0\n"
    program += "sys.exit(entrance.enter(room, [], Path()))"
    redirections = " ".join(f"{number}>&-" for number in closed.split())
    shell = ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, program]
    done = subprocess.run(shell, env=os.environ | dict(PYTHONPATH=str(TEMPLATE)), cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("name", ["Train", "SlurmTrain", "CreateSweep", "SweepAgent", "Report"])
def test_a_door_shows_help_without_torch(name):
    """The files beside the user's own only call these functions; to load torch would take seconds."""
    program = f"import runpy, sys; sys.argv = ['{name}.py', '--help']; code = None\n"
    program += f"try:\n    runpy.run_path({str(TEMPLATE / name)!r} + '.py', run_name='__main__')\n"
    program += "except SystemExit as end:\n    code = end.code\n"
    program += "assert not code and 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"python {name}.py" in done.stdout


def test_sockets_of_workers_stay_short_where_the_folder_for_temporary_files_is_long(tmp_path):
    folder = tmp_path / ("job-" + "x" * 90)
    folder.mkdir()
    program = (
        "import tempfile; from multiprocessing.connection import Listener; from lightning_hpc import entrance\n"
        "entrance.keep_sockets_short()\n"
        "with Listener(family='AF_UNIX') as listener: print(listener.address)\n"
        "print(tempfile.gettempdir())"
    )
    environment = os.environ | dict(TMPDIR=str(folder), PYTHONPATH=str(TEMPLATE))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    address, temporary = done.stdout.splitlines()
    assert address.startswith("/tmp/pymp-") and temporary == str(folder), done.stderr
    assert not Path(address).parent.exists()


def test_a_folder_that_is_too_long_is_said_where_there_is_no_other(tmp_path, monkeypatch):
    long = str(tmp_path / ("x" * 100))
    monkeypatch.setattr(entrance.tempfile, "tempdir", long)
    monkeypatch.setattr(entrance, "SHORT_FOLDER", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="TMPDIR is too long .* set TMPDIR to a folder of less than 75 characters"):
        entrance.keep_sockets_short()
    assert entrance.tempfile.tempdir == long
