"""The command line of those commands of Train.py that look at one run that is there, and take no settings."""

import argparse
from pathlib import Path

from .errors import SettingsError


def one_run_parser(command: str, description: str, examples: str, what: str) -> argparse.ArgumentParser:
    """A parser that takes the run as `RUN`, or as `--run RUN` like the other commands; see `run_of`.

    Args:
        command: its name, such as export.
        description, examples: what its help begins and ends with.
        what: what RUN may be.
    """
    parser = argparse.ArgumentParser(
        prog=f"python Train.py {command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, nargs="?", help=what)
    parser.add_argument("--run", dest="named", type=Path, metavar="RUN", help="the same, as for the other commands")
    return parser


def run_of(arguments: argparse.Namespace, command: str) -> Path:
    """The run that was typed, in one of the two ways.

    Raises:
        SettingsError: there is none, or there are two.
    """
    if (arguments.run is None) == (arguments.named is None):
        raise SettingsError(f"{command} needs one run: python Train.py {command} RUN")
    return arguments.run or arguments.named
