"""Whether a cluster can serve what a job asks for, and in which partition: decided before anything is submitted."""

import re
from collections.abc import Mapping
from typing import Any

from ..settings.errors import SettingsError, did_you_mean
from .packed import complete_pack
from .presets import CLUSTERS, PROJECT_RESOURCES, Partition, Preset, seconds
from .resources import LONGEST_NOTICE, Resources, read_resources
from .slices import cut_in_slices, job_limit

# sbatch's options that take the place of one of our keys: SLURM accepts only one of both.
IN_PLACE_OF = {"mem-per-cpu": "memory", "mem-per-gpu": "memory", "cpus-per-gpu": "cpus"}


def resolve(preset: Preset, asked: Mapping[str, Any], array: int | None = None, partial: bool = False) -> Resources:
    """Complete what is asked for with the preset's defaults, and check that the cluster can serve it.

    Args:
        preset: the cluster.
        asked: keys of `Resources` and options of sbatch; `cluster` may stand among them; None takes a default away.
        array: elements of the array; None for a single job.
        partial: leave out what the cluster requires and is not given, for a batch file whose user adds it.

    Returns:
        what the job gets.

    Raises:
        SettingsError: the cluster would reject the job or leave it waiting for ever; the message says what to change.
    """
    given = with_defaults(preset, asked)
    if "time" in given:
        given["seconds"] = seconds(given["time"])
    cut_in_slices(given)
    complete_pack(preset, given)
    if not partial:
        check_required(preset, given)
    check_environment(given.get("environment", {}))

    # The preset's name for the type helps to choose the partition; only then does SLURM's name take its place.
    given["gpu_type"] = gpu_type(preset, given.get("gpu_type"))
    given["partition"] = partition(preset, given)
    if given["gpu_type"] in preset.gpu_constraints:
        constraints = [given.get("constraint"), preset.gpu_constraints[given["gpu_type"]]]
        given["constraint"] = "&".join(constraint for constraint in constraints if constraint)
    given["gpu_type"] = gpu_type_for_slurm(preset, given)
    check_share(preset, given)

    # What is left are options of sbatch's own, which come before the ones that stand in `directives`.
    options = {name: given.pop(name) for name in list(given) if name not in Resources.__dataclass_fields__}
    own = tuple(directive(name, value) for name, value in options.items())
    given["directives"] = (*own, *given.get("directives", ()))

    if array is not None and not preset.array_mail:
        check_array_mail(preset, given["directives"])
        given["mail_by_job"] = "mail" in given
    # One process per GPU, as Lightning expects; and a short job is told later, so that it gets to train at all.
    given.setdefault("tasks", given.get("gpus") or 1)
    _, limit = job_limit(given)
    if limit:
        given.setdefault("signal_seconds", min(LONGEST_NOTICE, limit // 5))
    return Resources(**given)


def with_defaults(preset: Preset, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for over the preset's defaults, without what is None."""
    defaults = read_resources(preset.defaults, f"{CLUSTERS}/{preset.name}.yaml: defaults")
    own = read_resources(asked)

    # A default must not contradict what is asked for under another name.
    for option, key in IN_PLACE_OF.items():
        if own.get(option) is not None and own.get(key) is None:
            defaults.pop(key, None)

    # None has done its work now: it has taken a default away.
    given = {name: value for name, value in {**defaults, **own}.items() if value is not None}
    given.pop("cluster", None)  # it has chosen the preset
    return given


def check_required(preset: Preset, given: Mapping[str, Any]) -> None:
    """Check that everything is there that the cluster wants of every job."""
    for key in preset.required:
        if not given.get(key):
            raise SettingsError(
                f"{preset.name} needs the {key}: put `{key}: NAME` into {PROJECT_RESOURCES}", page="slurm.md#resources"
            )


def check_environment(environment: Mapping[str, Any]) -> None:
    """Check that no key stands in a batch file, which is kept and shared; sbatch passes the shell's variables on."""
    for name in environment:
        if re.search("KEY|TOKEN|SECRET|PASSWORD", name, re.IGNORECASE):
            raise SettingsError(
                f"environment: {name} looks like a secret, which would be written into the batch file: "
                "export it in the shell that submits, and jobs have it too"
            )


def check_share(preset: Preset, given: Mapping[str, Any]) -> None:
    """Check that nothing is asked for that comes with the GPUs."""
    if not preset.share_follows_gpus:
        return
    for name in ("cpus", "memory", *IN_PLACE_OF):
        if name in given:
            raise SettingsError(f"{preset.name} gives CPUs and memory with each GPU: leave `{name}` out")


def check_array_mail(preset: Preset, directives: tuple[str, ...]) -> None:
    """Check that an array has no option for mail, where the cluster rejects such arrays."""
    if any(option.startswith("--mail") for option in directives):
        raise SettingsError(
            f"{preset.name} rejects arrays with mail options: instead of --mail-… in `directives`, set "
            "`mail: ADDRESS`; a small job of its own then sends one mail"
        )


def known_types(preset: Preset) -> set[str]:
    """The types of GPU that a cluster has, as people say them."""
    everywhere = (preset.limits, *preset.partitions.values())
    return {kind for limits in everywhere for kind in limits.gpus or ()}


def gpu_type(preset: Preset, name: str | None) -> str | None:
    """The preset's name for a type of GPU, from that or from SLURM's own; any name is right where the preset has none.

    Raises:
        SettingsError: the cluster has no such GPUs.
    """
    known = known_types(preset)
    by_slurm_name = {slurm_name: kind for kind, slurm_name in preset.gpu_types.items()}
    name = by_slurm_name.get(name, name)
    if name is not None and known and name not in known:
        raise SettingsError(
            f"{preset.name} has no GPUs of type {name}{did_you_mean(name, known)}: "
            f"set gpu_type to one of {', '.join(sorted(known))}"
        )
    return name


def gpu_type_for_slurm(preset: Preset, given: Mapping[str, Any]) -> str | None:
    """SLURM's name for the type of GPU that is asked for; None where it has no name, or needs none.

    Raises:
        SettingsError: the cluster wants to know the type, and there is none.
    """
    kind = given["gpu_type"]
    if preset.gpu_type_required and given.get("gpus") and not kind:
        types = preset.partitions.get(given["partition"], preset.limits).gpus or preset.gpu_types
        raise SettingsError(f"{preset.name} needs the type of GPU: set gpu_type to one of {', '.join(types)}")
    if known_types(preset):
        return preset.gpu_types.get(kind)  # a type without a name of SLURM's has only helped to choose the partition
    return kind


def partition(preset: Preset, given: Mapping[str, Any]) -> str | None:
    """The partition asked for, or the first one that fits; None where a cluster has none to choose from.

    Raises:
        SettingsError: there is no such partition, or none that can serve the job.
    """
    asked = given.get("partition")

    # Where no partitions are known, any name may be right.
    if not preset.partitions:
        if problem := misfit(preset.limits, given):
            raise refusal(preset, problem)
        return asked

    if asked and asked not in preset.partitions:
        raise SettingsError(
            f"{preset.name} has no partition {asked}{did_you_mean(asked, preset.partitions)}: "
            f"there are {', '.join(preset.partitions)} (a new one belongs into {CLUSTERS}/{preset.name}.yaml)"
        )
    # The first one that fits; else all reasons, since each may be the one to do something about.
    candidates = [asked] if asked else open_partitions(preset, needs_gpus=bool(given.get("gpus")))
    usual = None if asked else usual_types(preset, candidates)
    problems = []
    for name in candidates:
        limits = preset.partitions[name]
        problem = misfit(limits, given) or other_types(limits, given, usual)
        if problem is None:
            return name
        problems.append(f"{name}: {problem}")
    raise refusal(preset, "; ".join(problems))


def refusal(preset: Preset, problem: str) -> SettingsError:
    """The error that says that a cluster can't serve what is asked for."""
    message = f"{preset.name} can't serve this: {problem}"
    if preset.status == "unverified":
        message += f". That preset is unverified: where the site says otherwise, change {CLUSTERS}/{preset.name}.yaml"
    return SettingsError(message)


def doubts(preset: Preset, resources: Resources) -> list[str]:
    """What may be wrong though nothing is refused: a warning for a preset whose facts are not all from the site.

    Args:
        preset: the cluster.
        resources: what the job gets.
    """
    if preset.status != "unverified":
        return []
    limits = preset.partitions.get(resources.partition or "", preset.limits)
    unknown = []
    if limits.time is None:
        unknown.append("how long a job may be")
    if limits.gpus is None and resources.gpus:
        unknown.append("which GPUs a node has")
    unchecked = f"; {' and '.join(unknown)} is not known and was not checked" if unknown else ""
    return [
        f"warning: {preset.name} is unverified: not all of {CLUSTERS}/{preset.name}.yaml is from the site's own pages "
        f"({preset.checked}){unchecked}. On its login node, `python SlurmTrain.py cluster {preset.name}` compares"
    ]


def usual_types(preset: Preset, candidates: list[str]) -> set[str] | None:
    """The types of GPU of the first partition that has any, which are meant where a job names none; None: not known."""
    for name in candidates:
        types = preset.partitions[name].gpus
        if types != {}:
            return None if types is None else set(types)
    return None


def other_types(limits: Partition, given: Mapping[str, Any], usual: set[str] | None) -> str | None:
    """Why a job that names no type of GPU does not fit into a partition with none of the usual types; None: it does."""
    if not given.get("gpus") or given.get("gpu_type") or usual is None or not limits.gpus:
        return None
    if usual & set(limits.gpus):
        return None
    return f"its GPUs are of another kind, set gpu_type to {' or '.join(limits.gpus)} if you mean them"


def open_partitions(preset: Preset, needs_gpus: bool) -> list[str]:
    """The partitions to choose from, in order; those with GPUs come last for a job that needs none."""
    names = [name for name, limits in preset.partitions.items() if not limits.by_name_only]
    if not needs_gpus:
        names.sort(key=lambda name: preset.partitions[name].gpus != {})
    return names


def misfit(limits: Partition, given: Mapping[str, Any]) -> str | None:
    """Why a job does not fit into a partition and what would; None: it fits."""
    gpus, nodes = given.get("gpus", 0), given.get("nodes", 1)

    # What is not known of a partition is not checked: SLURM will say.
    key, limit = job_limit(given)
    if limits.time and limit > seconds(limits.time):
        return f"{key} {given[key]} is over its limit, ask for at most {limits.time} (a run continues after it)"
    if gpus < limits.min_gpus:
        return f"gpus must be at least {limits.min_gpus}"
    if gpus and limits.gpus is not None and (problem := gpu_misfit(limits.gpus, gpus, given.get("gpu_type"))):
        return problem
    # All above is what there is. A quota is an agreement, and a project may have another one.
    quota = limits.gpus_per_user
    if quota and gpus * nodes > quota and not given.get("over_quota"):
        more = "or say --over_quota true if your project may have more"
        return f"{gpus * nodes} GPUs are more than one may hold there, ask for at most {quota}, {more}"
    return None


def gpu_misfit(available: Mapping[str, int], gpus: int, kind: str | None) -> str | None:
    """Why a partition's nodes don't have these GPUs; None: they have."""
    if not available:
        return "it has no GPUs, set gpus to 0"
    if kind and kind not in available:
        return f"it has no GPUs of type {kind}, only {', '.join(available)}"
    most = available[kind] if kind else max(available.values())
    if gpus > most:
        return f"gpus {gpus} is more than a node has, ask for at most {most} and for more nodes"
    return None


def directive(name: str, value: Any) -> str:
    """An option for a #SBATCH line: sbatch reads quotes as a shell would, but expands nothing."""
    if value is True:
        return f"--{name}"
    text = str(value)
    if not re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        text = '"' + text.replace('"', r"\"") + '"'
    return f"--{name}={text}"
