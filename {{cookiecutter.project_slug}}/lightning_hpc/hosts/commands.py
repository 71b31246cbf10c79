"""SlurmTrain.py with --on HOST: planned and checked here, run there by the project's own SlurmTrain.py.

So whatever protects runs there (locks, canary, throttle, waves) is as it always is; this is only a door to it.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..clusters import presets
from ..clusters.presets import Preset
from ..clusters.resources import read_resources
from ..planning.specification import read_specification
from ..printing import counted
from ..settings.errors import SettingsError
from ..settings.flat import find_settings_file
from ..settings.places import command
from ..slurm import command_line
from ..slurm.batch import activation
from ..slurm.parser import typed
from ..slurm.submission import agreed, plan_and_check
from .fetching import fetch, folder_on, place_here
from .host import Host, find_host
from .sending import Parcel, pack, within
from .ssh import LostConnection, run_script

SCRIPT = Path(__file__).with_name("there.sh")

# What the script may find, and what to do about it.
PROBLEMS = {
    "no-folder": "there is no folder {folder} on {host} yet: {mkdir}",
    "no-project": "{folder} on {host} has no SlurmTrain.py yet: `submit` sends the project",
    "not-writable": "{folder} on {host} can't be written: is a quota full?",
    "busy": "another `--on` is sending to {folder} on {host} at this moment: try again",
    "incomplete": "what was sent to {host} has not arrived whole, and nothing was changed there: try again",
    "outside": "{what} in {folder} on {host} is a link that leads out of it, and nothing is written there",
    "in-the-way": "{what} in {folder} on {host} is a folder, and a file here: move it away",
    "no-environment": "the project is on {host}, and the Python there ({what}) lacks what it needs: make the project's "
    "environment there (README.md, Install on a cluster), and say how it is activated: `activate:` in configs/hosts",
}

# What can submit; asked without importing torch, which takes seconds on a busy login node.
NEEDS = """
import importlib.util, sys
needed = ("yaml", "jinja2", "jsonschema", "torch", "lightning")
sys.exit(sys.version_info < (3, 11) or not all(map(importlib.util.find_spec, needed)))
"""


def on_host(arguments: argparse.Namespace, root: Path) -> int:
    """Run a command of SlurmTrain.py on a host; returns its exit code.

    Raises:
        SettingsError: what was asked for can't be done, here or there.
    """
    host = find_host(arguments.on, root)
    if arguments.command == "plan":
        return show_plan(arguments, host, root)
    if arguments.command == "submit":
        return submit(arguments, host, root)

    folder = place_there(arguments.folder, root)
    if arguments.command == "fetch":
        source = folder_on(host, folder)
        return fetch(source, place_here(source, root), arguments.dry_run)
    arguments.folder = folder
    if arguments.command == "retry":
        return retry(arguments, host, root)
    return run_there(arguments, host, root)


def show_plan(arguments: argparse.Namespace, host: Host, root: Path) -> int:
    """`plan`: the runs, and what would be sent; the host is not asked."""
    code = command_line.show_plan(arguments, root)
    if not arguments.jsonl:
        print(about(pack_for(arguments.spec, root), host))
    return code


def submit(arguments: argparse.Namespace, host: Host, root: Path) -> int:
    """`submit`: plan and check here, then send and submit in one call of ssh; returns the exit code."""
    arguments.cluster = arguments.cluster or host.cluster
    planned, preset, asked, _ = plan_and_check(arguments, root)
    parcel = pack_for(arguments.spec, root)
    print(about(parcel, host))

    # What was checked here need not be checked again on a busy login node, and nobody is there to answer.
    dry_run, arguments.dry_run = arguments.dry_run, False
    there = argparse.Namespace(**vars(arguments))
    there.spec, there.cluster = within(arguments.spec, root), preset.name
    there.yes = there.no_check = True
    if dry_run:
        print(f"there: {shlex.join(['python', 'SlurmTrain.py', *typed(there)])}\nnothing was sent")
        return 0
    if not agreed(f"Submit on {host.name}?", arguments):
        return 1
    code = run_there(there, host, root, parcel, asked, planned.folder)
    if code == 0:
        print(f"from here: {look_at(planned.folder, arguments)}")
    return code


def retry(arguments: argparse.Namespace, host: Host, root: Path) -> int:
    """`retry`: show what it would submit there, ask here, do it there; returns the exit code."""
    arguments.cluster = arguments.cluster or host.cluster
    parcel = pack(root) if arguments.fresh_code else None
    if not (arguments.yes or arguments.dry_run):
        code = run_there(argparse.Namespace(**{**vars(arguments), "dry_run": True}), host, root)
        if code or not agreed(f"Submit on {host.name}?", arguments):
            return code or 1
        arguments.yes = True
    return run_there(arguments, host, root, None if arguments.dry_run else parcel)


def pack_for(spec: Path, root: Path) -> Parcel:
    """What a submission sends: the code, and the files of its settings."""
    files = [spec]
    for config in read_specification(spec).get("configs") or []:
        files.append(find_settings_file(str(config), root))
    return pack(root, files)


def about(parcel: Parcel, host: Host) -> str:
    """What is sent, and where to."""
    return f"{counted(len(parcel.files), 'file')}, {parcel.size / 1e6:.1f} MB, for {host}"


def place_there(folder: Path, root: Path) -> str:
    """A typed folder as it is called there: from the project's folder, which is elsewhere and called otherwise."""
    absolute = Path(os.path.abspath(folder))
    is_below = Path.cwd() != root and Path.cwd().is_relative_to(root)
    if absolute.is_relative_to(root) and (folder.is_absolute() or folder.exists() or not is_below):
        return absolute.relative_to(root).as_posix()
    return folder.as_posix()


