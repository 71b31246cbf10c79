"""Sweeps in W&B: create, continue, and run as an agent. All of it goes through W&B's own programs.

`python -m lightning_hpc.sweeps.wandb_sweeps SWEEP [COUNT]` is W&B's agent, as `python -m wandb agent` starts it, with
an exit code that tells a sweep that has ended from one that the agent has given up.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ..private_names import check_wandb
from ..processes import GRACE, Child, adopt_orphans, children, descendants, kill, trial_environment
from ..runs.folder import EXIT_CODES
from ..runs.prior_runs import place_of
from ..runs.run import read_command_line
from ..settings.errors import SettingsError
from ..signals import REASONS, on_signal
from .sweep_file import Sweep

CREATE_TIMEOUT = 120.0  # seconds; W&B's program tries for ever to reach a server

WAITS = (5, 20, 60, 180)  # seconds before W&B's agent is started again after it has broken down

LASTING = 600.0  # seconds after which a breakdown counts as the first one again

LOOK = 0.2  # seconds between two looks at processes

# Exit codes of the agent's program, beside 0 and those of a breakdown.
GAVE_UP, NO_SUCH_SWEEP = 3, 4

# Modes in which W&B's server is not called.
SILENT_MODES = ("offline", "dryrun", "disabled")


def has_key() -> bool:
    """True if W&B's client would find a key, without asking anybody for it."""
    check_wandb()
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.wbauth import read_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=wandb_setup.singleton().settings.base_url))


def check_online() -> None:
    """Check that runs here are recorded in W&B: a sweep there learns only from them.

    Raises:
        SettingsError: W&B is offline or disabled here.
    """
    check_wandb()
    from wandb.sdk import wandb_setup

    mode = wandb_setup.singleton().settings.mode
    if mode in SILENT_MODES:
        raise SettingsError(
            f"W&B is {mode} here, and a sweep in W&B would hear nothing of its runs: unset WANDB_MODE (or type "
            "`wandb online`), or sweep without W&B: CreateSweep.py --local",
            page="sweeps.md#in-five-minutes",
        )


def plain_id(sweep: str) -> str:
    """Return ENTITY/PROJECT/ID, PROJECT/ID or ID of a sweep in W&B, also from the address of its page.

    Raises:
        SettingsError: it is none of these.
    """
    parts = [part for part in urlsplit(sweep).path.split("/") if part]

    # A page is ENTITY/PROJECT/sweeps/ID on any host; what follows is one of its tabs.
    if "sweeps" in parts[2:]:
        place = parts.index("sweeps", 2)
        parts = [*parts[place - 2 : place], *parts[place + 1 : place + 2]]
    elif "://" in sweep:
        parts = []

    if not 1 <= len(parts) <= 3:
        raise SettingsError(f"{sweep} is no sweep in W&B: write ENTITY/PROJECT/ID, or paste the address of its page")
    return "/".join(parts)


def create_in_wandb(sweep: Sweep, root: Path) -> tuple[str, str]:
    """Create a sweep in W&B.

    Returns:
        its id, ENTITY/PROJECT/ID, and its address.

    Raises:
        SettingsError: W&B refuses or does not answer.
    """
    config = {"program": "Train.py", **sweep.for_wandb()}

    # Project and entity are those of the configured logger, which a sweep's file need not repeat.
    first_run = read_command_line("fit", sweep.arguments({}), root)
    for key, value in place_of(first_run.settings.flat).items():
        config.setdefault(key, value)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        options = [f"--{key}={config[key]}" for key in ("project", "entity") if config.get(key)]
        answer = run_wandb("sweep", *options, str(file))

    sweep_id = re.search(r"wandb agent (\S+)", answer)
    if sweep_id is None:
        raise SettingsError(f"W&B has not created the sweep: {last_line(answer)}")
    address = re.search(r"View sweep at: .*?(https?://[^\s\x1b]+)", answer)
    return sweep_id[1], address[1] if address else ""


def resume_in_wandb(sweep_id: str) -> None:
    """Let a sweep that was paused or stopped hand out runs again.

    Raises:
        SettingsError: W&B is offline here, refuses or does not answer.
    """
    check_online()
    run_wandb("sweep", "--resume", sweep_id)


