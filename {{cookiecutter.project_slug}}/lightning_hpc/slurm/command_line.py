"""The entrance of SlurmTrain.py and its smaller commands. No torch, except to check the settings of all runs."""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from socket import gethostname

from ..arrays.next_wave import submit_next_wave
from ..arrays.put_back import element
from ..clusters import presets
from ..clusters.comparison import compare, first_preset
from ..clusters.consequences import in_packs
from ..clusters.own_words import ask_cluster
from ..experiments.early_endings import with_early_endings
from ..experiments.experiment import WAIT, Experiment, only_submission
from ..experiments.standing import counts, standings
from ..experiments.table import advice, table
from ..experiments.triage import why
from ..experiments.waves import forget_waves, waiting
from ..notify import notify
from ..planning.plan import plan
from ..planning.specification import read_specification
from ..runs.prior_runs import place_of
from ..scheduler import jobs, sbatch
from ..scheduler.commands import PAUSES, NoAnswer
from ..settings.errors import SettingsError
from ..settings.flat import find_settings_file
from ..settings.yaml_files import typed_value
from . import after_run
from .asked import written_down
from .other_jobs import render_files, submit_evaluation
from .pack import finish_pack, run_pack
from .parser import parser
from .submission import retry, submit_plan

Command = Callable[[argparse.Namespace, Path], int]


def main(argv: Sequence[str], root: Path, on_host: Command | None = None, in_kubernetes: Command | None = None) -> int:
    """Run one command line; returns the exit code: 0 only on success, 2 for wrong usage or a refusal.

    Args:
        argv: the command and its arguments.
        root: the folder of the code: the project's, or a snapshot of it inside a job.
        on_host: what runs a command elsewhere, with --on.
        in_kubernetes: what writes a Job of Kubernetes, with --kubernetes.
    """
    arguments = parser().parse_args(argv)
    if getattr(arguments, "on", None):
        return on_host(arguments, root)
    if getattr(arguments, "kubernetes", None):
        return in_kubernetes(arguments, root)
    return COMMANDS[arguments.command](arguments, root)


def show_plan(arguments: argparse.Namespace, root: Path) -> int:
    """`plan`: print the runs of a specification."""
    spec = read_specification(arguments.spec)
    planned = plan(spec, root, arguments.name)
    for run in planned.runs:
        if arguments.jsonl:
            print(json.dumps(vars(run), default=str))
        else:
            print(f"{run.index:>5}  {run.identity[:8]}  {run.folder}")
    if not arguments.jsonl:
        size = written_down(root, spec.get("resources") or {}).get("pack") or 1
        packed = [in_packs(len(planned.runs), size)] if size > 1 else []
        print("\n".join([planned.summary(), *packed, *planned.notes]))
    return 0


def show_status(arguments: argparse.Namespace, root: Path) -> int:
    """`status`: print how each run stands, again and again with --watch."""
    while True:
        experiment = Experiment(arguments.folder)
        elements, silence = None, None
        try:
            elements = experiment.queue()
        except NoAnswer as error:
            silence = str(error)
        stand = with_early_endings(experiment, standings(experiment, elements), silence is None)
        shown = ["\n".join(why(experiment, stand))] if arguments.why else [table(stand)]
        lines = [*filter(None, shown), counts(stand), *advice(experiment, stand, silence)]
        if arguments.watch and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        print("\n".join(lines), flush=True)

        # Without an answer nobody knows whether something is left to watch.
        active = any(run.state in ("running", "pending") for run in stand)
        if not arguments.watch or not (active or silence):
            return 0
        time.sleep(10)


def cancel(arguments: argparse.Namespace, root: Path) -> int:
    """`cancel`: cancel what is queued or running."""
    experiment = Experiment(arguments.folder)
    later = len(waiting(experiment))
    if later:
        print(f"{later} wait for the next wave and are not submitted")
    if later and not arguments.dry_run:  # first, since each job that ends would submit more
        with only_submission(experiment.folder, WAIT):
            forget_waves(experiment)
    elements = experiment.own(experiment.queue(PAUSES))
    mine = [element for element in elements if element.uid == os.getuid()]
    states = ", ".join(f"{element.name} {element.state.lower()}" for element in mine[:10])
    print(f"{len(mine)} to cancel{f': {states}' if mine else ''}{' …' if len(mine) > 10 else ''}")
    others = sorted({element.user for element in elements if element not in mine})
    if others:
        print(f"{len(elements) - len(mine)} more are those of {', '.join(others)}, who can cancel them")
    if mine and not arguments.dry_run:
        for cluster in {element.cluster for element in mine}:
            jobs.cancel(sorted({element.job for element in mine if element.cluster == cluster}), cluster)
    return 0


