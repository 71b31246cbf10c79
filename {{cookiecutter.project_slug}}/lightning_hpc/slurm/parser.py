"""The command line of SlurmTrain.py: its commands and their options."""

import argparse
from pathlib import Path
from typing import Any

from ..clusters.resources import KEYS, SBATCH_OPTIONS, TAKEN
from ..experiments.triage import NAMES
from ..settings.places import existing

HELP = """examples:
  python SlurmTrain.py plan configs/jobs/grid.yaml             what would run
  python SlurmTrain.py submit configs/jobs/grid.yaml           one array; shows what it costs and asks
  python SlurmTrain.py submit configs/jobs/grid.yaml --cluster hec --time 4:00:00 --throttle 10 --canary
  python SlurmTrain.py status runs/grid                        how each run stands
  python SlurmTrain.py retry runs/grid --time 12:00:00         what is not done, with more time
  python SlurmTrain.py submit configs/jobs/grid.yaml --on hec  from a laptop: checked here, sent, submitted there
  python SlurmTrain.py fetch runs/grid --on hec                its results, without checkpoints, for Report.py
  python SlurmTrain.py render --kubernetes configs/jobs/grid.yaml      the same runs as a Job of Kubernetes
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

    command("plan", "print the runs of a specification; touches nothing", "spec", "--name", "--jsonl", "--on")
    for sub in (
        command(
            "submit", "plan, check and submit all runs as one array",
            "spec", "--name", "--yes", "--dry-run", "--canary", "--overwrite", "--link", "--check-wandb", "--no-check",
            "--on",
        ),
        command("retry", "submit again what is not done, queued or running; it resumes",
                "folder", "--yes", "--dry-run", "--fresh-code", "--cause", "--on"),
        command("eval", "submit a test of a run's best checkpoint", "run", "--dry-run"),
        command("render", "write slurm/*.sbatch for a cluster, or a Job of Kubernetes for an experiment",
                "--kubernetes", "--name", "--dry-run"),
    ):  # fmt: skip
        add_resources(sub)
    command("status", "show how each run stands", "folder", "--watch", "--why", "--on")
    command("cancel", "cancel what is queued or running; runs in progress save first", "folder", "--dry-run", "--on")
    sub = command("fetch", "bring the small files of an experiment's runs from a host", "folder", "--dry-run")
    sub.add_argument("--on", required=True, **ARGUMENTS["--on"])
    command("debug", "run one of the runs here, chosen at random: not on a login node", "spec", "--index")
    sub = command("cluster", "hold a preset against what the cluster says of itself; prints YAML to paste", "--write")
    sub.add_argument("name", nargs="?", metavar="NAME", help="a preset, or a new name; left out: the project's cluster")
    sub = command("finish", "(called by batch files) put a stopped run back into the queue", "--max_requeues")
    sub.add_argument("--resubmit", type=Path, metavar="FILE")
    sub.add_argument("--slice", metavar="TIME", help="of a run that is cut in slices: how long this one was")
    sub.add_argument("--agent", type=int, metavar="CODE", help="of a sweep's agent: its exit code")
    sub.add_argument("arguments", nargs=argparse.REMAINDER)
    sub = command("pack", "(called by batch files) run the runs that share this job")
    sub.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the experiment's folder")
    sub.add_argument("--pack", type=int, required=True, metavar="N", help="which of its packs")
    command("notify", "(called by batch files) say how an experiment has ended", "folder")
    return main


ARGUMENTS = {
    "spec": dict(type=existing, metavar="SPEC", help="a specification: configs/jobs/*.yaml, or a W&B sweep file"),
    "folder": dict(type=existing, metavar="FOLDER", help="an experiment's folder, such as runs/grid"),
    "run": dict(type=existing, metavar="RUN", help="a run's folder"),
    "--name": dict(metavar="NAME", help="name of the experiment, instead of the specification's"),
    "--jsonl": dict(action="store_true", help="one JSON object a line: index, identity, folder, overlay"),
    "--yes": dict(action="store_true", help="don't ask"),
    "--dry-run": dict(action="store_true", help="show everything, write and submit nothing"),
    "--canary": dict(action="store_true", help="the first run goes ahead alone until its first validation"),
    "--overwrite": dict(action="store_true", help="move an experiment of this name aside and start over"),
    "--link": dict(action="store_true", help="link runs that are done in another experiment, don't train them again"),
    "--check-wandb": dict(action="store_true", help="leave out the runs that W&B has as finished, on any cluster"),
    "--no-check": dict(action="store_true", help="don't check every run's settings, which takes some seconds"),
    "--fresh-code": dict(action="store_true", help="run the project's code as it is now, not as it was submitted"),
    "--watch": dict(action="store_true", help="again every 10 seconds, until nothing is queued or running"),
    "--why": dict(action="store_true", help="what has failed or was lost, by cause, with what helps"),
    "--cause": dict(choices=NAMES, help="only what is not done for this cause, see status --why"),
    "--write": dict(action="store_true", help="write a first preset, if there is none of that name"),
    "--index": dict(type=int, metavar="N", help="this run instead of a random one"),
    "--kubernetes": dict(
        type=existing, metavar="SPEC", help="the Job of this specification's runs, or of a planned experiment's folder"
    ),
    "--on": dict(metavar="HOST", help="there, by ssh: a file's name in configs/hosts, or HOST:FOLDER (the project's)"),
    "--max_requeues": dict(type=int, default=0, metavar="N"),
}


def typed(arguments: argparse.Namespace) -> list[str]:
    """The command line of some arguments, without --on."""
    words = [arguments.command]
    for option in (*ARGUMENTS, "--cluster"):
        value = getattr(arguments, option.removeprefix("--").replace("-", "_"), None)
        if not option.startswith("--") or option == "--on" or value is None or value is False:
            continue
        words.append(option if value is True else f"{option}={value}")
    for name, value in getattr(arguments, "resources", []):
        words.append(f"--{name}={value}")

    place = getattr(arguments, "spec", None) or arguments.folder
    return [*words, str(place)]


class ResourceOption(argparse.Action):
    """Collects options for resources as they are typed: (name, value)."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        typed = (option_string.removeprefix("--"), "true" if values is None else values)
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), typed])


def add_resources(sub: argparse.ArgumentParser) -> None:
    """Options for everything that a job can ask for; they win over the specification's `resources`."""
    group = sub.add_argument_group(
        "cluster and resources (see configs/slurm.yaml)",
        "Any other option of sbatch is taken under its own name too: --constraint=…, --exclude=…, --reservation=…",
    )
    group.add_argument("--cluster", metavar="NAME", help="a preset of configs/clusters")
    common = dict(dest="resources", action=ResourceOption, default=[], metavar="…")
    for name, key in KEYS.items():
        # --help shows our name and sbatch's; the same with the other of hyphen and underscore is understood, too.
        names = dict.fromkeys([name, *key.sbatch])
        group.add_argument(*(f"--{each}" for each in names), help=key.help.replace("%", "%%"), **common)
        hidden = {each.replace("-", "_") for each in names} | {each.replace("_", "-") for each in names}
        for other in sorted(hidden - set(names)):
            group.add_argument(f"--{other}", help=argparse.SUPPRESS, **common)
    for name in sorted({*SBATCH_OPTIONS, *TAKEN}):  # the latter are refused with a reason
        both = dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"])
        group.add_argument(*both, nargs="?", help=argparse.SUPPRESS, **common)
