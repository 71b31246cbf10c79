"""What a job asks for, and whether a cluster can serve it: refused here, before anything is submitted.

A request is a mapping of resource keys (gpus, time, account, …). Its layers come from the preset's `defaults`,
configs/slurm.yaml, a job spec's `resources` and the command line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..runs.settings import SettingsError, did_you_mean
from .presets import CLUSTERS, STANDING_REQUEST, Partition, Preset, schema, tuples, validate

LONGEST_NOTICE = 300  # seconds before the time limit at which a job is told; a checkpoint has to fit in


@dataclass(frozen=True)
class Resources:
    """What one job (one array element) gets, checked against a preset.

    Attributes:
        gpus: GPUs per node.
        gpu_type: type of GPU as SLURM calls it; None where it is not asked for.
        tasks: processes per node, as a rule one per GPU.
        cpus: CPUs per task; None leaves it to the cluster.
        memory: per node, with a unit (16G); None leaves it to the cluster.
        time: time limit as sbatch writes it; None is the partition's own.
        seconds: the same in seconds.
        mail: address that hears when the job has ended.
        mail_by_job: a job of its own has to send that mail, because the cluster rejects arrays with mail options.
        throttle: most array elements at a time; None: no limit.
        directives: more #SBATCH options, each as on sbatch's command line.
        before, after: lines of bash before and after the run.
        activate: line of bash that activates an environment; None: the Python that submits is the one that runs.
        environment: environment variables.
        signal_seconds: how long before the time limit the run is told to save.
        max_requeues: how often a run may be started again by itself.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    nodes: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    tasks: int = 1
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    seconds: int | None = None
    begin: str | None = None
    mail: str | None = None
    mail_by_job: bool = False
    throttle: int | None = None
    directives: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    activate: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    signal_seconds: int = LONGEST_NOTICE
    max_requeues: int = 50


def resource_keys() -> dict[str, str]:
    """What a job can ask for: each key, and what it means in a few words."""
    return {name: key["description"] for name, key in schema()["$defs"]["resources"]["properties"].items()}


