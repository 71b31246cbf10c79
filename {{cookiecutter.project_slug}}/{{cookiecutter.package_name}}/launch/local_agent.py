"""The agent of local sweeps: takes a trial, runs Train.py, watches it, writes down how it ended, takes the next."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from ..runs.folder import EXIT_CODES, RunFolder
from ..training.signals import REASONS
from .early_stop import should_stop
from .local_sweep import KILLED, SIGN_OF_LIFE, LocalSweep, Trial
from .notify import notify_once
from .processes import GRACE, die_with_parent, trial_environment

POLL = 1.0  # seconds between two looks at the run
SECONDS_TO_EXIT = 60.0  # for a process whose run has ended


class LocalAgent:
    """Runs trials of a local sweep until there are no more.

    Args:
        local: the sweep.
        root: the project's folder.
        count: most trials; None: no limit.
    """

    def __init__(self, local: LocalSweep, root: Path, count: int | None = None) -> None:
        self.local, self.root, self.count = local, root, count
        self.slot = slot()
        self.reason: str | None = None  # why to leave, once a signal has come
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run trials; returns the exit code."""
        for number in REASONS:
            signal.signal(number, self.leave)
        ended, failed = 0, 0
        while self.reason is None and (self.count is None or ended < self.count):
            claimed = self.local.claim(self.slot)
            if claimed is None:
                if self.local.has_ended:
                    name = os.path.relpath(self.local.folder, self.root)
                    print(*notify_once(self.root, name, self.local.table().split("\n", 1)[1]), sep="\n", end="")
                break
            trial, attempt = claimed
            self.carry_out(trial, attempt)
            if result := self.local.result(trial):
                ended, failed = ended + 1, failed + 1 if result["state"] == "failed" else 0
                print(
                    f"trial {trial.index}: {result['state']}, {self.local.sweep.metric} {result['value']}", flush=True
                )
            if failed == 3 and ended == 3:
                print("error: the first three trials have failed: see their runs' logs", file=sys.stderr)
                return 1
        return EXIT_CODES[self.reason] if self.reason else 0

    def leave(self, number: int, frame: FrameType | None) -> None:
        """A signal: the run saves, and no other is started."""
        if self.reason is None:
            self.reason, self.deadline = REASONS[signal.Signals(number)], time.monotonic() + GRACE
            if self.child is not None:
                with contextlib.suppress(ProcessLookupError):
                    # A cross-validation leaves Ctrl-C to the terminal, which tells all of its processes.
                    term = number == signal.SIGINT and self.local.sweep.verb != "fit"
                    self.child.send_signal(signal.SIGTERM if term else number)

    def carry_out(self, trial: Trial, attempt: int) -> None:
        """One attempt of a trial, to its end or until we have to leave."""
        chosen = self.local.parameters(trial)
        if chosen is None:
            return trial.end(state="failed", value=None, reason="the space has no other point", run=None)
        runs = self.local.run_folders(chosen["overlay"])
        for run in runs:
            self.wait_until_free(trial, attempt, run)
        if self.reason:
            return trial.leave(attempt, self.reason)
        arguments = self.local.sweep.arguments(chosen["overlay"])
        print(f"trial {trial.index}, attempt {attempt}: {' '.join(arguments)}", flush=True)
        code, stopped = self.watch(trial, attempt, runs[0], [self.local.sweep.verb, *arguments])
        # Of a cross-validation, the first fold that is not done says how it stands.
        run = next((run for run in runs if run.status().get("state") != "done"), runs[0])
        state, values = run.status().get("state"), self.local.history(run.path)
        result = dict(value=values[-1] if values else None, run=str(run.path), reason=None)
        if stopped:
            trial.end(**result | dict(state="stopped"))
        elif self.reason and state != "done" and code not in (1, 2):  # saved, or killed while it was still starting
            trial.leave(attempt, self.reason)
        elif state == "done" and (values or self.local.sweep.metric is None):
            trial.end(**result | dict(state="done"))
        elif state == "done":
            trial.end(**result | dict(state="failed", reason=f"the run logs no {self.local.sweep.metric}"))
        elif code < 0:
            trial.leave(attempt, KILLED)
        else:
            reason = run.status().get("reason") or f"exit code {code}"
            trial.end(**result | dict(state="failed", reason=reason))

    def wait_until_free(self, trial: Trial, attempt: int, run: RunFolder) -> None:
        """Wait for another process that runs these settings: an attempt whose agent was killed, or somebody by hand."""
        while (run.path / ".lock").exists() and self.reason is None:
            try:
                FileLock(run.path / ".lock").acquire(timeout=POLL).lock.release()
            except Timeout:
                os.utime(trial.attempt(attempt))
            except (OSError, NotImplementedError):  # a file system without locks
                return
            else:
                return

    def watch(self, trial: Trial, attempt: int, run: RunFolder, arguments: list[str]) -> tuple[int, bool]:
        """Start Train.py and wait for its end; its exit code, and whether early termination has stopped it."""
        self.child = subprocess.Popen(
            [sys.executable, str(self.root / "Train.py"), *arguments],
            stdin=subprocess.DEVNULL,
            env=trial_environment(),
            process_group=0,  # Ctrl-C would reach it twice, and the second one means "at once, without saving"
            preexec_fn=die_with_parent,
        )
        if self.reason:  # the signal came while it was being started
            self.child.terminate()
        stopped, seen, ended, alive = False, 0, None, time.monotonic()
        while (code := self.child.poll()) is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(POLL)
            moment = time.monotonic()
            if moment - alive > SIGN_OF_LIFE:
                os.utime(trial.attempt(attempt))
                alive = moment
            if (early := self.local.sweep.config.get("early_terminate")) and not (stopped or self.reason):
                values = self.local.history(run.path)
                if len(values) > seen:
                    seen = len(values)
                    if should_stop(values, self.histories(trial), early, self.local.sweep.maximize):
                        self.child.terminate()
                        stopped = True
            if ended is None and run.status().get("state") not in (None, "running") and self.ours(run):
                ended = moment
            if (ended and moment - ended > SECONDS_TO_EXIT) or (self.reason and moment > self.deadline):
                self.child.kill()  # it hangs
        return code, stopped and run.status().get("state") != "done"

    def ours(self, run: RunFolder) -> bool:
        """Whether status.json was written by our child and not by an earlier attempt."""
        return self.child is not None and run.status().get("pid") == self.child.pid

    def histories(self, trial: Trial) -> list[list[float]]:
        """The metric's values of all other trials."""
        others = [other.parameters for other in self.local.trials() if other.index != trial.index]
        return [self.local.history(self.local.run_folders(each["overlay"])[0].path) for each in others if each]


def slot() -> str | None:
    """The SLURM job or array element that this agent is; it has the same name after a requeue. None without SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
