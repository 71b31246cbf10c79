"""From a specification to jobs: batch files, and one sbatch call for all runs; and the same again for what is left."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arrays.calls import calls_for, notified, send, show_calls
from ..arrays.next_wave import about_waves, first_wave, note_waves, queue_limits
from ..clusters.consequences import cost, trainer_settings
from ..clusters.placement import doubts, resolve
from ..clusters.presets import Preset
from ..clusters.resources import Resources
from ..code.snapshot import notes_on_code
from ..experiments.early_endings import with_early_endings
from ..experiments.experiment import WAIT, Experiment, only_submission
from ..experiments.links import link_runs, remove_broken_links
from ..experiments.standing import counts, standings
from ..experiments.triage import of_cause
from ..experiments.waves import forget_waves, waiting
from ..experiments.writing import write
from ..files import write_atomically
from ..packing.packs import new_numbers, numbers, write_packs
from ..planning.plan import Plan, plan
from ..planning.specification import read_specification
from ..scheduler import sbatch
from ..scheduler.commands import PAUSES
from ..scheduler.jobs import Element
from ..settings.errors import SettingsError
from ..settings.places import quoted
from ..stand_ins import import_torchmetrics
from .asked import about_slices, asked_for
from .batch import render
from .done import already_done, linkable


def agreed(question: str, arguments: argparse.Namespace) -> bool:
    """True if --yes was given, or the user says so."""
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError("nobody is here to answer: say --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def plan_and_check(arguments: argparse.Namespace, root: Path) -> tuple[Plan, Preset, dict[str, Any], Resources]:
    """Plan, say what there is to be said, and check every run: the plan, its cluster, what is asked for and given."""
    spec = read_specification(arguments.spec)
    preset, asked = asked_for(arguments, root, spec.get("resources") or {})
    resources = resolve(preset, asked, array=2)  # refused before the plan, which takes longer
    planned = plan(spec, root, arguments.name, lambda settings: trainer_settings(resources, settings, asked))
    notes = [*planned.notes, *notes_on_code(root, planned.folder.parent), *doubts(preset, resources)]
    notes += about_slices(resources, planned.folder.parent, planned.name)
    print("\n".join([planned.summary(), *notes]))
    if not arguments.no_check:
        check_plan(planned)
    return planned, preset, asked, resources


def submit_plan(arguments: argparse.Namespace, root: Path) -> int:
    """`submit`: plan, check, show what it costs, ask, write, send."""
    planned, preset, asked, resources = plan_and_check(arguments, root)

    # What is done has the same identity, whatever else has changed in the specification since.
    done = set() if arguments.overwrite else already_done(planned, arguments.check_wandb, root)
    todo = [run.index for run in planned.runs if run.index not in done]
    if done:
        print(f"{len(done)} of them are done already and are left out")
    linked = linkable(planned, todo, arguments.link, root)
    if arguments.link:
        todo = [index for index in todo if planned.runs[index].identity not in linked]
    if not todo and not linked:
        return 0

    where = f", {resources.partition}" if resources.partition else ""
    if todo:
        print(f"{preset.name}{where}: {cost(len(todo), resources)}")
    if arguments.dry_run and not todo:
        return 0
    if arguments.dry_run:
        experiment = Experiment(planned.folder, planned=False)
        places = dict(project=root, code=experiment.folder / "code", experiment=experiment.folder)
        print(render(preset, resources, "array" if resources.pack == 1 else "pack", planned.name, **places))
        new = elements_for(todo, resources, [])
        now = first_wave(new, preset, resources, [], arguments.canary)
        for line in about_waves(new, now, preset, resources):
            print(line)
        canary = todo[0] if arguments.canary else None
        show_calls(calls_for(experiment, now, preset, resources, canary), preset)
        return 0
    if not agreed("Submit?" if todo else "Link them?", arguments):
        return 1

    # From here on something is written. If SLURM then refuses, `retry` continues.
    text = arguments.spec.read_text(encoding="utf-8")
    planned.folder.parent.mkdir(parents=True, exist_ok=True)
    with only_submission(planned.folder.resolve()):
        experiment = write(planned, root, asked, text, arguments.overwrite)
        if arguments.link:
            link_runs(experiment, linked)
        write_batch_files(experiment, preset, resources, root, arguments.canary)
        if not todo:
            print(f"nothing to submit; how it stands: python SlurmTrain.py status {experiment.shown}")
            return 0
        elements = experiment.queue(PAUSES) if queue_limits(preset, resources) else []
        return send_in_waves(experiment, todo, preset, resources, elements, arguments.canary)


def retry(arguments: argparse.Namespace, root: Path) -> int:
    """`retry`: submit again what is not done, queued or running."""
    experiment = Experiment(arguments.folder)
    preset, asked = asked_for(arguments, root, experiment.resources)
    resources = resolve(preset, asked, array=len(experiment.rows))
    if other := trainer_settings(resources, experiment.settings, {}):
        raise SettingsError(f"the runs were planned with other devices than these resources give ({other})")

    experiment.check_writable([])

    def submit_the_rest() -> int:
        return submit_again(experiment, preset, resources, asked, arguments, root)

    # From the look at the queue until the jobs are in it, nobody else may submit them.
    if arguments.dry_run:
        return submit_the_rest()
    with only_submission(experiment.folder, WAIT):
        return submit_the_rest()


def submit_again(
    experiment: Experiment,
    preset: Preset,
    resources: Resources,
    asked: dict[str, Any],
    arguments: argparse.Namespace,
    root: Path,
) -> int:
    """Submit again what is not done, queued or running.

    Args:
        experiment: the planned experiment.
        preset, resources: the cluster, and what each run gets.
        asked: the same as it was asked for, to be remembered.
        arguments: the command line.
        root: the project's folder.
    """
    if not arguments.dry_run:
        for line in remove_broken_links(experiment):
            print(line)

    # A run that is in the queue must not be submitted twice, so SLURM has to answer here.
    elements = experiment.queue(PAUSES)
    stand = with_early_endings(experiment, standings(experiment, elements), queue_known=True)
    print(counts(stand))
    todo = [run.index for run in stand if run.state not in ("done", "running", "pending")]
    if arguments.cause:
        # What waits for the next wave would be submitted anyway, and must not be forgotten.
        chosen = {run.index for run in of_cause(experiment, stand, arguments.cause)} | set(waiting(experiment))
        todo = [index for index in todo if index in chosen]
    if not todo:
        print("nothing to submit again")
        return 0
    experiment.check_writable(todo)

    print(f"to submit: {sbatch.array(todo, None)}; {cost(len(todo), resources)}")
    for line in [
        *doubts(preset, resources),
        *about_slices(resources, experiment.folder.parent, experiment.folder.name),
    ]:
        print(line)
    if arguments.dry_run:
        new = elements_for(todo, resources, numbers(experiment.folder))
        now = first_wave(new, preset, resources, elements)
        for line in about_waves(new, now, preset, resources):
            print(line)
        show_calls(calls_for(experiment, now, preset, resources, beside=experiment.own(elements)), preset)
        return 0
    if not agreed("Submit?", arguments):
        return 1

    if arguments.fresh_code:
        experiment.take_code(root)
    experiment.write_resources(asked)
    write_batch_files(experiment, preset, resources, root, canary=False)
    return send_in_waves(experiment, todo, preset, resources, elements)


def elements_for(todo: Sequence[int], resources: Resources, taken: Sequence[int]) -> list[int]:
    """What an array counts: the runs themselves, or the packs that they get.

    Args:
        todo: indices of the runs, ascending.
        resources: what each job gets.
        taken: numbers of the experiment's packs.
    """
    return new_numbers(taken, todo, resources.pack) if resources.pack > 1 else list(todo)


def send_in_waves(
    experiment: Experiment,
    todo: Sequence[int],
    preset: Preset,
    resources: Resources,
    elements: Sequence[Element],
    canary: bool = False,
) -> int:
    """Submit some runs, as many as the queue has room for; the jobs that end submit the others.

    Args:
        experiment: the planned experiment.
        todo: indices of the runs, ascending.
        preset, resources: the cluster, and what each run gets.
        elements: all jobs that are in the queue.
        canary: True if the first run goes ahead alone.

    Raises:
        SettingsError: there is no room, or SLURM refuses.
    """
    new = elements_for(todo, resources, numbers(experiment.folder))
    now = first_wave(new, preset, resources, elements, canary)
    for line in about_waves(new, now, preset, resources):
        print(line)
    beside = experiment.own(elements)
    active = [element for element in beside if element.is_of(*experiment.arrays)]
    if not now and not active:
        raise SettingsError(
            f"your queue on {preset.name} is full, so nothing is submitted. The experiment is planned: "
            f"once there is room, `retry {quoted(experiment.shown)}`; or say --over_quota true",
            page="slurm.md#more-runs-than-a-queue-takes",
        )

    # What waits is written down first: if this is killed, `status` still says what was to come. Where requeue is
    # forbidden, runs that are stopped early may have to wait, too.
    if resources.pack > 1:
        write_packs(experiment.folder, new, todo, resources.pack)
    if len(now) < len(new) or (queue_limits(preset, resources) and not preset.requeue):
        note_waves(experiment, new, preset, resources)
    else:
        forget_waves(experiment)
    if not now:
        return 0
    first = todo[0] if canary else None
    return send(experiment, calls_for(experiment, now, preset, resources, first, beside), preset)


def check_plan(planned: Plan) -> None:
    """Check every run with Train.py's own parser; the first wrong one stops everything."""
    import_torchmetrics()
    from ..settings.parser import check_all  # imports torch

    total, terminal = len(planned.runs), sys.stderr.isatty()

    def progress(done: int) -> None:
        if terminal and (done % 20 == 0 or done == total):
            print(f"\rchecked {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    check_all(((str(run), planned.settings_of(run)) for run in planned.runs), progress)


def write_batch_files(
    experiment: Experiment, preset: Preset, resources: Resources, project: Path, canary: bool
) -> None:
    """Write job.sbatch, or pack.sbatch, and where they are needed canary.sbatch and notify.sbatch.

    Args:
        experiment: the planned experiment.
        preset: the cluster.
        resources: what each run gets.
        project: the working folder of the jobs.
        canary: True if the first run goes ahead alone.
    """
    files = {"array": experiment.batch} if resources.pack == 1 else {"pack": experiment.packed}
    if canary:
        files["canary"] = experiment.canary
    if notified(resources):
        files["notify"] = experiment.notify
    for kind, file in files.items():
        text = render(preset, resources, kind, experiment.folder.name, project, experiment.code, experiment.folder)
        write_atomically(file, text)
