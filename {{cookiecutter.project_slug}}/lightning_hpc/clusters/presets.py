"""What is known about a cluster.

A preset is one YAML file, configs/clusters/NAME.yaml; cluster.schema.json beside this module describes its keys, and
resources.py those of its `defaults`. To add a cluster, drop a file there: no code names one.
"""

import datetime
import functools
import json
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..settings.errors import SettingsError, did_you_mean
from ..settings.yaml_files import read_yaml

CLUSTERS = "configs/clusters"

PROJECT_RESOURCES = "configs/slurm.yaml"  # what every job of a project asks for

SCHEMA = Path(__file__).with_name("cluster.schema.json")


@dataclass(frozen=True)
class Partition:
    """Limits of a partition.

    Attributes:
        time: longest time limit, as sbatch writes it; None: not known.
        gpus: type of GPU → how many of them a node has; {}: a partition without GPUs; None: not known.
        min_gpus: fewest GPUs per node a job has to ask for.
        gpus_per_user: most GPUs that one user, or one project, may hold at a time.
        jobs_per_user: most jobs that one user may have in the queue, elements of arrays included.
        by_name_only: never chosen for a job that names no partition, because it is short or special.
    """

    time: str | None = None
    gpus: Mapping[str, int] | None = None
    min_gpus: int = 0
    gpus_per_user: int | None = None
    jobs_per_user: int | None = None
    by_name_only: bool = False


@dataclass(frozen=True)
class Preset:
    """A cluster, as configs/clusters/NAME.yaml describes it; cluster.schema.json says what each key means."""

    name: str
    description: str
    source: str
    checked: str
    status: str
    platform: str | None = None
    login_hosts: tuple[str, ...] = ()
    submit: str = "sbatch"
    required: tuple[str, ...] = ()
    gpu_option: str = "gres"
    gpu_types: Mapping[str, str] = field(default_factory=dict)
    gpu_constraints: Mapping[str, str] = field(default_factory=dict)
    gpu_type_required: bool = False
    cpus_per_gpu: int | None = None
    share_follows_gpus: bool = False
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    limits: Partition = Partition()
    array_limit: int = 1000
    jobs_per_user: int | None = None
    array_mail: bool = True
    requeue: bool = True
    setup: tuple[str, ...] = ()
    container: str = "apptainer exec --nv --cleanenv --no-home"
    conda: Mapping[str, str] = field(default_factory=dict)
    purge_days: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def names(root: Path) -> list[str]:
    """The clusters that the project in `root` has presets for."""
    return sorted(file.stem for file in (root / CLUSTERS).glob("*.yaml"))


def load(name: str, root: Path) -> Preset:
    """The preset of a cluster.

    Raises:
        SettingsError: there is none of that name, or its file is wrong.
    """
    # The names first, so that a typing error does not become a missing file.
    known = names(root)
    if name not in known:
        hint = did_you_mean(name, known)
        raise SettingsError(f"no such cluster: {name}{hint}; there are {', '.join(known)} in {CLUSTERS}")
    data = read(root / CLUSTERS / f"{name}.yaml")
    check_preset(data, f"{CLUSTERS}/{name}.yaml")

    partitions = {key: Partition(**value) for key, value in data.pop("partitions", {}).items()}
    limits = Partition(**data.pop("limits", {}))
    return Preset(name=name, partitions=partitions, limits=limits, **with_tuples(data))


def project_resources(root: Path) -> dict[str, Any]:
    """What the project's own jobs ask for, configs/slurm.yaml: `cluster` and keys of resources; {} without the file."""
    file = root / PROJECT_RESOURCES
    return read_yaml(file) if file.exists() else {}


def choose(name: str | None, root: Path) -> Preset:
    """The preset to use: `name`, else the `cluster` of configs/slurm.yaml; `auto` goes by this machine's name.

    Raises:
        SettingsError: no preset has that name, or this machine is not a login node that a preset knows.
    """
    name = name or project_resources(root).get("cluster") or "auto"
    if name != "auto":
        return load(name, root)

    # `auto`: one preset, and only one, has to know this machine; a guess would ask for the wrong things.
    hosts = {socket.gethostname(), socket.getfqdn()}
    known = names(root)
    fitting = [preset for preset in (load(each, root) for each in known) if has_login_host(preset, hosts)]
    if len(fitting) > 1:  # one site, several architectures
        fitting = [preset for preset in fitting if (preset.platform or "").endswith(f"-{machine()}")]
    if len(fitting) != 1:
        raise SettingsError(
            f"can't tell the cluster from this machine's name, {min(hosts)}: say which with --cluster, or with "
            f"`cluster:` in {PROJECT_RESOURCES}; there are {', '.join(known)}",
            page="clusters.md#another-cluster",
        )
    return fitting[0]


def has_login_host(preset: Preset, hosts: set[str]) -> bool:
    """True if one of a machine's names is that of a login node of the cluster."""
    return any(fnmatch(host, pattern) for host in hosts for pattern in preset.login_hosts)


def machine() -> str:
    """This machine's architecture as conda calls it: 64, aarch64, ppc64le."""
    return {"x86_64": "64"}.get(platform.machine(), platform.machine())


def seconds(time: str) -> int:
    """Seconds of a time limit in any of sbatch's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S. UNLIMITED is very long.

    Raises:
        SettingsError: it has none of these forms, or is 0.
    """
    if time.upper() in ("UNLIMITED", "INFINITE"):
        return 10 * 365 * 24 * 3600

    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time, re.ASCII)
    if match:
        days, *parts = match.groups()
        numbers = [int(part) for part in parts if part is not None]
        # After days come hours; without days a single number is minutes, and two are minutes and seconds.
        if days is not None:
            hours, minutes, rest = [*numbers, 0, 0][:3]
        else:
            hours, minutes, rest = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
        total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
        if total:
            return total
    raise SettingsError(f"time {time} is not a time limit: write minutes, H:MM:SS, or D-HH:MM:SS")


def read(file: Path) -> dict[str, Any]:
    """A preset's YAML file as it stands, dates as text."""
    data = read_yaml(file)
    for key, value in data.items():
        if isinstance(value, datetime.date):
            data[key] = value.isoformat()
    return data


def with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's data with tuples for lists; a single line of `setup` may be written without a list."""
    several = {each.name for each in fields(Preset) if each.type == tuple[str, ...]}
    result = dict(data)
    for key in several & set(data):
        value = data[key]
        result[key] = (value,) if isinstance(value, str) else tuple(value)
    return result


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of presets."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def check_preset(data: Mapping[str, Any], where: str) -> None:
    """Check a preset's data against the schema.

    Raises:
        SettingsError: names the key, what is wrong with it and, for an unknown key, the nearest known one.
    """
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError:  # in the post-generation hook, whose presets the template's tests have checked
        return
    for error in Draft202012Validator(schema()).iter_errors(data):
        key = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in known)
            name = f"{key}.{unknown}" if key else unknown
            raise SettingsError(f"{where}: unknown key {name}{did_you_mean(str(unknown), known)}")

        place = f"{key}: " if key else ""
        hint = error.schema.get("description")
        raise SettingsError(f"{where}: {place}{error.message}{f' ({hint})' if hint else ''}")
