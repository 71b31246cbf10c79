"""What is known about a cluster.

A preset is one YAML file, configs/clusters/NAME.yaml; cluster.schema.json beside this module describes its keys. To add
a cluster, drop a file there: no code names one. Whether a cluster can serve a request: resources.py.
"""

import datetime
import functools
import json
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..runs.settings import SettingsError, did_you_mean, read_yaml

CLUSTERS = "configs/clusters"
STANDING_REQUEST = "configs/slurm.yaml"
SCHEMA = Path(__file__).with_name("cluster.schema.json")


@dataclass(frozen=True)
class Partition:
    """Limits of a partition.

    Attributes:
        time: longest time limit, as sbatch writes it; None: not known.
        gpus: type of GPU → how many of them a node has; {}: a partition without GPUs; None: not known.
        min_gpus: fewest GPUs per node a job has to ask for.
        gpus_per_user: most GPUs that one user, or one project, may hold at a time.
        by_name_only: never chosen for a request that names no partition, because it is short or special.
    """

    time: str | None = None
    gpus: Mapping[str, int] | None = None
    min_gpus: int = 0
    gpus_per_user: int | None = None
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
    gpu_type_required: bool = False
    cpus_per_gpu: int | None = None
    share_follows_gpus: bool = False
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    limits: Partition = Partition()
    array_limit: int = 1000
    array_mail: bool = True
    requeue: bool = True
    setup: tuple[str, ...] = ()
    conda: Mapping[str, str] = field(default_factory=dict)
    purge_days: int | None = None
    internet: bool | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def names(root: Path) -> list[str]:
    """The clusters that the project in `root` has presets for."""
    return sorted(file.stem for file in (root / CLUSTERS).glob("*.yaml"))


def load(name: str, root: Path) -> Preset:
    """The preset of a cluster.

    Raises:
        SettingsError: there is no such preset, or its file is wrong.
    """
    known = names(root)
    if name not in known:
        hint = did_you_mean(name, known)
        raise SettingsError(f"no such cluster: {name}{hint}; there are {', '.join(known)} in {CLUSTERS}")
    file = root / CLUSTERS / f"{name}.yaml"
    data = read(file)
    validate(data, "preset", f"{CLUSTERS}/{name}.yaml")
    partitions = {key: Partition(**value) for key, value in data.pop("partitions", {}).items()}
    limits = Partition(**data.pop("limits", {}))
    return Preset(name=name, partitions=partitions, limits=limits, **tuples(data, Preset))


def standing_request(root: Path) -> dict[str, Any]:
    """The project's own request, configs/slurm.yaml: `cluster` and any resource keys; {} without the file."""
    file = root / STANDING_REQUEST
    return read(file) if file.exists() else {}


def choose(name: str | None, root: Path) -> Preset:
    """The preset to use: `name`, else the `cluster` of configs/slurm.yaml; `auto` goes by this machine's name.

    Raises:
        SettingsError: no preset has that name, or this machine is not a login node that a preset knows.
    """
    name = name or standing_request(root).get("cluster") or "auto"
    if name != "auto":
        return load(name, root)
    hosts = {socket.gethostname(), socket.getfqdn()}
    presets = [load(each, root) for each in names(root)]
    found = [p for p in presets if any(fnmatch(host, pattern) for host in hosts for pattern in p.login_hosts)]
    if len(found) > 1:  # one site, several architectures
        found = [p for p in found if (p.platform or "").endswith(f"-{machine()}")]
    if len(found) != 1:
        raise SettingsError(
            f"can't tell the cluster from this machine's name, {min(hosts)}: say which with --cluster, or with "
            f"`cluster:` in {STANDING_REQUEST}; there are {', '.join(names(root))}"
        )
    return found[0]


def activation(preset: Preset, slug: str, account: str | None) -> str | None:
    """The line of a batch file that activates the project's conda environment; None where the preset has no place."""
    folder, command = conda_folder(preset, slug, account), preset.conda.get("activate", "")
    if command.startswith("conda "):  # a shell function, which a job's shell does not have
        command = f'source "$(conda info --base)/etc/profile.d/conda.sh" && {command}'
    return f'{command} "{folder}"' if folder else None


def conda_folder(preset: Preset, slug: str, account: str | None) -> str | None:
    """Where the preset puts the conda environment of a project; None: where conda puts it."""
    folder = preset.conda.get("folder")
    if not folder or ("{account}" in folder and not account):
        return None
    return folder.format(slug=slug, account=account)


def machine() -> str:
    """This machine's architecture as conda calls it: 64, aarch64, ppc64le."""
    return {"x86_64": "64"}.get(platform.machine(), platform.machine())


def read(file: Path) -> dict[str, Any]:
    """A YAML file as it stands, dates as text."""
    return {
        key: value.isoformat() if isinstance(value, datetime.date) else value for key, value in read_yaml(file).items()
    }


def tuples(data: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The same with tuples for lists; a single line of `before`, `setup`, … may be written without a list."""
    several = {each.name for each in fields(kind) if each.type == tuple[str, ...]}
    return {
        key: ((value,) if isinstance(value, str) else tuple(value)) if key in several else value
        for key, value in data.items()
    }


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of presets and requests."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def validate(data: Mapping[str, Any], definition: str, where: str) -> None:
    """Check a mapping against a definition of the schema.

    Raises:
        SettingsError: names the key, what is wrong with it and, for an unknown key, the nearest known one.
    """
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError:  # in the post-generation hook, whose presets the template's tests have checked
        return
    rules = {**schema(), "$ref": f"#/$defs/{definition}"}
    for error in Draft202012Validator(rules).iter_errors(data):
        key = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in known)
            name = f"{key}.{unknown}" if key else unknown
            raise SettingsError(f"{where}: unknown key {name}{did_you_mean(str(unknown), known)}")
        hint = error.schema.get("description", "")
        raise SettingsError(f"{where}: {key and key + ': '}{error.message}{hint and f' ({hint})'}")
