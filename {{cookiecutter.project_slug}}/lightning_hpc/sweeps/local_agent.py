"""The agent of local sweeps: takes a trial, runs Train.py, watches it, writes down how it ended, takes the next."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

from ..locks import Locked, locked
from ..notify import notify_once
from ..processes import Child, trial_environment
from ..runs.folder import EXIT_CODES, RunFolder
from ..signals import REASONS, on_signal
from ..warm import Warm
from .local_sweep import LocalSweep
from .search import should_stop
from .trial import KILLED, Trial

POLL = 1.0  # seconds between two looks at the run

SIGN_OF_LIFE = 30.0  # seconds between two

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
        self.leaving: signal.Signals | None = None  # the signal that asks this agent to leave
        self.child: Child | None = None
        self.warm = Warm(root)

    @property
    def reason(self) -> str | None:
        """Why this agent has to leave; None while it need not."""
        return None if self.leaving is None else REASONS[self.leaving]

    def run(self) -> int:
        """Run trials; returns the exit code."""
        on_signal(self.leave)
        with self.warm:
            return self.run_trials()

    def run_trials(self) -> int:
        """Take trials and carry them out; returns the exit code."""
        ended, failed = 0, 0
        while self.reason is None and (self.count is None or ended < self.count):
            claimed = self.local.claim(self.slot)
            if claimed is None:
                self.tell_the_end()
                break

            trial, attempt = claimed
            self.carry_out(trial, attempt)
            if result := self.local.result(trial):
                ended += 1
                failed += result["state"] == "failed"
                metric = self.local.sweep.metric
                print(f"trial {trial.index}: {result['state']}, {metric} {result['value']}", flush=True)

            # What fails from the start on is no matter of the settings that are tried.
            if failed == 3 and ended == 3:
                print("error: the first three trials have failed: see their runs' logs", file=sys.stderr)
                return 1
        return EXIT_CODES[self.reason] if self.reason else 0

    def tell_the_end(self) -> None:
        """Send the message that the sweep has ended, if it has: other agents may still run trials."""
        if self.local.has_ended:
            name = os.path.relpath(self.local.folder, self.root)
            trials = self.local.table().split("\n", 1)[1]
            print(*notify_once(self.root, name, trials), sep="\n", end="")

    def leave(self, number: signal.Signals) -> None:
        """Handle a signal: the run saves, and no other is started."""
        if self.leaving is None:
            self.leaving = number
            if self.child is not None:
                self.child.hand_on(self.signal_for_run(number))

    def signal_for_run(self, number: signal.Signals) -> signal.Signals:
        """Return the signal that a run gets: a cross-validation leaves Ctrl-C to the terminal, which is not its own."""
        if number == signal.SIGINT and self.local.sweep.verb != "fit":
            return signal.SIGTERM
        return number

    def carry_out(self, trial: Trial, attempt: int) -> None:
        """Run one attempt of a trial, to its end or until we have to leave, and write down how it ended."""
        parameters = self.local.choose(trial)
        if parameters is None:
            return trial.end(state="failed", value=None, reason="the space has no other point", run=None)

        runs = self.local.run_folders(parameters["overlay"])
        for run in runs:
            self.wait_until_free(trial, attempt, run)
        if self.reason:
            return trial.leave(attempt, self.reason)

        arguments = self.local.sweep.arguments(parameters["overlay"])
        print(f"trial {trial.index}, attempt {attempt}: {shlex.join(arguments)}", flush=True)
        code, stopped = self.watch(trial, attempt, runs[0], [self.local.sweep.verb, *arguments])
        self.write_outcome(trial, attempt, runs, code, stopped)

    def write_outcome(self, trial: Trial, attempt: int, runs: list[RunFolder], code: int, stopped: bool) -> None:
        """Write down how an attempt ended: with a result, or so that the trial is continued later.

        Args:
            trial, attempt: which one.
            runs: the folders of its run, or of its folds.
            code: the exit code of Train.py.
            stopped: whether early termination has ended it.
        """
        # Of a cross-validation, the first fold that is not done says how it stands.
        unfinished = [run for run in runs if run.status().get("state") != "done"]
        run = (unfinished or runs)[0]
        values = self.local.history(run.path)
        result = dict(value=values[-1] if values else None, run=str(run.path), reason=None)

        if stopped:
            trial.end(**result, state="stopped")
        elif not unfinished and (values or self.local.sweep.metric is None):
            trial.end(**result, state="done")
        elif not unfinished:
            trial.end(**{**result, "reason": f"the run logs no {self.local.sweep.metric}"}, state="failed")
        elif self.reason and code not in (1, 2):  # saved, or killed while it was still starting
            trial.leave(attempt, self.reason)
        elif code < 0:
            trial.leave(attempt, KILLED)
        else:
            reason = run.status().get("reason") or f"exit code {code}"
            trial.end(**{**result, "reason": reason}, state="failed")

    def wait_until_free(self, trial: Trial, attempt: int, run: RunFolder) -> None:
        """Wait for another process that runs these settings: an attempt whose agent was killed, or somebody by hand."""
        lock_file = run.path / ".lock"
        while lock_file.exists() and self.reason is None:
            try:
                with locked(lock_file, timeout=POLL):
                    return
            except Locked:
                trial.show_life(attempt)

    def watch(self, trial: Trial, attempt: int, run: RunFolder, arguments: list[str]) -> tuple[int, bool]:
        """Start Train.py and wait for its end.

        Returns:
            its exit code, and whether early termination has stopped it.
        """
        command = [sys.executable, str(self.root / "Train.py"), *arguments]
        environment = trial_environment()
        self.warm.get_ready(environment)
        self.child = Child(command, environment, warm=self.warm)
        if self.leaving is not None:  # the signal came while it was being started
            self.child.hand_on(signal.SIGTERM)

        stopped, values_seen, ended_at, shown_life_at = False, 0, None, time.monotonic()
        while (code := self.child.wait(POLL)) is None:
            now = time.monotonic()
            if now - shown_life_at > SIGN_OF_LIFE:
                trial.show_life(attempt)
                shown_life_at = now

            # Early termination: each time that the run has logged another value.
            early = self.local.sweep.config.get("early_terminate")
            if early and not stopped and self.reason is None:
                values = self.local.history(run.path)
                if len(values) > values_seen:
                    values_seen = len(values)
                    stopped = should_stop(values, self.histories(trial), early, self.local.sweep.maximize)
                    if stopped:
                        self.child.send(signal.SIGTERM)

            # A process that hangs after its run has ended must not keep the agent.
            if ended_at is None and self.has_ended(run):
                ended_at = now
            if ended_at is not None and now - ended_at > SECONDS_TO_EXIT:
                self.child.kill()

        # A run may have got to its end before it heard that it was to stop.
        return code, stopped and run.status().get("state") != "done"

    def has_ended(self, run: RunFolder) -> bool:
        """True if status.json says that the run has ended, and was written by our child, not by an earlier attempt."""
        status = run.status()
        ours = self.child is not None and status.get("pid") == self.child.pid
        return ours and status.get("state") != "running"

    def histories(self, trial: Trial) -> list[list[float]]:
        """Return the metric's values of all other trials."""
        histories = []
        for other in self.local.trials():
            parameters = other.parameters
            if other.index != trial.index and parameters:
                run = self.local.run_folders(parameters["overlay"])[0]
                histories.append(self.local.history(run.path))
        return histories


def slot() -> str | None:
    """Return the SLURM job or array element that this agent is, None without SLURM. It keeps it after a requeue."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
