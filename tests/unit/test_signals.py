"""Programs that are started, told of signals, and killed if they don't end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lightning_hpc.processes import Child, children, has_not_ended, trial_environment
from lightning_hpc.runs.folder import EXIT_CODES
from lightning_hpc.signals import on_signal

# Says that it is ready, then ends with code 3 at SIGTERM; at SIGUSR1 it does nothing.
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a program, and waits until it has printed something."""
    started = []

    def start(program: str, **options) -> Child:
        log = tmp_path / f"{len(started)}.txt"
        with log.open("wb") as output:
            child = Child([sys.executable, "-c", program], output=output, **options)
        started.append(child)
        end = time.monotonic() + 600
        while not log.read_text() and time.monotonic() < end:
            time.sleep(0.01)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_a_signal_is_handed_on_and_the_exit_code_is_that_of_the_child(start):
    child = start(POLITE)
    assert child.wait(0.01) is None
    child.hand_on(signal.SIGTERM)
    assert child.wait() == 3 and child.reason == "preempted" and child.exit_code(EXIT_CODES) == 3
    child.hand_on(signal.SIGTERM)  # nothing happens once it has ended


def test_one_that_does_not_end_is_killed_with_its_children_after_the_grace(start):
    program = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {POLITE!r}])\n{POLITE}"
    child = start(program, grace=0.2)
    (grandchild,) = children(child.pid)
    child.hand_on(signal.SIGUSR1)
    assert child.wait() == -signal.SIGKILL
    assert child.exit_code(EXIT_CODES) == EXIT_CODES["time limit"]
    end = time.monotonic() + 600
    while has_not_ended(grandchild):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, 137), (signal.SIGHUP, 129)])
def test_a_signal_from_elsewhere_gives_the_exit_code_of_a_shell(start, number, code):
    child = start(POLITE)
    child.send(number)
    assert child.wait() == -number and child.exit_code(EXIT_CODES) == code


def test_a_child_is_killed_at_the_end_of_its_block(start):
    with start(POLITE) as child:
        pass
    assert child.wait() == -signal.SIGKILL


def test_a_child_is_asked_to_end_when_its_parent_is_killed(tmp_path):
    log = tmp_path / "log.txt"
    polite = POLITE.replace("sys.exit(3)", f"(open({str(tmp_path / 'asked')!r}, 'w').close(), sys.exit(3))")
    parent = (
        "import sys; from lightning_hpc.processes import Child\n"
        f"Child([sys.executable, '-c', {polite!r}], output=open({str(log)!r}, 'wb')).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    end = time.monotonic() + 600
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    while not (tmp_path / "asked").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_a_child_in_our_group_is_reached_by_the_terminal(start):
    assert os.getpgid(start(POLITE).pid) != os.getpgid(0)
    assert os.getpgid(start(POLITE, own_group=False).pid) == os.getpgid(0)


def test_a_callback_hears_of_the_signals_that_ask_to_end():
    heard = []
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        on_signal(heard.append)
        for number in numbers:
            os.kill(os.getpid(), number)
        assert heard == list(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_trial_is_no_task_of_slurm_and_finds_this_python(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    environment = trial_environment()
    assert "SLURM_PROCID" not in environment and environment["SLURM_JOB_ID"] == "7"
    assert environment["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)


PROGRAM = """
import os, signal, sys, threading, time
from lightning_hpc import signals
signals.PATIENCE = 0.3
signals.install(at_once=lambda state, reason: print(state, reason, flush=True) or 75)
def send(number, after=0.2):
    threading.Timer(after, os.kill, (os.getpid(), number)).start()
try:
    {}
except signals.Stopped as stopped:
    print("stopped:", stopped.reason, flush=True)
"""


def outcome(code):
    """What a program with our handlers prints, and its exit code."""
    program = PROGRAM.format(code.strip().replace("\n", "\n    "))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    return done.stdout, done.returncode


def test_before_the_first_batch_a_signal_ends_what_waits():
    assert outcome("send(signal.SIGTERM)\ntime.sleep(600)") == ("stopped: preempted\n", 0)
    waits_for_a_lock = "send(signal.SIGUSR1)\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    assert outcome(waits_for_a_lock) == ("stopped: time limit\n", 0)


def test_errors_that_are_tried_again_do_not_swallow_it():
    tries_again = """
send(signal.SIGTERM)
while True:
    try:
        time.sleep(600)
    except Exception:
        print("again")
"""
    assert outcome(tries_again) == ("stopped: preempted\n", 0)


def test_a_run_that_waits_for_its_next_batch_ends_after_some_patience():
    waits = "signals.received()\nsend(signal.SIGTERM, 0)\nread, write = os.pipe()\nos.read(read, 1)"
    assert outcome(waits) == ("stopped: preempted\n", 0)


def test_one_that_no_signal_reaches_is_ended_with_its_state_written():
    """As in a library that waits for other ranks: Python's handlers don't get their turn."""
    hangs = """
import ctypes
signals.received()
signal.raise_signal(signal.SIGUSR1)
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
"""
    text, code = outcome(hangs)
    assert text == "time limit ended without saving: no batch for 0 s after the signal\n" and code == 75


def test_a_run_that_looks_or_saves_in_time_is_left_alone():
    looks = """
signals.received()
signal.raise_signal(signal.SIGTERM)
with signals.undisturbed():
    time.sleep(0.9)
print(signals.received())
time.sleep(0.9)
"""
    assert outcome(looks) == ("preempted\n", 0)


def test_a_closed_terminal_is_like_sigterm_and_nohup_still_works():
    assert outcome("send(signal.SIGHUP)\ntime.sleep(600)") == ("stopped: preempted\n", 0)
    program = "from lightning_hpc import signals; import signal; signals.install(); signal.raise_signal(signal.SIGHUP)"
    program += "; print(signals.received())"
    ignoring = f"trap '' HUP; exec {sys.executable} -c \"{program}\""
    done = subprocess.run(["sh", "-c", ignoring], capture_output=True, text=True, timeout=600)
    assert done.stdout == "None\n"


def test_a_terminal_that_has_gone_does_not_disturb_the_handler(tmp_path):
    """The other end of the terminal is closed: each write to it is an error."""
    result = tmp_path / "result"
    program = (
        "import os, signal; from lightning_hpc import signals\n"
        "signals.install(); signal.raise_signal(signal.SIGTERM); print('to nobody', flush=True)\n"
        f"open({str(result)!r}, 'w').write(str(signals.received()))"
    )
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; sleep 0.3; exec "$0" -c "$1"', sys.executable, program],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert process.wait(600) == 0 and result.read_text() == "preempted"
