"""For which cluster, and for what, a command asks: what was written down, and over it what was typed."""

import argparse
from pathlib import Path
from typing import Any

from ..clusters import presets
from ..clusters.presets import Preset
from ..clusters.resources import from_command_line, read_resources


def asked_for(arguments: argparse.Namespace, root: Path, earlier: dict[str, Any]) -> tuple[Preset, dict[str, Any]]:
    """The cluster and the resources: the project's own, over them `earlier`, over them the command line's.

    Args:
        arguments: the command line, with `cluster` and `resources`.
        root: the project's folder.
        earlier: a specification's `resources`, or what an experiment was submitted with.
    """
    # Each layer is read by itself: it may use other names for the same keys, and a mistake is reported with its place.
    given = {name: from_command_line(name, text) for name, text in arguments.resources}
    layers = {
        **read_resources(presets.project_resources(root), presets.PROJECT_RESOURCES),
        **read_resources(earlier),
        **read_resources(given, "command line"),
    }
    preset = presets.choose(arguments.cluster or layers.get("cluster"), root)
    return preset, {**layers, "cluster": preset.name}
