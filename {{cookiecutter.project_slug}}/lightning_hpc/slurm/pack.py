"""The runs of a pack inside their job: run them, and put the job back into the queue while one of them is to go on."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..arrays.put_back import COMES_BACK
from ..packing.packs import Pack, read_pack
from ..packing.supervisor import Supervisor
from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.run import Run, read_command_line
from ..settings.command_line import take_options
from .after_run import make_room, put_runs_back, state_after


def run_pack(arguments: argparse.Namespace, root: Path) -> int:
    """`pack`: run what is left of a pack, called by the batch file; how it ended is asked by `finish_pack`."""
    folder = arguments.run.resolve()
    train = [sys.executable, "-u", str(root / "Train.py"), "fit", "--run", str(folder), "--index"]

    def has_ended(index: int) -> bool:
        return state_after(run_of(folder, index, root)) not in COMES_BACK

    Supervisor(folder, arguments.pack, lambda index: [*train, str(index)], has_ended).run()
    return 0


def run_of(folder: Path, index: int, root: Path) -> Run:
    """A run of an experiment, by its index."""
    return read_command_line("fit", ["--run", str(folder), "--index", str(index)], root)


def finish_pack(
    arguments: Sequence[str], root: Path, max_requeues: int, resubmit: Path | None = None, sliced: str | None = None
) -> int:
    """Put a pack back into the queue if one of its runs is to go on; else submit the next wave if it is due.

    What the supervisor has not seen, because it was killed or never began, is looked at here.

    Args:
        arguments: the experiment and the number of the pack, as the batch file has them.
        root: the folder of the code.
        max_requeues, resubmit, sliced: see `end_of_run`.

    Returns:
        the job's exit code: 0 only if all runs of the pack are done.
    """
    folders, rest = take_options(arguments, "--run")
    numbers, _ = take_options(rest, "--pack")
    folder, number = Path(folders[0]), int(numbers[0])
    pack = read_pack(folder, number)

    stopped: dict[RunFolder, str] = {}
    for index in pack.left:
        run = run_of(folder, index, root)
        state = "preempted" if index in pack.unstarted else state_after(run, sliced)
        if state in COMES_BACK:
            stopped[run.folder] = state
        else:
            pack = pack.without(index)
    replace(pack, unstarted=[]).write(folder, number)

    if not stopped:
        make_room(arguments)
        return exit_code(pack, folder, root)
    state = "time limit" if "time limit" in stopped.values() else "preempted"
    return put_runs_back(stopped, state, arguments, max_requeues, resubmit)


def exit_code(pack: Pack, folder: Path, root: Path) -> int:
    """What the job of a pack ends with when nothing is left of it."""
    states = {run_of(folder, index, root).folder.status().get("state") for index in pack.runs}
    return EXIT_CODES["done" if states == {"done"} else "failed"]
