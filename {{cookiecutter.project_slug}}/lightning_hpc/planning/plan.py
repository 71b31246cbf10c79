"""One planner for every way of asking for runs: the overlays of a specification, each with an identity and a folder.

It writes nothing. Launchers differ only in how they execute its list.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..printing import counted
from ..runs.identity import another_name, folder_name
from ..runs.manifest import Layers
from ..runs.run import BASE, EXPERIMENT_NAME, assemble, give_seed, identify, merge
from ..settings.classes import work_in
from ..settings.errors import SettingsError
from ..settings.flat import Flat, find_settings_file, read_settings, relative_to_project
from ..settings.layers import Settings, with_seed
from ..settings.reading.meaning import settle
from .specification import Axis, count_combinations, expand, read_axes

# One array is one shape of job, in one folder: these settings are the same for all runs of an experiment.
SHARED = ("name", "runs_dir", "trainer.devices", "trainer.num_nodes")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        index: its place in the plan, from 0; the SLURM array index.
        overlay: what it lays over the experiment's settings, short key → value.
        identity: 16 hexadecimal digits, see runs/identity.py.
        folder: name of its folder in the experiment's folder.
    """

    index: int
    overlay: Flat
    identity: str
    folder: str

    def __str__(self) -> str:
        changes = []
        for key, value in self.overlay.items():
            changes.append(f"{key}={json.dumps(value, default=str)}")

        return f"run {self.index} ({', '.join(changes) or 'no changes'})"


@dataclass
class Plan:
    """An experiment: its settings and its runs, in order.

    Attributes:
        name: the experiment.
        folder: its folder.
        layers: settings of all its runs, each layer with the file it comes from; runs' overlays are laid over them.
        runs: the runs; index = position.
        factors: what is multiplied, as (key, how many).
        notes: what the user should know: duplicates left out, a space with fewer runs than asked for.
        specification: what the plan was made from, as read.
    """

    name: str
    folder: Path
    layers: Layers
    runs: list[PlannedRun]
    factors: list[tuple[str, int]]
    notes: list[str] = field(default_factory=list)
    specification: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def shared(self) -> Settings:
        """The settings that all its runs share, merged once: that takes longer than laying an overlay over them."""
        return merge(self.layers)

    def settings_of(self, planned: PlannedRun) -> Settings:
        """A run's settings, as Train.py will read them from the experiment's folder."""
        return overlaid(self.shared, planned.overlay, str(planned))

    def summary(self) -> str:
        """`108 runs = 6 data.batch_size × 18 LIST_OF_OPTIMIZERS`."""
        count = counted(len(self.runs), "run")

        # A factor of one multiplies nothing.
        factors = [f"{size} {key}" for key, size in self.factors if size > 1]
        if not factors:
            return count

        return f"{count} = {' × '.join(factors)}"


def plan(
    specification: Mapping[str, Any],
    root: Path,
    name: str | None = None,
    extra: Callable[[Flat], Flat] | None = None,
) -> Plan:
    """All runs of a specification, each with its identity and the name of its folder.

    Args:
        specification: which runs there are to be, see `read_specification`.
        root: the project's folder.
        name: the experiment's name instead of the specification's.
        extra: from the settings that all runs share to more of them, such as trainer.num_nodes for what SLURM gives.

    Raises:
        SettingsError: the specification has no meaning, or a file it names is missing or wrong.
    """
    work_in(root)
    name = name or specification.get("name")
    check_name(name)

    layers = shared_layers(specification, root, name)
    if extra:
        more = extra(assemble("fit", layers, []).settings.flat)
        if more:
            layers.append((more, "resources"))

    # What a specification means is decided before any run is assembled, so that its mistakes are said first.
    axes = read_axes(specification)
    overlays = expand(axes)
    if not overlays:
        raise SettingsError("the specification makes no runs: one of its ranges is empty")
    refuse_shared_keys(overlays)

    # The experiment's folder is that of any of its runs.
    folder = assemble("fit", layers, []).folder.path.parent
    runs, repetitions = plan_runs(layers, overlays)
    notes = [*notes_on_axes(specification, axes, len(overlays)), *repetitions]
    factors = [(key, len(choices)) for key, choices in axes]
    return Plan(name, folder, layers, runs, factors, notes, dict(specification))


