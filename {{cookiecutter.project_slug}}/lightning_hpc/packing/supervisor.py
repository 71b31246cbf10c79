"""Looks after the runs of a pack: starts them one after the other, hands on signals, and waits for all of them."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..processes import Child
from ..runs.owner import restarts
from ..settings.errors import SettingsError
from ..signals import REASONS, on_signal
from .packs import Pack, read_pack
from .shares import command_in_step, environment_of_run

STAGGER = 1.0  # seconds between two starts, so that not all load their packages and data in the same moment

LOOK = 0.5  # seconds between two looks at the runs


class Supervisor:
    """Runs the runs of one pack side by side, each with its own log and exit code. The end of one ends no other.

    Args:
        folder: the experiment's folder.
        number: the pack.
        command: the command of a run, by its index.
        has_ended: called when a run's process has ended; True if the run is done or has failed, False if it goes on
            when the job is back from the queue.
    """

    def __init__(
        self, folder: Path, number: int, command: Callable[[int], list[str]], has_ended: Callable[[int], bool]
    ) -> None:
        self.folder, self.number = folder, number
        self.command, self.has_ended = command, has_ended
        self.children: dict[int, Child] = {}
        self.signal: signal.Signals | None = None  # the last one: from then on no more runs are started

    def run(self) -> Pack:
        """Run what is left of the pack to its end; returns the pack as it is then."""
        pack = read_pack(self.folder, self.number)
        self.note(replace(pack, unstarted=pack.left))
        on_signal(self.hand_on)
        with ExitStack() as started:
            for index in self.pack.left:
                if self.signal is not None:
                    break
                try:
                    self.start(index, started)
                except OSError as error:  # no reason to end the others
                    print(f"error: run {index} could not be started: {error}", file=sys.stderr, flush=True)
                self.note(self.pack.begun(index))
                if index not in self.children:
                    self.note_end(index)
                self.look_after(time.monotonic() + STAGGER)
            self.look_after(float("inf"))
        return self.pack

    def start(self, index: int, started: ExitStack) -> None:
        """Start one of the runs; what it prints goes to its own log, as in a job of its own."""
        log = self.folder / "logs" / f"{index}.log"
        output = started.enter_context(log.open("ab"))
        note_start(self.folder, index, log)

        slot, size = self.pack.runs.index(index), self.pack.size
        command = command_in_step(self.command(index), slot, size, os.environ)
        environment = environment_of_run(size, os.environ)
        child = Child(command, environment, grace=float("inf"), output=output)  # SLURM says when its time is over
        self.children[index] = started.enter_context(child)
        print(f"run {index}: started, see {log}", flush=True)
        if self.signal is not None:  # it came in this moment
            self.tell(child, self.signal)

    def look_after(self, end: float) -> None:
        """Wait for runs to end, until a moment, or until none is left."""
        while self.children and time.monotonic() < end:
            for index, child in list(self.children.items()):
                code = child.wait(0)
                if code is None:
                    continue
                del self.children[index]
                goes_on = not self.note_end(index)
                print(f"run {index}: exit code {code}{', to go on' if goes_on else ''}", flush=True)
            time.sleep(max(0.0, min(LOOK, end - time.monotonic())))

    def note_end(self, index: int) -> bool:
        """Note how one of the runs stands whose process has ended; returns True if it has ended for good."""
        try:
            for_good = self.has_ended(index)
        except (OSError, SettingsError) as error:  # `finish` looks again, when the others have ended
            print(f"warning: how run {index} has ended is not known: {error}", file=sys.stderr, flush=True)
            return False
        if for_good:
            self.note(self.pack.without(index))
        return for_good

    def note(self, pack: Pack) -> None:
        """Write down how the pack is now; a full disk ends none of its runs."""
        self.pack = pack
        try:
            pack.write(self.folder, self.number)
        except OSError as error:
            print(f"warning: pack {self.number} could not be written: {error}", file=sys.stderr, flush=True)

    def hand_on(self, number: signal.Signals) -> None:
        """Hand on a signal, and start no more runs."""
        self.signal = number
        message = f"{number.name}: {REASONS[number]}, the runs save and stop\n"
        os.write(2, message.encode())  # a handler may have interrupted a print()
        for child in list(self.children.values()):
            self.tell(child, number)

    def tell(self, child: Child, number: signal.Signals) -> None:
        """Hand on a signal to a run, if it does not get it anyway.

        A step gets SIGTERM from SLURM itself, as every process of the job does. srun takes it for the wish to kill the
        step at once, without time to save: so it is handed on to plain processes only.
        """
        if number == signal.SIGUSR1 or "SLURM_JOB_ID" not in os.environ:
            child.hand_on(number)


def note_start(folder: Path, index: int, log: Path) -> None:
    """Note which job runs a run now, and its log, as the batch file of a single run does."""
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    lines = [os.environ.get("SLURM_JOB_ID", ""), str(restarts()), node, str(log)]
    (folder / "logs" / f".job-{index}").write_text("\n".join(lines) + "\n", encoding="utf-8")
