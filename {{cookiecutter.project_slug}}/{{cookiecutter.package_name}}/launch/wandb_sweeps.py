"""Sweeps in W&B: create, continue, and run as an agent. All of it goes through W&B's own program, `python -m wandb`."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import yaml

from ..runs.folder import EXIT_CODES
from ..runs.request import request
from ..runs.settings import SettingsError
from ..training.signals import REASONS
from .processes import GRACE, adopt_orphans, children, descendants, trial_environment
from .sweep_file import Sweep
from .wandb_runs import place_of

CREATE_TIMEOUT = 120.0  # seconds; W&B's program tries for ever to reach a server
WAITS = (5, 20, 60, 180)  # seconds before W&B's agent is started again after it has broken down


def has_key() -> bool:
    """Whether W&B's client would find a key, without asking anybody for it."""
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.wbauth import read_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=wandb_setup.singleton().settings.base_url))


def create(sweep: Sweep, root: Path) -> tuple[str, str]:
    """Create a sweep.

    Returns:
        its id, ENTITY/PROJECT/ID, and its address.

    Raises:
        SettingsError: W&B refuses or does not answer.
    """
    config = {"program": "Train.py", **sweep.for_wandb()}
    for key, value in place_of(request("fit", sweep.arguments({}), root).settings.flat).items():
        config.setdefault(key, value)  # of the configured logger, which a sweep's file need not repeat
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        options = [f"--{key}={config[key]}" for key in ("project", "entity") if config.get(key)]
        said = wandb("sweep", *options, str(file))
    path, address = re.search(r"wandb agent (\S+)", said), re.search(r"View sweep at: .*?(https?://[^\s\x1b]+)", said)
    if not path:
        raise SettingsError(f"W&B has not created the sweep: {last_line(said)}")
    return path[1], address[1] if address else ""


def resume(sweep_id: str) -> None:
    """Let a sweep that was paused or stopped hand out runs again.

    Raises:
        SettingsError: W&B refuses or does not answer.
    """
    wandb("sweep", "--resume", sweep_id)


def wandb(*arguments: str) -> str:
    """Run W&B's program and return what it says."""
    command = [sys.executable, "-m", "wandb", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CREATE_TIMEOUT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"W&B has not answered for {CREATE_TIMEOUT:.0f} s: try again later, or sweep without it: --local"
        ) from None
    if done.returncode != 0:
        raise SettingsError(f"W&B refuses: {last_line(done.stderr + done.stdout)}")
    return done.stderr + done.stdout


def last_line(text: str) -> str:
    """The last line with something in it, without colours and W&B's prefix."""
    lines = [line for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines() if line.strip()]
    return re.sub(r"^(wandb: )?(ERROR )?", "", lines[-1]) if lines else "it says nothing"


class Agent:
    """W&B's agent as a child process, and what it needs to leave a cluster's node in good order.

    - It is told of SIGTERM and SIGUSR1; the run saves, tells W&B that it wants to come back, and no new one is started.
    - If it breaks down while its run goes on (a server that is away, a kill), the run is waited for.
    - Lightning must not take the agent's SLURM task for its own: it then would wait for ranks that nobody starts.

    Args:
        sweep_id: ID or ENTITY/PROJECT/ID.
        count: most runs; None: until the sweep ends.
        waits: seconds before each new start after a breakdown.
        grace: seconds that a run has to save.
    """

    def __init__(self, sweep_id: str, count: int | None, waits: Sequence[float] = WAITS, grace: float = GRACE) -> None:
        self.command = [sys.executable, "-m", "wandb", "agent", "--forward-signals"]
        self.command += [f"--count={count}", sweep_id] if count else [sweep_id]
        self.waits, self.grace = waits, grace
        self.reason: str | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="sweep-agent-")
        self.note = Path(self.folder.name) / "leaving"

    def run(self) -> int:
        """Run until the sweep ends, the count is reached or a signal comes; returns the exit code."""
        for number in REASONS:
            signal.signal(number, self.leave)
        adopt_orphans()
        env = trial_environment() | {"SWEEP_AGENT_LEAVING": str(self.note)}
        failures, code = 0, 1
        while self.reason is None:
            started = time.monotonic()
            # In a group of its own: Ctrl-C would reach it twice, and the second one means "at once, without saving".
            self.child = subprocess.Popen(self.command, env=env, stdin=subprocess.DEVNULL, process_group=0)
            code = self.child.wait()
            self.wait_for_orphans()
            if code == 0 or self.reason:
                break
            failures = 1 if time.monotonic() - started > 600 else failures + 1
            if failures > len(self.waits):
                print(f"error: W&B's agent has broken down {failures} times: see above", file=sys.stderr)
                return 1
            print(f"W&B's agent has broken down (code {code}): starting it again in {self.waits[failures - 1]} s")
            self.sleep(self.waits[failures - 1])
        return EXIT_CODES[self.reason] if self.reason else 0

    def leave(self, number: int, frame: FrameType | None) -> None:
        """A signal: let the run save, and start no other. What hangs is killed after the grace."""
        if self.reason is not None:
            return
        self.reason = REASONS[signal.Signals(number)]
        self.note.touch()  # before the signal: the run looks for it, see training/trackers.py
        signal.signal(signal.SIGALRM, lambda *_: self.kill())
        signal.setitimer(signal.ITIMER_REAL, self.grace)
        if self.child is not None and self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(number)
                if number != signal.SIGTERM:  # the run counts the first one, the agent needs this one to end
                    self.child.send_signal(signal.SIGTERM)
        for pid in children(os.getpid()):  # a run whose agent has gone
            if self.child is None or pid != self.child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """End all that is left."""
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_for_orphans(self) -> None:
        """A run whose agent has gone ends by itself, and tells W&B so."""
        if children(os.getpid()):
            print("W&B's agent has gone, its run is still there: waiting for it")
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()

    def sleep(self, seconds: float) -> None:
        """Wait, but not after a signal."""
        end = time.monotonic() + seconds
        while self.reason is None and time.monotonic() < end:
            time.sleep(min(0.2, seconds))