def check_name(name: Any) -> None:
    """Check that a name can be that of an experiment."""
    if name is None:
        raise SettingsError("the experiment needs a name: `name: NAME` in the file, or --name NAME")

    if not (isinstance(name, str) and EXPERIMENT_NAME.fullmatch(name)):
        raise SettingsError(
            f"`name: {name}` can't name an experiment: use letters, digits and ._=+- (no bare number or date)"
        )


def shared_layers(specification: Mapping[str, Any], root: Path, name: str) -> Layers:
    """The settings that all runs share: configs/base.yaml, the files of `configs`, the name and the code's version."""
    # The later layer wins: a file of `configs` over configs/base.yaml, and the name of the experiment over them all.
    files = [root / BASE]
    for config in specification.get("configs") or []:
        files.append(find_settings_file(str(config), root))

    experiment: Flat = {"name": name}
    if specification.get("codeversion") is not None:
        experiment["codeversion"] = str(specification["codeversion"])

    layers = [(read_settings(file), relative_to_project(file, root)) for file in files]
    return [*layers, (experiment, "the experiment")]


def refuse_shared_keys(overlays: list[Flat]) -> None:
    """Check that no run changes what all runs of an experiment share."""
    keys: set[str] = set()
    for overlay in overlays:
        keys |= overlay.keys()

    shared = sorted(keys & set(SHARED))
    if shared:
        raise SettingsError(f"{shared[0]} is the same for all runs of an experiment: it can't be one of the parameters")


def varying_keys(overlays: list[Flat]) -> set[str]:
    """The keys that not all overlays have with the same value: what tells the runs apart for a reader."""
    # If all agree with the first, all agree with each other: no need to compare every pair.
    first = overlays[0]
    varying: set[str] = set()

    for overlay in overlays:
        varying |= first.keys() ^ overlay.keys()  # the keys that only one of the two has
        for key in first.keys() & overlay.keys():
            if overlay[key] != first[key]:
                varying.add(key)

    return varying


def plan_runs(layers: Layers, overlays: list[Flat]) -> tuple[list[PlannedRun], list[str]]:
    """Give each overlay an identity and a folder.

    Returns:
        the runs, and a note for each overlay that is left out since it repeats an earlier run.
    """
    shared = merge(layers)
    varying = varying_keys(overlays)
    runs: dict[str, PlannedRun] = {}  # by identity, in order
    folders: set[str] = set()
    notes = []

    for overlay in overlays:
        index = len(runs)
        try:
            settings = overlaid(shared, overlay, f"run {index}")
            run_identity = identify(settings)
        except SettingsError as error:
            raise SettingsError(f"run {index}: {error}") from None

        # Different overlays can be the same settings: one of them repeats what a file says.
        if run_identity in runs:
            notes.append(f"{overlay} repeats {runs[run_identity]} and is left out")
            continue

        # Names tell the runs of a plan apart, so they leave out what is the same in all of them.
        named = {}
        for key, value in overlay.items():
            if key in varying:
                named[key] = value

        # Two runs may have the same digits in their names; there are two folders all the same.
        folder = folder_name(settings.flat.get("trial", 0), named, run_identity)
        if folder in folders:
            folder = another_name(folder, folders)
        folders.add(folder)
        runs[run_identity] = PlannedRun(index, overlay, run_identity, folder)

    return list(runs.values()), notes


def overlaid(shared: Settings, overlay: Flat, source: str) -> Settings:
    """The settings of one run: what is shared, the overlay, and what they mean together, its seed included.

    Raises:
        SettingsError: a class name in the overlay has several meanings, or trial and seed contradict each other.
    """
    settings = shared.copy()
    settings.add(with_seed(overlay), source)
    settle(settings)
    give_seed(settings)
    return settings


def notes_on_axes(specification: Mapping[str, Any], axes: list[Axis], overlays: int) -> list[str]:
    """Notes on combinations that repeat others, and on a space with fewer points than trials were asked for."""
    notes = []

    # The user has counted on a product; where runs are missing from it, there must be a reason.
    combinations = count_combinations(axes)
    if overlays < combinations:
        notes.append(f"{combinations - overlays} duplicates are left out")

    # A sweep file has W&B's name for the number of runs.
    trials = specification.get("trials")
    if "method" in specification:
        trials = specification.get("run_cap")

    for key, choices in axes:
        if key == "trials" and len(choices) < trials:
            notes.append(f"the space has no more than {len(choices)} different runs, {trials} were asked for")

    return notes
