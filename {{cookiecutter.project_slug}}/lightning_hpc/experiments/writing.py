"""Writing a planned experiment's folder, and moving an earlier one of its name aside."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import place_aside, write_atomically
from ..planning.plan import Plan
from ..runs.manifest import MANIFEST
from ..scheduler.commands import PAUSES
from ..settings.errors import SettingsError
from ..settings.places import quoted
from ..settings.yaml_files import dump
from .experiment import Experiment
from .links import move
from .standing import standings


def write(plan: Plan, root: Path, resources: Mapping[str, Any], spec: str, overwrite: bool = False) -> Experiment:
    """Write an experiment's folder, all but its batch files; the manifest comes last. Needs `only_submission`.

    Args:
        plan: the runs.
        root: the project's folder, from which the code is copied.
        resources: cluster and resources.
        spec: the text of the specification's file.
        overwrite: move an experiment of the same name aside; nothing is deleted.

    Raises:
        SettingsError: there is one of that name, and runs of it are in the queue or it may not be overwritten.
    """
    experiment = Experiment(plan.folder, planned=False)
    if (experiment.folder / MANIFEST).exists():
        set_aside(experiment, overwrite)
    write_folder(experiment, plan, root, resources, spec)
    return experiment


def set_aside(experiment: Experiment, overwrite: bool) -> None:
    """Move an experiment to runs/.old/NAME-K, if that was asked for and nothing of it is queued or running."""
    folder = experiment.folder
    if not overwrite:
        raise SettingsError(
            f"{folder.name} is there already, with {len(experiment.rows)} runs: see `status {quoted(folder)}`, "
            f"continue with `retry {quoted(folder)}`, give this one another --name, or start over with --overwrite "
            "(the old one is kept)"
        )

    # What runs would lose its folder under its feet: jobs of all users, and runs that somebody has started by hand.
    elements = experiment.queue(PAUSES)
    if active := experiment.own(elements):
        whose = ", ".join(sorted({element.user for element in active}))
        raise SettingsError(
            f"{len(active)} jobs of {folder.name} are queued or running ({whose}): `cancel {quoted(folder)}` first"
        )
    for run in standings(experiment, elements):
        if run.state in ("running", "pending"):
            raise SettingsError(f"run {run.index} of {folder.name} is {run.state}, {run.reason}: end it first")
    move(folder, place_aside(folder))


def write_folder(
    experiment: Experiment, plan: Plan, root: Path, resources: Mapping[str, Any], specification: str
) -> None:
    """Write what makes a folder an experiment, over what a submission that was killed may have left in it."""
    configs = experiment.folder / "configs"
    for folder in (configs, experiment.logs):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (layer, source) in enumerate(plan.layers):
        name = f"{number:02d}-{Path(source).stem.replace(' ', '-')}.yaml"
        (configs / name).write_text(f"# {source}\n{dump(layer)}", encoding="utf-8")

    # As it was given, with its comments; the plan that was made of it is in the manifest.
    (experiment.folder / "spec.yaml").write_text(specification, encoding="utf-8")

    shutil.rmtree(experiment.folder / "code", ignore_errors=True)
    experiment.take_code(root)
    experiment.write_resources(resources)

    # The manifest comes last: a folder that has one is complete.
    lines = []
    for run in plan.runs:
        row = dict(index=run.index, identity=run.identity, folder=run.folder, overlay=run.overlay)
        lines.append(json.dumps(row, default=str) + "\n")
    write_atomically(experiment.folder / MANIFEST, "".join(lines))
