"""The entrance of SweepAgent.py: which kind of sweep it is, and where its id comes from."""

import argparse
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from ..runs.folder import EXIT_CODES
from ..runs.settings import SettingsError
from ..training.signals import REASONS
from .local_sweep import LocalSweep
from .notify import notify_once

EXAMPLES = """examples:
  python SweepAgent.py team/project/x1y2z3                      a sweep in W&B
  python SweepAgent.py sweeps/lr-width-dropout --count 5        a local sweep, five runs
  python SweepAgent.py --server http://10.0.0.5:5001            whichever sweep the server there has
  sbatch --array=1-8%4 slurm/sweep_agent.sbatch SWEEP           eight agents, four at a time

exit codes: 0 nothing left to do, 1 it could not go on, 2 wrong usage, 75 preempted and 76 time limit: start it again,
130 Ctrl-C
"""
SERVER_PAUSE = 10.0  # seconds between two questions to a sweep server


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code.

    Args:
        argv: the sweep and options.
        root: the project's folder.
    """
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
    arguments = parser.parse_args(argv)
    for number in REASONS:  # until there is a run that has to save first
        signal.signal(number, lambda number, _: sys.exit(EXIT_CODES[REASONS[signal.Signals(number)]]))
    try:
        if (arguments.sweep is None) == (arguments.server is None):
            raise SettingsError("name the sweep, or where to ask for it: SWEEP or --server URL")
        if arguments.count is not None and arguments.count < 1:
            raise SettingsError(f"--count must be at least 1, got {arguments.count}")
        sweep = arguments.sweep or ask(arguments.server)
        if LocalSweep.exists(sweep, root):
            from .local_agent import LocalAgent

            local = LocalSweep.open(sweep, root)
            os.chdir(root)  # runs go to the project's runs/, wherever the agent was started
            return LocalAgent(local, root, arguments.count).run()
        from .wandb_sweeps import Agent, has_key

        if not has_key():
            raise SettingsError(f"{sweep} is no folder of a local sweep, and there is no W&B key: run `wandb login`")
        os.chdir(root)  # W&B's agent runs the sweep's command, in which Train.py has no folder
        code = Agent(sweep, arguments.count).run()
        if code == 0 and arguments.count is None:
            print(*notify_once(root, sweep, "see its page in W&B"), sep="\n", end="")
        return code
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def ask(server: str, pause: float = SERVER_PAUSE) -> str:
    """The id of the sweep that a sweep server has (server.py); while it does not answer, wait.

    Raises:
        SettingsError: the address is none, or what answers there is no sweep server.
    """
    url = f"{server.rstrip('/')}/api/get_sweep_id"
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--server {server}: write it as http://HOST:PORT")
    said = ""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise SettingsError(f"{url} answers {error.code}: it is no sweep server") from None
            reason = f"{error.code}"
        except (OSError, ValueError) as error:
            reason = str(error)
        if reason != said:
            print(f"waiting for the sweep server {server}: {reason}", flush=True)
            said = reason
        time.sleep(pause)