def debug(arguments: argparse.Namespace, root: Path) -> int:
    """`debug`: run one of the runs here."""
    # Inside a job this is a compute node, whatever it is called.
    host = gethostname()
    for preset in (presets.load(name, root) for name in presets.names(root)):
        if "SLURM_JOB_ID" not in os.environ and any(fnmatch(host, pattern) for pattern in preset.login_hosts):
            raise SettingsError(
                f"{host} is a login node of {preset.name}, which many people share: debug inside a job, "
                "for example after `srun --pty bash`"
            )

    spec = read_specification(arguments.spec)
    planned = plan(spec, root, f"{spec.get('name') or 'sweep'}-debug")
    if arguments.index is None:
        run = random.choice(planned.runs)
    elif 0 <= arguments.index < len(planned.runs):
        run = planned.runs[arguments.index]
    else:
        raise SettingsError(f"--index {arguments.index}: the plan has runs 0 to {len(planned.runs) - 1}")
    print(run, flush=True)

    # By Train.py's own command line, so that this is what one would type.
    typed = [f"--config={find_settings_file(str(config), root).absolute()}" for config in spec.get("configs") or []]
    for key, value in {"name": planned.name, **run.overlay}.items():
        typed.append(f"--{key}={typed_value(value)}")

    # In the project's folder, from which the paths in a specification count.
    return subprocess.run([sys.executable, str(root / "Train.py"), "fit", *typed], cwd=root).returncode


def hold_against_cluster(arguments: argparse.Namespace, root: Path) -> int:
    """`cluster`: print what differs between a preset and its cluster; or a first preset, which --write keeps."""
    name = arguments.name or presets.choose(None, root).name
    file = root / presets.CLUSTERS / f"{name}.yaml"
    if name in presets.names(root):
        if arguments.write:
            raise SettingsError(f"{file} is there already and is not overwritten: paste into it what differs")
        print(compare(presets.load(name, root), ask_cluster()), end="")
        return 0

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise SettingsError(f"{name} can't name a preset: use letters, digits and ._-")
    text = first_preset(name, ask_cluster())
    print(text, end="")
    if arguments.write:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
        print(f"# written: {file}")
    else:
        print(f"# There is no preset of that name: --write keeps this as {presets.CLUSTERS}/{name}.yaml")
    return 0


def announce_end(arguments: argparse.Namespace, root: Path) -> int:
    """`notify`: print how an experiment has ended, and send that to wherever NOTIFY_… says."""
    experiment = Experiment(arguments.folder)
    if "SLURM_JOB_ID" in os.environ:  # where a node has failed, its jobs could not submit the next wave
        submit_next_wave(experiment, element(), pauses=())
    elements, silence = None, None
    try:
        elements = experiment.queue(PAUSES)
    except NoAnswer as error:
        silence = str(error)

    # A run that was put back under a new job id, or submitted again, has not ended.
    if left := still_active(experiment, elements or []):
        job = sbatch.submit_job([f"--dependency=afterany:{':'.join(left)}", str(experiment.notify)])
        print(f"not all has ended: job {job} says so after {', '.join(left)}")
        return 0

    # The table is for the job's log, which nobody may ever read; the message is short.
    stand = with_early_endings(experiment, standings(experiment, elements), silence is None)
    print(table(stand))
    reasons = [f"run {run.index} {run.state}: {run.reason}" for run in stand if run.state != "done"]
    more = ["…"] if len(reasons) > 5 else []
    unknown = [silence] if silence else []
    text = "\n".join([counts(stand), *reasons[:5], *more, *unknown])
    print(text)
    for line in notify(f"{experiment.folder.name} has ended", text, **place_of(experiment.settings)):
        print(line)
    return 0


def still_active(experiment: Experiment, elements: Sequence[jobs.Element]) -> list[str]:
    """The jobs of an experiment that have something left to do; [] if another message waits for them already."""
    own = experiment.own(elements)
    messages = [element for element in own if element.is_of(experiment.notify) and element.state == "PENDING"]
    if messages:
        return []
    over = ("COMPLETING", "COMPLETED")
    runs = [element for element in own if not element.is_of(experiment.notify) and element.state not in over]
    return sorted({element.job for element in runs if element.reason != "DependencyNeverSatisfied"}, key=int)


def end_of_job(arguments: argparse.Namespace, root: Path) -> int:
    """`finish`: put what was stopped back into the queue."""
    rest = [argument for argument in arguments.arguments if argument != "--"]
    if arguments.agent is not None:
        return after_run.finish_agent(arguments.agent, rest, arguments.max_requeues, arguments.resubmit)
    if "--pack" in rest:
        return finish_pack(rest, root, arguments.max_requeues, arguments.resubmit, arguments.slice)
    return after_run.finish(rest, root, arguments.max_requeues, arguments.resubmit, arguments.slice)


COMMANDS = dict(
    plan=show_plan,
    submit=submit_plan,
    status=show_status,
    retry=retry,
    cancel=cancel,
    debug=debug,
    eval=submit_evaluation,
    render=render_files,
    cluster=hold_against_cluster,
    pack=run_pack,
    finish=end_of_job,
    notify=announce_end,
)