def resolve(preset: Preset, request: Mapping[str, Any], array: int | None = None, partial: bool = False) -> Resources:
    """Fill a request up with the preset's defaults and check that the cluster can serve it.

    Args:
        preset: the cluster.
        request: resource keys (see Resources); `cluster` may stand among them; None takes a default away.
        array: elements of the array; None for a single job.
        partial: leave out what the cluster requires and the request lacks, for a batch file whose user adds it.

    Raises:
        SettingsError: the cluster would reject the job or leave it waiting for ever; the message says what to change.
    """
    wanted = {key: value for key, value in {**preset.defaults, **request}.items() if value is not None}
    wanted.pop("cluster", None)
    validate(wanted, "resources", "resources")
    wanted = tuples(wanted, Resources)
    if "time" in wanted:
        wanted["time"] = str(wanted["time"])
        wanted["seconds"] = seconds(wanted["time"])
    for key in preset.required:
        if not wanted.get(key) and not partial:
            raise SettingsError(f"{preset.name} needs the {key}: put `{key}: NAME` into {STANDING_REQUEST}")
    refuse_secrets(wanted.get("environment", {}))

    wanted["gpu_type"] = gpu_type(preset, wanted.get("gpu_type"))
    wanted["partition"] = partition(preset, wanted)
    if preset.gpu_type_required and wanted.get("gpus") and not wanted["gpu_type"]:
        types = preset.partitions.get(wanted["partition"], preset.limits).gpus or preset.gpu_types
        raise SettingsError(f"{preset.name} needs the type of GPU: set gpu_type to one of {', '.join(types)}")
    if known_types(preset):  # a type that SLURM has no name for has only helped to choose the partition
        wanted["gpu_type"] = preset.gpu_types.get(wanted["gpu_type"])

    for key in ("cpus", "memory"):
        if preset.share_follows_gpus and key in wanted:
            raise SettingsError(f"{preset.name} gives CPUs and memory with each GPU: leave `{key}` out")
    if array is not None and not preset.array_mail:
        if any(option.startswith("--mail") for option in wanted.get("directives", ())):
            raise SettingsError(
                f"{preset.name} rejects arrays with mail options: instead of --mail-… in `directives`, set "
                "`mail: ADDRESS`; a small job of its own then sends one mail"
            )
        wanted["mail_by_job"] = "mail" in wanted
    wanted.setdefault("tasks", wanted.get("gpus") or 1)
    if "seconds" in wanted:
        wanted.setdefault("signal_seconds", min(LONGEST_NOTICE, wanted["seconds"] // 5))
    return Resources(**wanted)


def known_types(preset: Preset) -> set[str]:
    """The types of GPU that a cluster has, as people say them."""
    return {kind for limits in (preset.limits, *preset.partitions.values()) for kind in limits.gpus or ()}


def gpu_type(preset: Preset, wanted: str | None) -> str | None:
    """The preset's name for a type of GPU, from that or from SLURM's own; any name goes where the preset has none."""
    known = known_types(preset)
    by_slurm_name = {slurm_name: kind for kind, slurm_name in preset.gpu_types.items()}
    wanted = by_slurm_name.get(wanted, wanted)
    if wanted is not None and known and wanted not in known:
        raise SettingsError(
            f"{preset.name} has no GPUs of type {wanted}{did_you_mean(wanted, known)}: "
            f"set gpu_type to one of {', '.join(sorted(known))}"
        )
    return wanted


def partition(preset: Preset, wanted: Mapping[str, Any]) -> str | None:
    """The partition asked for, or the first one that can serve the request; None where a cluster has none to choose."""
    asked = wanted.get("partition")
    if not preset.partitions:
        if problem := misfit(preset.limits, wanted):
            raise SettingsError(f"{preset.name} can't serve this: {problem}")
        return asked
    if asked and asked not in preset.partitions:
        raise SettingsError(
            f"{preset.name} has no partition {asked}{did_you_mean(asked, preset.partitions)}: "
            f"there are {', '.join(preset.partitions)} (a new one belongs into {CLUSTERS}/{preset.name}.yaml)"
        )
    open_to_all = [name for name, each in preset.partitions.items() if not each.by_name_only]
    if not wanted.get("gpus"):  # GPU nodes only where there are no others
        open_to_all.sort(key=lambda name: preset.partitions[name].gpus != {})
    problems = {}
    for name in [asked] if asked else open_to_all:
        problems[name] = misfit(preset.partitions[name], wanted)
        if not problems[name]:
            return name
    what = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise SettingsError(f"{preset.name} can't serve this: {what}")


def misfit(limits: Partition, wanted: Mapping[str, Any]) -> str | None:
    """Why a request does not fit into a partition and what would, or None."""
    gpus, kind, nodes = wanted.get("gpus", 0), wanted.get("gpu_type"), wanted.get("nodes", 1)
    if limits.time and wanted.get("seconds", 0) > seconds(limits.time):
        return f"time {wanted['time']} is over its limit, ask for at most {limits.time} (a run goes on after it)"
    if gpus < limits.min_gpus:
        return f"gpus must be at least {limits.min_gpus}"
    if gpus and limits.gpus is not None:
        if not limits.gpus:
            return "it has no GPUs, set gpus to 0"
        if kind and kind not in limits.gpus:
            return f"it has no GPUs of type {kind}, only {', '.join(limits.gpus)}"
        most = limits.gpus[kind] if kind else max(limits.gpus.values())
        if gpus > most:
            return f"gpus {gpus} is more than a node has, ask for at most {most} and for more nodes"
    if limits.gpus_per_user and gpus * nodes > limits.gpus_per_user:
        return f"{gpus * nodes} GPUs are more than one may hold there, ask for at most {limits.gpus_per_user}"
    return None


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
        if days is not None:
            hours, minutes, rest = [*numbers, 0, 0][:3]
        else:
            hours, minutes, rest = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
        total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
        if total:
            return total
    raise SettingsError(f"time {time} is not a time limit: write minutes, H:MM:SS, or D-HH:MM:SS")


def refuse_secrets(environment: Mapping[str, str]) -> None:
    """Batch files are kept and shared, so no key may stand in one; sbatch passes the shell's variables on by itself."""
    for name in environment:
        if re.search("KEY|TOKEN|SECRET|PASSWORD", name, re.IGNORECASE):
            raise SettingsError(
                f"environment: {name} looks like a secret, which would be written into the batch file: "
                "export it in the shell that submits, and jobs have it too"
            )
