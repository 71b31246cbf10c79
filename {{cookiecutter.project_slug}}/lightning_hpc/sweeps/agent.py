"""The entrance of SweepAgent.py: which kind of sweep it is, and where its id comes from."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..notify import notify_once
from ..runs.folder import EXIT_CODES
from ..settings.errors import SettingsError
from ..signals import REASONS, on_signal
from .local_agent import LocalAgent
from .local_sweep import LocalSweep
from .server import ask
from .wandb_sweeps import Agent, check_online, has_key, plain_id

EXAMPLES = """examples:
  python SweepAgent.py team/project/x1y2z3                      a sweep in W&B
  python SweepAgent.py sweeps/lr-width-dropout --count 5        a local sweep, five runs
  python SweepAgent.py --server http://10.0.0.5:5001            whichever sweep the server there has
  sbatch --array=1-8%4 slurm/sweep_agent.sbatch SWEEP           eight agents, four at a time

exit codes: 0 nothing left to do, 1 it could not go on, 2 wrong usage, 75 preempted and 76 time limit: start it again,
130 Ctrl-C
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line of SweepAgent.py; returns the exit code.

    Args:
        argv: the sweep and options.
        root: the project's folder.
    """
    arguments = read_arguments(argv)
    if (arguments.sweep is None) == (arguments.server is None):
        raise SettingsError("name the sweep, or where to ask for it: SWEEP or --server URL")
    if arguments.count is not None and arguments.count < 1:
        raise SettingsError(f"--count must be at least 1, got {arguments.count}")

    on_signal(end_at_once)  # until there is a run that has to save first
    sweep_id = arguments.sweep or ask(arguments.server)
    return run_agent(sweep_id, arguments.count, root)


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line: `sweep` or `server`, and `count`."""
    parser = argparse.ArgumentParser(
        prog="python SweepAgent.py",
        description="Run trials of a sweep, one after another, until it has no more. Start as many agents as you like.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="id of a W&B sweep, or the folder of a local one")
    parser.add_argument("--count", type=int, metavar="N", help="end after N runs")
    parser.add_argument("--server", metavar="URL", help="ask this sweep server for the id, and wait until it has one")
    return parser.parse_args(argv)


def end_at_once(number: signal.Signals) -> None:
    """Handle a signal while there is nothing to save."""
    sys.exit(EXIT_CODES[REASONS[number]])


def run_agent(sweep_id: str, count: int | None, root: Path) -> int:
    """Run the agent of the kind that the sweep needs; returns the exit code.

    Args:
        sweep_id: the folder of a local sweep, or the id of one in W&B.
        count: most runs; None: no limit.
        root: the project's folder.

    Raises:
        SettingsError: there is no such local sweep, and W&B has none either, or can't be asked.
    """
    if LocalSweep.exists(sweep_id, root):
        local = LocalSweep.open(sweep_id, root)
        os.chdir(root)  # runs go to the project's runs/, wherever the agent was started
        return LocalAgent(local, root, count).run()

    if not has_key():
        raise SettingsError(f"{sweep_id} is no folder of a local sweep, and there is no W&B key: run `wandb login`")
    check_online()
    sweep_id = plain_id(sweep_id)
    os.chdir(root)  # W&B's agent runs the sweep's command, in which Train.py has no folder
    code = Agent(sweep_id, count).run()

    # An agent with a count ends before the sweep does.
    if code == 0 and count is None:
        print(*notify_once(root, sweep_id, "see its page in W&B"), sep="\n", end="")
    return code