def run_wandb(*arguments: str) -> str:
    """Run W&B's program and return what it prints.

    Raises:
        SettingsError: it refuses, or does not answer.
    """
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
    """Return the last line with something in it, without colours and W&B's prefix."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    lines = [line for line in plain.splitlines() if line.strip()]
    if not lines:
        return "it says nothing"
    return re.sub(r"^(wandb: )?(ERROR )?", "", lines[-1])


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
        self.sweep_id = sweep_id
        self.command = [sys.executable, "-m", __name__, sweep_id]
        if count:
            self.command.append(str(count))
        self.waits, self.grace = waits, grace
        self.reason: str | None = None  # why to leave, once a signal has come
        self.deadline = float("inf")  # when what is left is killed
        self.child: Child | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="sweep-agent-")
        self.note = Path(self.folder.name) / "leaving"

    def run(self) -> int:
        """Run until the sweep ends, the count is reached or a signal comes; returns the exit code.

        Raises:
            SettingsError: W&B has no such sweep.
        """
        on_signal(self.leave)
        adopt_orphans()
        failures = 0
        while self.reason is None:
            started = time.monotonic()
            code = self.run_child()
            self.wait_for_orphans()
            if code == 0 or self.reason:
                break
            if code == NO_SUCH_SWEEP:
                raise SettingsError(f"W&B has no sweep {self.sweep_id}: it was deleted, or its id is another")
            if code == GAVE_UP:
                reason = "run after run has failed here, so W&B's agent has given up; the sweep has not ended"
                print(f"error: {reason}. See the errors of the runs above", file=sys.stderr)
                return 1

            # One that has worked for a while has not failed before.
            lasted = time.monotonic() - started
            failures = 1 if lasted > LASTING else failures + 1
            if failures > len(self.waits):
                print(f"error: W&B's agent has broken down {failures} times: see above", file=sys.stderr)
                return 1

            pause = self.waits[failures - 1]
            print(f"W&B's agent has broken down (code {code}): starting it again in {pause} s")
            self.sleep(pause)
        return EXIT_CODES[self.reason] if self.reason else 0

    def run_child(self) -> int:
        """Start W&B's agent and wait for its end; returns its exit code."""
        environment = trial_environment() | {"SWEEP_AGENT_LEAVING": str(self.note)}
        # It must not hear of our death by itself: its run would take that for the sweep's wish, and be finished.
        self.child = Child(self.command, environment, dies_with_parent=False, grace=self.grace)
        if self.reason is not None:  # the signal came while it was being started
            self.child.hand_on(signal.SIGTERM)
        while (code := self.child.wait(LOOK)) is None:
            pass
        return code

    def leave(self, number: signal.Signals) -> None:
        """Handle a signal: let the run save, and start no other. What hangs is killed after the grace."""
        if self.reason is not None:
            return
        self.reason, self.deadline = REASONS[number], time.monotonic() + self.grace
        self.note.touch()  # before the signal: the run looks for it, see trackers/wandb_runs.py

        if self.child is not None:
            self.child.hand_on(number)
            if number != signal.SIGTERM:  # the run counts the first one, the agent needs this one to end
                self.child.send(signal.SIGTERM)

        # A run whose agent has gone is our child too.
        for pid in children(os.getpid()):
            if self.child is None or pid != self.child.pid:
                kill(pid, number)

    def wait_for_orphans(self) -> None:
        """Wait for a run whose agent has gone: it ends by itself, and tells W&B so."""
        if children(os.getpid()):
            print("W&B's agent has gone, its run is still there: waiting for it")
        with contextlib.suppress(ChildProcessError):
            while True:
                ended, _ = os.waitpid(-1, os.WNOHANG)
                if ended:
                    continue
                if time.monotonic() > self.deadline:
                    for pid in descendants(os.getpid()):
                        kill(pid)
                time.sleep(LOOK)

    def sleep(self, seconds: float) -> None:
        """Wait, but not after a signal."""
        end = time.monotonic() + seconds
        while self.reason is None and time.monotonic() < end:
            time.sleep(min(LOOK, seconds))


class GivingUp(logging.Handler):
    """Notes whether W&B's agent says that it ends because of runs that have failed; its exit code does not say so."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = self.seen or record.getMessage().endswith("shutting down.")


def run_program(sweep_id: str, count: int | None = None) -> int:
    """Run W&B's agent in this process, until it ends; returns the program's exit code."""
    import wandb

    giving_up = GivingUp()
    logging.getLogger("wandb.wandb_agent").addHandler(giving_up)
    try:
        wandb.agent(sweep_id, count=count, forward_signals=True)
    except Exception as error:  # W&B's client has half a dozen kinds without a common parent
        reason = f"{type(error).__name__}: {last_line(str(error))}"
        print(f"W&B's agent has broken down: {reason}", file=sys.stderr)
        is_missing = re.search("sweep.*not ?found", reason, re.IGNORECASE)
        return NO_SUCH_SWEEP if is_missing else 1
    return GAVE_UP if giving_up.seen else 0


if __name__ == "__main__":
    sys.exit(run_program(sys.argv[1], *map(int, sys.argv[2:])))
