"""What a pod of Kubernetes gets, from the same resources that a job of SLURM asks for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..clusters.placement import check_environment
from ..clusters.resources import Resources
from ..printing import counted
from ..settings.errors import SettingsError

# Kubernetes has no preset to take these from, and a pod that asks for nothing is the first to be evicted.
DEFAULTS = {"cpus": 4, "memory": "16G"}

# The keys of resources that mean something there.
UNDERSTOOD = ("gpus", "tasks", "nodes", "pack", "cpus", "memory", "throttle", "environment")

# Keys that change nothing for anybody if they are left out, so that nothing has to be said.
SILENT = ("cluster", "max_requeues", "signal_seconds", "over_quota")


@dataclass(frozen=True)
class Pod:
    """What one run gets.

    Attributes:
        gpus: of NVIDIA.
        cpus: of all its processes.
        memory: a quantity of Kubernetes, such as 16Gi; None: no limit.
        environment: variables, as text.
        throttle: most pods at a time; None: all.
    """

    gpus: int
    cpus: int
    memory: str | None
    environment: Mapping[str, str]
    throttle: int | None

    def __str__(self) -> str:
        """`1 GPU, 4 CPUs, 16Gi of memory`."""
        parts = [counted(self.gpus, "GPU"), counted(self.cpus, "CPU")]
        if self.memory:
            parts.append(f"{self.memory} of memory")
        return ", ".join(parts)


def resources_of(asked: Mapping[str, Any]) -> Resources:
    """The resources that were asked for, as far as Kubernetes knows them; one process per GPU, as Lightning expects.

    Raises:
        SettingsError: Kubernetes can't serve them.
    """
    given = {key: asked[key] for key in UNDERSTOOD if asked.get(key) is not None}
    resources = Resources(**{**DEFAULTS, "tasks": given.get("gpus") or 1, **given})
    if resources.nodes > 1:
        raise SettingsError(f"nodes {resources.nodes}: a run in Kubernetes is one pod, which is on one node: ask for 1")
    if resources.pack > 1:
        raise SettingsError(
            f"pack {resources.pack}: runs share a job in SLURM only; in Kubernetes the cluster shares its GPUs out "
            "(time-slicing, MIG): ask for 1"
        )
    check_environment(resources.environment)
    return resources


def pod_of(resources: Resources) -> Pod:
    """What a pod gets of some resources."""
    return Pod(
        gpus=resources.gpus,
        cpus=(resources.cpus or 1) * resources.tasks,
        memory=quantity(resources.memory),
        # $(NAME) would be replaced there by another variable.
        environment={name: str(value).replace("$(", "$$(") for name, value in resources.environment.items()},
        throttle=resources.throttle,
    )


def quantity(memory: str | None) -> str | None:
    """A memory size of SLURM, whose units are powers of 1024, as Kubernetes writes it: 16G → 16Gi; 0 → None."""
    if memory in (None, "0"):
        return None
    number, unit = re.fullmatch(r"(\d+)([KMGT])", memory).groups()
    return f"{number}{unit}i"


def left_out(asked: Mapping[str, Any]) -> list[str]:
    """The keys that were asked for and mean something to SLURM alone."""
    return sorted(key for key, value in asked.items() if key not in (*UNDERSTOOD, *SILENT) and value is not None)
