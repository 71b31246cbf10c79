"""For which cluster, and for what, a command asks: what was written down, and over it what was typed."""

import argparse
import math
from pathlib import Path
from typing import Any

from ..clusters import presets
from ..clusters.presets import Preset
from ..clusters.resources import Resources, from_command_line, read_resources
from ..experiments.measured import last_measured
from ..settings.errors import SettingsError

EARLY = 60  # seconds: sbatch's --signal may be sent that much earlier than asked for


def asked_for(arguments: argparse.Namespace, root: Path, earlier: dict[str, Any]) -> tuple[Preset, dict[str, Any]]:
    """The cluster and the resources: the project's own, over them `earlier`, over them the command line's.

    Args:
        arguments: the command line, with `cluster` and `resources`.
        root: the project's folder.
        earlier: a specification's `resources`, or what an experiment was submitted with.
    """
    # Each layer is read by itself: it may use other names for the same keys, and a mistake is reported with its place.
    given = {name: from_command_line(name, text) for name, text in arguments.resources}
    layers = {**written_down(root, earlier), **read_resources(given, "command line")}
    preset = presets.choose(arguments.cluster or layers.get("cluster"), root)
    return preset, {**layers, "cluster": preset.name}


def written_down(root: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    """The resources that files say: the project's own, over them `earlier`, see `asked_for`."""
    own = read_resources(presets.project_resources(root), presets.PROJECT_RESOURCES)
    return {**own, **read_resources(earlier)}


def about_slices(resources: Resources, runs: Path, experiment: str | None = None) -> list[str]:
    """What a slice leaves for training, by what earlier runs have measured; [] where runs are not cut in slices.

    Args:
        resources: what each run gets.
        runs: the folder of all experiments.
        experiment: name of the one whose measurements count first.

    Raises:
        SettingsError: nothing is left.
    """
    length = resources.slice_seconds
    if not length:
        return []
    measured = last_measured(runs, experiment)
    if measured is None:
        return ["how long a start and a save take is not known yet: a run that gets no further in a slice has failed"]

    # A run saves when it is told of the end, so that the save lies in the notice if it is no longer than that.
    notice = max(measured.save, resources.signal_seconds)
    said = f"a start took up to {measured.start:.3g} s and a save {measured.save:.3g} s in {measured.experiment}"
    needed = measured.start + notice + EARLY
    if length <= needed:
        raise SettingsError(
            f"slice {resources.slice} is too short: {said}, and runs are told of the end {resources.signal_seconds} s "
            f"before it (signal_seconds), or up to a minute earlier. Ask for at least {math.ceil(needed / 60)} minutes",
            page="slurm.md#slices-short-jobs-for-long-runs",
        )
    share = (measured.start + measured.save) / (length - notice + measured.save)
    return [f"{said}: {share:.0%} of a slice, beside the wait for the next one"]
