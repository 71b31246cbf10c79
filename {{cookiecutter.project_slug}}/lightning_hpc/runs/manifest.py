"""What a run reads of its experiment's folder: the settings that all its runs share, and what it alone sets."""

import json
from pathlib import Path

from ..settings.errors import SettingsError
from ..settings.flat import Flat, read_settings

MANIFEST = "manifest.jsonl"  # of an experiment: one line for each planned run

Layers = list[tuple[Flat, str]]  # settings, each with where they come from


def planned_run(experiment: Path, index: str) -> dict:
    """A run's line in the manifest of its experiment: identity, folder, and overlay, which is what it alone sets.

    Args:
        experiment: the experiment's folder, with configs/ and manifest.jsonl (experiments/writing.py writes them).
        index: the run's place in the manifest, from 0.

    Raises:
        SettingsError: there is no such experiment or no such run in it.
    """
    try:
        with (experiment / MANIFEST).open(encoding="utf-8") as manifest:
            for number, line in enumerate(manifest):
                if str(number) == index:
                    return json.loads(line)
    except OSError:
        raise SettingsError(f"--run {experiment} is no planned experiment: it has no {MANIFEST}") from None
    raise SettingsError(f"--index {index}: {experiment / MANIFEST} has no such run")


def frozen_layers(experiment: Path) -> Layers:
    """The settings that all runs of an experiment share, as they were when it was submitted.

    Each file begins with a comment that says where its settings come from.
    """
    layers = []

    # Their names begin with numbers, in the order in which they are laid over each other.
    for file in sorted((experiment / "configs").glob("*.yaml")):
        first_line = file.read_text(encoding="utf-8").partition("\n")[0]
        source = file.name
        if first_line.startswith("# "):
            source = first_line.removeprefix("# ")
        layers.append((read_settings(file), source))

    return layers
