"""One planner for every way of asking for runs: the overlays of expand.py, each with an identity and a folder.

It writes nothing. Launchers differ only in how they execute its list.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .expand import axes, distinct, product
from .identity import folder_name
from .request import BASE, NAME, Request, assemble, find, short
from .settings import Flat, SettingsError, read

# One array is one shape of job, in one folder.
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
        values = ", ".join(f"{key}={json.dumps(value, default=str)}" for key, value in self.overlay.items())
        return f"run {self.index} ({values or 'no changes'})"


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
        spec: the request as read.
    """

    name: str
    folder: Path
    layers: list[tuple[Flat, str]]
    runs: list[PlannedRun]
    factors: list[tuple[str, int]]
    notes: list[str] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)

    def request(self, run: PlannedRun) -> Request:
        """What the run will ask Train.py for."""
        return assemble("fit", [*self.layers, (run.overlay, str(run))], [])

    def summary(self) -> str:
        """`108 runs = 6 data.batch_size × 18 LIST_OF_OPTIMIZERS`."""
        factors = " × ".join(f"{count} {key}" for key, count in self.factors if count > 1)
        return f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}{f' = {factors}' if factors else ''}"


def plan(
    spec: Mapping[str, Any], root: Path, name: str | None = None, extra: Callable[[Flat], Flat] | None = None
) -> Plan:
    """All runs of a request, each with its identity and the name of its folder.

    Args:
        spec: the request, see `read_spec`.
        root: the project's folder.
        name: the experiment's name instead of the request's.
        extra: from the settings that all runs share to more of them, such as trainer.num_nodes for what SLURM gives.

    Raises:
        SettingsError: the request has no meaning, or a file it names is missing or wrong.
    """
    name = name or spec.get("name")
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise SettingsError(
            f"`name: {name}` can't name an experiment: use letters, digits and ._=+- (no bare number or date)"
            if name is not None
            else "the experiment needs a name: `name: NAME` in the file, or --name NAME"
        )
    files = [root / BASE, *(find(str(each), root) for each in spec.get("configs") or [])]
    common: Flat = {"name": name}
    if spec.get("codeversion") is not None:
        common["codeversion"] = str(spec["codeversion"])
    layers = [(read(file), short(file, root)) for file in files]
    layers.append((common, "the experiment"))
    if extra and (more := extra(assemble("fit", layers, []).settings.flat)):
        layers.append((more, "resources"))

    parts = axes(spec)
    everything = list(product(parts))
    overlays = distinct(everything)
    notes = []
    if len(overlays) < len(everything):
        notes.append(f"{len(everything) - len(overlays)} duplicates are left out")
    for key, choices in parts:
        asked = spec.get("run_cap") if "method" in spec else spec.get("trials")
        if key == "trials" and len(choices) < asked:
            notes.append(f"the space has no more than {len(choices)} different runs, {asked} were asked for")

    if own := set(SHARED) & {key for overlay in overlays for key in overlay}:
        raise SettingsError(f"{min(own)} is the same for all runs of an experiment: it can't be one of the parameters")
    varying = {key for overlay in overlays for key in overlay} - {
        key for key in overlays[0] if all(key in o and o[key] == overlays[0][key] for o in overlays)
    }
    runs, taken = [], {}
    for overlay in overlays:
        index = len(runs)
        try:
            wanted = assemble("fit", [*layers, (overlay, f"run {index}")], [])
        except SettingsError as error:
            raise SettingsError(f"run {index}: {error}") from None
        if wanted.identity in taken:  # different overlays, same settings: one of them repeats what a file says
            notes.append(f"{overlay} repeats {taken[wanted.identity]} and is left out")
            continue
        folder = wanted.folder.path.parent
        trial = wanted.settings.flat.get("trial", 0)
        names = {key: value for key, value in overlay.items() if key in varying}
        leaf = folder_name(trial, names, wanted.identity)
        runs.append(PlannedRun(index, overlay, wanted.identity, leaf))
        taken[wanted.identity] = runs[-1]
    return Plan(name, folder, layers, runs, [(key, len(choices)) for key, choices in parts], notes, dict(spec))
