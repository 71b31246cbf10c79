"""What each command of SlurmTrain.py does: a function of the parsed command line and the folder of the code."""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from socket import gethostname

from ..runs.expand import read_spec
from ..runs.folder import RunFolder, write_atomically
from ..runs.plan import Plan, plan
from ..runs.settings import SettingsError, dump, parse_value
from . import presets, sbatch
from .batch import render
from .experiment import Experiment, write
from .finish import finish
from .notify import notify
from .presets import Preset
from .resources import Resources, resolve, resource_keys
from .submit import array, calls_for, cost, submit, trainer_settings, write_batch_files
from .table import advice, counts, table
from .wandb_runs import finished_in_wandb, place_of


def requested(arguments: argparse.Namespace, root: Path, earlier: dict) -> tuple[Preset, dict]:
    """The cluster and the request: the project's standing one, then `earlier` (a spec's), then the command line's."""
    typed = {name: parse_value(getattr(arguments, name)) for name in resource_keys() if hasattr(arguments, name)}
    standing = presets.standing_request(root)
    preset = presets.choose(arguments.cluster or earlier.get("cluster") or standing.get("cluster"), root)
    return preset, {**standing, **earlier, **typed, "cluster": preset.name}


def agreed(question: str, arguments: argparse.Namespace) -> bool:
    """Whether to go on: --yes, or the user's answer."""
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError("nobody is here to answer: say --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def show_plan(arguments: argparse.Namespace, root: Path) -> int:
    found = plan(read_spec(arguments.spec), root, arguments.name)
    if arguments.jsonl:
        for run in found.runs:
            print(json.dumps(vars(run), default=str))
        return 0
    for run in found.runs:
        print(f"{run.index:>5}  {run.identity[:8]}  {run.folder}")
    print("\n".join([found.summary(), *found.notes]))
    return 0


def submit_plan(arguments: argparse.Namespace, root: Path) -> int:
    spec = read_spec(arguments.spec)
    preset, request = requested(arguments, root, spec.get("resources") or {})
    resources = resolve(preset, request, array=2)  # refused before the plan, which takes longer
    found = plan(spec, root, arguments.name, lambda settings: trainer_settings(resources, settings, request))
    print("\n".join([found.summary(), *found.notes]))
    if not arguments.no_check:
        check(found)
    done = set() if arguments.overwrite else already_done(found, arguments.check_wandb)
    todo = [run.index for run in found.runs if run.index not in done]
    if done:
        print(f"{len(done)} of them are done already and are left out")
    if not todo:
        return 0
    print(f"{preset.name}{f', {resources.partition}' if resources.partition else ''}: {cost(len(todo), resources)}")
    if arguments.dry_run:
        experiment = Experiment(found.folder, planned=False)
        print(
            render(
                preset,
                resources,
                "array",
                name=found.name,
                project=root,
                code=experiment.folder / "code",
                experiment=experiment.folder,
            )
        )
        for call in calls_for(experiment, todo, preset, resources, arguments.canary):
            print(shlex.join([preset.submit, *call]))
        return 0
    if not agreed("Submit?", arguments):
        return 1
    text = arguments.spec.read_text(encoding="utf-8")
    experiment = write(found, root, request, text, arguments.overwrite)
    write_batch_files(experiment, preset, resources, root, arguments.canary)
    return send(experiment, todo, preset, resources, arguments.canary)


def send(
    experiment: Experiment, todo: Sequence[int], preset: Preset, resources: Resources, canary: bool = False
) -> int:
    """Submit some runs and say what to type next."""
    jobs = submit(experiment, calls_for(experiment, todo, preset, resources, canary), preset.submit)
    print(f"submitted: {', '.join(jobs)}; how it goes: python SlurmTrain.py status {experiment.shown}")
    return 0


def check(found: Plan) -> None:
    """Check every run with Train.py's own parser; the first wrong one stops everything."""
    from ..training.check import check_all  # imports torch

    total, terminal = len(found.runs), sys.stderr.isatty()

    def progress(done: int) -> None:
        if terminal and (done % 20 == 0 or done == total):
            print(f"\rchecked {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    check_all(((str(run), found.request(run)) for run in found.runs), progress)


def already_done(found: Plan, check_wandb: bool) -> set[int]:
    """Indices of the runs that are done here, by identity; and of those that W&B has as finished, if that is asked."""
    done = {
        status["identity"]
        for file in found.folder.glob("*/status.json")
        if (status := RunFolder(file.parent).status()).get("state") == "done"
    }
    if check_wandb:
        place = place_of(found.request(found.runs[0]).settings.flat)
        if not place:
            raise SettingsError(
                "--check-wandb: these runs have no W&B logger in trainer.logger, so there is no project"
            )
        done |= finished_in_wandb([run.identity for run in found.runs], **place)
    return {run.index for run in found.runs if run.identity in done}


def show_status(arguments: argparse.Namespace, root: Path) -> int:
    experiment = Experiment(arguments.folder)
    while True:
        elements = experiment.elements()
        standings = experiment.standings(elements)
        lines = [table(experiment, standings), counts(standings), *advice(experiment, standings, elements is not None)]
        if arguments.watch and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        print("\n".join(lines), flush=True)
        if not arguments.watch or not any(each.state in ("running", "pending") for each in standings):
            return 0
        time.sleep(10)


def retry(arguments: argparse.Namespace, root: Path) -> int:
    experiment = Experiment(arguments.folder)
    preset, request = requested(arguments, root, experiment.request)
    resources = resolve(preset, request, array=len(experiment.rows))
    if other := trainer_settings(resources, experiment.settings, {}):
        raise SettingsError(f"the runs were planned with other devices than these resources give ({other})")
    standings = experiment.standings(experiment.known_elements())
    print(counts(standings))
    todo = [each.index for each in standings if each.state not in ("done", "running", "pending")]
    if not todo:
        print("nothing to submit again")
        return 0
    print(f"to submit: {array(todo, None)}; {cost(len(todo), resources)}")
    if arguments.dry_run:
        for call in calls_for(experiment, todo, preset, resources):
            print(shlex.join([preset.submit, *call]))
        return 0
    if not agreed("Submit?", arguments):
        return 1
    if arguments.fresh_code:
        experiment.take_code(root)
    write_atomically(experiment.folder / "request.yaml", dump(request))
    write_batch_files(experiment, preset, resources, root, canary=False)
    return send(experiment, todo, preset, resources)


def cancel(arguments: argparse.Namespace, root: Path) -> int:
    experiment = Experiment(arguments.folder)
    elements = experiment.known_elements()
    states = ", ".join(f"{each.name} {each.state.lower()}" for each in elements[:10])
    print(f"{len(elements)} to cancel{f': {states}' if elements else ''}{' …' if len(elements) > 10 else ''}")
    if elements and not arguments.dry_run:
        sbatch.cancel(sorted({each.job for each in elements}))
    return 0


def debug(arguments: argparse.Namespace, root: Path) -> int:
    host = gethostname()
    for preset in (presets.load(name, root) for name in presets.names(root)):
        if "SLURM_JOB_ID" not in os.environ and any(fnmatch(host, pattern) for pattern in preset.login_hosts):
            raise SettingsError(
                f"{host} is a login node of {preset.name}, which many people share: debug inside a job, "
                "for example after `srun --pty bash`"
            )
    spec = read_spec(arguments.spec)
    found = plan(spec, root, f"{spec.get('name') or 'sweep'}-debug")
    if arguments.index is not None and not 0 <= arguments.index < len(found.runs):
        raise SettingsError(f"--index {arguments.index}: the plan has runs 0 to {len(found.runs) - 1}")
    run = random.choice(found.runs) if arguments.index is None else found.runs[arguments.index]
    print(run, flush=True)
    configs = [f"--config={config}" for config in spec.get("configs") or []]
    values = {"name": found.name, **run.overlay}
    typed = [
        f"--{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in values.items()
    ]
    return subprocess.run([sys.executable, str(root / "Train.py"), "fit", *configs, *typed]).returncode


def evaluate(arguments: argparse.Namespace, root: Path) -> int:
    run = arguments.run.resolve()
    if not (run / "status.json").is_file():
        raise SettingsError(f"{arguments.run} is no run's folder: it has no status.json")
    try:
        experiment: Experiment | None = Experiment(run.parent)
    except SettingsError:
        experiment = None  # a run that was started by hand
    preset, request = requested(arguments, root, experiment.request if experiment else {})
    resources = resolve(preset, request)
    code = experiment.code if experiment else root
    text = render(preset, resources, "evaluate", name=f"test-{run.name}", project=root, code=code, experiment=run)
    call = [str(run / "logs" / "test.sbatch"), "test", "--run", str(run)]
    if arguments.dry_run:
        print(f"{text}\n{shlex.join([preset.submit, *call])}")
        return 0
    (run / "logs").mkdir(exist_ok=True)
    write_atomically(Path(call[0]), text)
    print(f"submitted: {sbatch.submit(call, preset.submit)}; the result will be in {run / 'test.json'}")
    return 0


def render_files(arguments: argparse.Namespace, root: Path) -> int:
    preset, request = requested(arguments, root, {})
    resources = resolve(preset, request, partial=True)
    for kind, name in dict(train="train", agent="sweep_agent").items():
        file = root / "slurm" / f"{name}.sbatch"
        text = render(preset, resources, kind, name=root.name)
        if arguments.dry_run:
            print(f"==> {file} <==\n{text}")
        else:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, text)
            print(f"written: {file}")
    return 0


def tell(arguments: argparse.Namespace, root: Path) -> int:
    """Print how an experiment has ended, and send that to wherever NOTIFY_… says."""
    experiment = Experiment(arguments.folder)
    standings = experiment.standings(experiment.elements())
    print(table(experiment, standings))
    reasons = [f"run {each.index} {each.state}: {each.reason}" for each in standings if each.state != "done"]
    text = "\n".join([counts(standings), *reasons[:5], *(["…"] if len(reasons) > 5 else [])])
    for line in [text, *notify(f"{experiment.folder.name} has ended", text, **place_of(experiment.settings))]:
        print(line)
    return 0


def end_of_job(arguments: argparse.Namespace, root: Path) -> int:
    rest = [each for each in arguments.arguments if each != "--"]
    return finish(rest, root, arguments.max_requeues, arguments.resubmit)