def run_there(
    arguments: argparse.Namespace,
    host: Host,
    root: Path,
    parcel: Parcel | None = None,
    asked: Mapping[str, Any] | None = None,
    experiment: Path | None = None,
) -> int:
    """Run SlurmTrain.py on a host; returns its exit code.

    Args:
        arguments: the command line there.
        host: the host.
        root: the project's folder here.
        parcel: what is sent before; None: nothing.
        asked: the resources that were asked for; None: the project's own.
        experiment: the folder of a new experiment, to be looked for if the connection is lost.

    Raises:
        SettingsError: there is no login, no folder, or no environment there; or nobody knows how it ended.
    """
    if asked is None:
        asked = read_resources(presets.project_resources(root), presets.PROJECT_RESOURCES)
    changes_something = arguments.command != "status" and not arguments.dry_run
    script = script_for(arguments, host, preset_of(arguments, host, root), asked, root, parcel, changes_something)
    look = look_at(experiment or arguments.folder, arguments)
    try:
        told = run_script(host.host, script, parcel.archive() if parcel else b"")
    except LostConnection as error:
        if not changes_something:
            raise
        raise LostConnection(
            f"{error}, so it is not known whether `{arguments.command}` was done there, and it is not done again. "
            f"To see: {look}",
            page=error.page,
        ) from None
    except KeyboardInterrupt:
        if changes_something:
            print(f"`{arguments.command}` goes on there; to see: {look}", file=sys.stderr)
        raise
    return understood(told, host)


def look_at(experiment: Path | str, arguments: argparse.Namespace) -> str:
    """What to type to see how an experiment on that host stands."""
    return command("SlurmTrain.py", "status", experiment, "--on", arguments.on)


def preset_of(arguments: argparse.Namespace, host: Host, root: Path) -> Preset | None:
    """The cluster's preset; None where nobody has said which it is, as this machine's name does not tell."""
    name = getattr(arguments, "cluster", None) or host.cluster or presets.project_resources(root).get("cluster")
    return presets.load(name, root) if name and name != "auto" else None


def script_for(
    arguments: argparse.Namespace,
    host: Host,
    preset: Preset | None,
    asked: Mapping[str, Any],
    root: Path,
    parcel: Parcel | None,
    survives: bool,
) -> str:
    """The script that runs there: there.sh, with what it needs to know before it; for the arguments see `run_there`."""
    line = host.activate or asked.get("activate")
    if preset and not line:
        line = activation(preset, root.name, asked.get("account"))
    line = line or "if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi"

    values = dict(folder=host.folder, needs=NEEDS)
    values |= dict(sends="yes" if parcel else "", survives="yes" if survives else "")
    return "\n".join(
        [
            *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
            f"words=({shlex.join(typed(arguments))})",
            "activate() {",
            *(preset.setup if preset else ()),
            'cd -- "$project"',
            line,
            "}",
            SCRIPT.read_text(encoding="utf-8"),
            "main; exit\n",
        ]
    )


def understood(told: list[str], host: Host) -> int:
    """What the script has told, in words; returns the exit code of the command there.

    Raises:
        SettingsError: the command did not run.
    """
    for line in told:
        word, _, rest = line.partition(" ")
        if word == "kept":
            print(f"changed on {host.name} since it was sent, and kept there: {rest}")
        elif word == "ended":
            return int(rest)
        elif word in PROBLEMS:
            # Quoted twice: the shell there takes the words apart again.
            mkdir = shlex.join(["ssh", host.host, shlex.join(["mkdir", "-p", host.folder])])
            raise SettingsError(PROBLEMS[word].format(host=host.host, folder=host.folder, what=rest, mkdir=mkdir))
    raise LostConnection(f"{host.host} has ended the command before it was done")
