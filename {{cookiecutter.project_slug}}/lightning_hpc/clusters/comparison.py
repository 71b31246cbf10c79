"""A preset beside what its cluster says of itself; and a first preset for a cluster that has none."""

import datetime
import socket
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..settings.yaml_files import dump
from .own_words import UNTYPED, OwnWords
from .presets import CLUSTERS, Partition, Preset, machine, seconds

COMPARED = ("time", "gpus", "gpus_per_user", "jobs_per_user")  # of a partition


def compare(preset: Preset, words: OwnWords) -> str:
    """What differs between a preset and its cluster, as YAML to paste into the preset, with remarks before it."""
    remarks, changes = [], {}
    if preset.partitions:
        partitions = compare_partitions(preset, words, remarks)
        if partitions:
            changes["partitions"] = partitions
    else:
        # Without partitions, what a job gets is the default one, which comes first.
        said = next(iter(words.partitions.values()), {})
        limits = differences(preset, preset.limits, said, "limits", remarks)
        if limits:
            changes["limits"] = limits

    # Shorter arrays than the cluster would take only cost a call of sbatch.
    if words.array_limit and preset.array_limit > words.array_limit:
        remarks.append(f"array_limit: {words.array_limit} here, {preset.array_limit} in the preset")
        changes["array_limit"] = words.array_limit
    if words.jobs_per_user and preset.jobs_per_user != words.jobs_per_user:
        remarks.append(f"jobs_per_user: {words.jobs_per_user} here, {preset.jobs_per_user or 'none'} in the preset")
        changes["jobs_per_user"] = words.jobs_per_user
    if words.accounts:
        remarks.append(f"your accounts: {', '.join(words.accounts)}")

    head = f"{CLUSTERS}/{preset.name}.yaml beside what {words.name or 'this cluster'} says of itself, {today()}"
    if not changes:
        head += ": nothing differs"
    return text_of([head, *remarks, *sources(words)], {"checked": today(), **changes})


def compare_partitions(preset: Preset, words: OwnWords, remarks: list[str]) -> dict[str, Any]:
    """The partitions that differ, each as it should stand in the preset; remarks say what differs."""
    changed = {}
    for name, limits in preset.partitions.items():
        if name not in words.partitions:
            remarks.append(f"partitions.{name}: in the preset, and not here; or you may not use it")
            continue
        new = differences(preset, limits, words.partitions[name], f"partitions.{name}", remarks)
        if new:
            changed[name] = new
    for name, said in words.partitions.items():
        if name not in preset.partitions:
            remarks.append(f"partitions.{name}: here, and not in the preset")
            changed[name] = said | {"gpus": people_say(preset, said["gpus"])} if "gpus" in said else said
    return changed


def differences(
    preset: Preset, limits: Partition, said: Mapping[str, Any], place: str, remarks: list[str]
) -> dict[str, Any]:
    """A partition's limits as they should stand in the preset; {} where nothing differs.

    Args:
        preset: the preset, which has names for types of GPU.
        limits: the partition's limits in it.
        said: the same as the cluster says it, as far as it does.
        place: where they are in the preset's file.
        remarks: what differs is added here.
    """
    nothing = asdict(Partition())
    new = {key: value for key, value in asdict(limits).items() if value != nothing[key]}
    differs = False
    for key in COMPARED:
        here, there = said.get(key), getattr(limits, key)
        if here is None or agree(preset, key, here, there):
            continue
        if key == "gpus":
            here = people_say(preset, here)
        differs = True
        remarks.append(f"{place}.{key}: {written(here)} here, {written(there)} in the preset")
        new[key] = here
    return new if differs else {}


def agree(preset: Preset, key: str, here: Any, there: Any) -> bool:
    """True if what a cluster says and what its preset says mean the same."""
    if there is None:
        return False
    if key == "time":
        return seconds(here) == seconds(there)
    if key != "gpus":
        return here == there
    if UNTYPED in here:  # only numbers can be compared
        return max(here.values()) == max(there.values(), default=0)
    with_names = {kind: number for kind, number in there.items() if kind not in preset.gpu_constraints}
    return people_say(preset, here) == with_names


def people_say(preset: Preset, gpus: Mapping[str, int]) -> dict[str, int]:
    """Types of GPU under the preset's names for them."""
    names = {slurm_name: kind for kind, slurm_name in preset.gpu_types.items()}
    return {names.get(kind, kind): number for kind, number in gpus.items()}


def written(value: Any) -> str:
    """A limit as a remark has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{kind}: {number}" for kind, number in value.items()) + "}"
    return "nothing" if value is None else str(value)


def first_preset(name: str, words: OwnWords) -> str:
    """The text of a first preset, from what a cluster says of itself."""
    data: dict[str, Any] = {
        "description": f"{words.name or name}, as it describes itself",
        "source": f"scontrol, sinfo and sacctmgr on {socket.gethostname()}",
        "checked": today(),
        "status": "unverified",
        "platform": f"linux-{machine()}",
        "login_hosts": [socket.gethostname()],
    }
    if words.array_limit:
        data["array_limit"] = words.array_limit
    if words.jobs_per_user:
        data["jobs_per_user"] = words.jobs_per_user
    data["partitions"] = words.partitions
    data["defaults"] = {"time": "1:00:00"}
    remarks = [
        "A first preset. What SLURM does not say is for you to add, from the site's own pages: modules (`setup`), what",
        "is `required`, which partitions are `by_name_only`. All keys: lightning_hpc/clusters/cluster.schema.json.",
    ]
    if words.accounts:
        remarks.append(f"your accounts: {', '.join(words.accounts)}; one of them belongs into configs/slurm.yaml")
    return text_of([*remarks, *sources(words)], data)


def sources(words: OwnWords) -> list[str]:
    """Which commands have answered, and which have not."""
    return [f"answered: {', '.join(words.answered)}", *[f"did not answer: {silence}" for silence in words.silent]]


def text_of(remarks: list[str], data: Mapping[str, Any]) -> str:
    """Remarks as comments, and below them YAML."""
    return "".join(f"# {remark}\n" for remark in remarks) + dump(dict(data))


def today() -> str:
    """The day, YYYY-MM-DD."""
    return datetime.date.today().isoformat()
