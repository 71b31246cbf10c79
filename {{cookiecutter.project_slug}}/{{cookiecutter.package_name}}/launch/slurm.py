"""The commands of SlurmTrain.py. None of them imports torch, except to check the settings of all runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs.settings import SettingsError
from . import commands
from .resources import resource_keys

HELP = """examples:
  python SlurmTrain.py plan configs/jobs/grid.yaml             what would run
  python SlurmTrain.py submit configs/jobs/grid.yaml           one array; shows what it costs and asks
  python SlurmTrain.py submit configs/jobs/grid.yaml --cluster hec --time 4:00:00 --throttle 10 --canary
  python SlurmTrain.py status runs/grid                        how each run stands
  python SlurmTrain.py retry runs/grid --time 12:00:00         what is not done, with more time
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    main = argparse.ArgumentParser(
        prog="python SlurmTrain.py",
        description="Many runs as one SLURM array.",
        epilog=HELP,
        formatter_class=raw,
        allow_abbrev=False,
    )
    add = main.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser

    def command(name: str, text: str, *arguments: str) -> argparse.ArgumentParser:
        sub = add(name, help=text, description=text, allow_abbrev=False)
        for argument in arguments:
            sub.add_argument(argument, **ARGUMENTS[argument])
        return sub

    command("plan", "print the runs of a request; touches nothing", "spec", "--name", "--jsonl")
    for sub in (
        command(
            "submit", "plan, check and submit all runs as one array",
            "spec", "--name", "--yes", "--dry-run", "--canary", "--overwrite", "--check-wandb", "--no-check",
        ),
        command("retry", "submit again what is not done, queued or running; it goes on where it was",
                "folder", "--yes", "--dry-run", "--fresh-code"),
        command("eval", "submit a test of a run's best checkpoint", "run", "--dry-run"),
        command("render", "write slurm/*.sbatch for a cluster", "--dry-run"),
    ):  # fmt: skip
        add_resources(sub)
    command("status", "show how each run stands", "folder", "--watch")
    command("cancel", "cancel what is queued or running; runs in progress save first", "folder", "--dry-run")
    command("debug", "run one of the runs here, chosen at random: not on a login node", "spec", "--index")
    sub = command("finish", "(called by batch files) put a stopped run back into the queue", "--max_requeues")
    sub.add_argument("--resubmit", type=Path, metavar="FILE")
    sub.add_argument("arguments", nargs=argparse.REMAINDER)
    command("notify", "(called by batch files) tell how an experiment has ended", "folder")
    return main


ARGUMENTS = {
    "spec": dict(type=Path, metavar="SPEC", help="a request: configs/jobs/*.yaml, or a W&B sweep file"),
    "folder": dict(metavar="FOLDER", help="an experiment's folder, such as runs/grid"),
    "run": dict(type=Path, metavar="RUN", help="a run's folder"),
    "--name": dict(metavar="NAME", help="name of the experiment, instead of the request's"),
    "--jsonl": dict(action="store_true", help="one JSON object a line: index, identity, folder, overlay"),
    "--yes": dict(action="store_true", help="don't ask"),
    "--dry-run": dict(action="store_true", help="show everything, write and submit nothing"),
    "--canary": dict(action="store_true", help="the first run goes ahead alone until its first validation"),
    "--overwrite": dict(action="store_true", help="move an experiment of this name aside and start over"),
    "--check-wandb": dict(action="store_true", help="leave out the runs that W&B has as finished, on any cluster"),
    "--no-check": dict(action="store_true", help="don't check every run's settings, which takes up to 60 ms a run"),
    "--fresh-code": dict(action="store_true", help="run the project's code as it is now, not as it was submitted"),
    "--watch": dict(action="store_true", help="again every 10 seconds, until nothing is queued or running"),
    "--index": dict(type=int, metavar="N", help="this run instead of a random one"),
    "--max_requeues": dict(type=int, default=0, metavar="N"),
}


def add_resources(sub: argparse.ArgumentParser) -> None:
    """Options for everything that a job can ask for; they win over the request's `resources`."""
    group = sub.add_argument_group("cluster and resources (see configs/slurm.yaml)")
    group.add_argument("--cluster", metavar="NAME", help="a preset of configs/clusters")
    for name, text in resource_keys().items():
        if name != "cluster":
            group.add_argument(f"--{name}", metavar="…", default=argparse.SUPPRESS, help=text.replace("%", "%%"))


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code: 0 only on success, 2 for wrong usage or a refusal.

    Args:
        argv: the command and its arguments.
        root: the folder of the code: the project's, or a snapshot of it inside a job.
    """
    arguments = parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments, root)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


COMMANDS = dict(
    plan=commands.show_plan,
    submit=commands.submit_plan,
    status=commands.show_status,
    retry=commands.retry,
    cancel=commands.cancel,
    debug=commands.debug,
    eval=commands.evaluate,
    render=commands.render_files,
    finish=commands.end_of_job,
    notify=commands.tell,
)
