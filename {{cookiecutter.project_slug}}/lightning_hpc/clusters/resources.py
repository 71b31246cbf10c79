"""What a job asks SLURM for: one table, the fields of `Resources`, and how its keys are read.

From the table follow the checks, the options of SlurmTrain.py, the reference in the docs and the #SBATCH lines: to add
a key, add a field. Resources come in layers: a preset's `defaults`, configs/slurm.yaml, a specification's `resources`
and the command line. Whether a cluster can serve them: placement.py.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..settings.errors import SettingsError, did_you_mean
from ..settings.yaml_files import parse_value
from .readers import (
    address,
    line,
    lines,
    memory_size,
    moment,
    sbatch_lines,
    time_limit,
    variables,
    whole_number,
    word,
    yes_or_no,
)

LONGEST_NOTICE = 300  # seconds before the time limit at which a job is told; a checkpoint has to fit in

AS_YAML = (lines, sbatch_lines, variables)  # what these read is YAML on the command line, too


@dataclass(frozen=True)
class Key:
    """What is known about one key of the table.

    Attributes:
        help: what it means, in a few words.
        read: reader of its values.
        sbatch: sbatch's names for it; the first one stands in the #SBATCH line.
    """

    help: str
    read: Callable[[Any], Any]
    sbatch: tuple[str, ...] = ()


def key(text: str, read: Callable[[Any], Any], *sbatch: str, **default: Any) -> Any:
    """A field of the table."""
    return field(**(default or {"default": None}), metadata={"key": Key(text, read, sbatch)})


@dataclass(frozen=True)
class Resources:
    """What one job (one array element) gets; its #SBATCH lines come in the order of these fields.

    The fields below the last key are filled in by `resolve`:

    Attributes:
        seconds: `time` in seconds; None: as long as the partition allows.
        slice_seconds: `slice` in seconds; None: a job gets all of the time.
        mail_by_job: a job of its own has to send that mail, because the cluster rejects arrays with mail options.
    """

    partition: str | None = key("partition; left out: the first of the preset that fits", word, "partition")
    account: str | None = key("account or project code", word, "account")
    qos: str | None = key("quality of service", word, "qos")
    nodes: int = key("nodes per run", whole_number(1), "nodes", default=1)
    tasks: int = key("processes per node; left out: one per GPU", whole_number(1), "ntasks-per-node", default=1)
    gpus: int = key("GPUs per node", whole_number(0), "gpus-per-node", "gres", default=0)
    gpu_type: str | None = key("type of GPU", word)
    pack: int = key("runs in one job, which share its GPUs, CPUs and memory", whole_number(1), default=1)
    cpus: int | None = key("CPUs per task", whole_number(1), "cpus-per-task")
    memory: str | None = key("memory per node with a unit, such as 16G; 0: all of it", memory_size, "mem")
    time: str | None = key('time limit: minutes, "H:MM:SS" or "D-HH:MM:SS"', time_limit, "time")
    slice: str | None = key("time limit of each job where a run is to go on from one short job to the next", time_limit)
    begin: str | None = key("when to start at the earliest: now+1hour, 2026-02-03T04:05", moment, "begin")
    mail: str | None = key("address that hears when the job, or the whole array, has ended", address, "mail-user")
    throttle: int | None = key("most array elements at a time", whole_number(1))
    directives: tuple[str, ...] = key("more sbatch options, each as --option=value", sbatch_lines, default=())
    before: tuple[str, ...] = key("bash before the run", lines, default=())
    after: tuple[str, ...] = key("bash after the run", lines, default=())
    container: str | None = key("image of Apptainer, such as project.sif, in which runs go", line)
    activate: str | None = key("bash that activates an environment; left out: the Python that submits", line)
    environment: Mapping[str, Any] = key("environment variables", variables, default_factory=dict)
    signal_seconds: int = key(
        "seconds before the time limit at which a run is told to save", whole_number(1, 65535), default=LONGEST_NOTICE
    )
    over_quota: bool = key(
        "true: go beyond the preset's quotas, of GPUs and of jobs in the queue", yes_or_no, default=False
    )
    max_requeues: int = key("how often a run may be started again by itself", whole_number(0), default=50)

    seconds: int | None = None
    slice_seconds: int | None = None
    mail_by_job: bool = False


KEYS: dict[str, Key] = {each.name: each.metadata["key"] for each in fields(Resources) if "key" in each.metadata}

# sbatch's name, or ours with hyphens → our key.
BY_NAME = {name: own for own, known in KEYS.items() for name in (own.replace("_", "-"), *known.sbatch)}

# What sbatch accepts beyond these keys. It stands in the batch file as it is given, and nothing here checks its value.
SBATCH_OPTIONS = frozenset(
    """acctg-freq batch bb bbf cluster-constraint clusters comment constraint container-id contiguous
    core-spec cores-per-socket cpu-freq cpus-per-gpu deadline delay-boot dependency distribution exclude exclusive
    export export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq gpus-per-socket gpus-per-task gres-flags
    hint hold ignore-pbs input kill-on-invalid-dep licenses mail-type mcs-label mem-bind mem-per-cpu mem-per-gpu
    mincpus network nice no-kill nodefile nodelist ntasks-per-core ntasks-per-gpu ntasks-per-socket overcommit
    oversubscribe power prefer priority profile propagate quiet reboot reservation resv-ports sockets-per-node
    spread-job stepmgr switches thread-spec threads-per-core time-min tmp tres-bind tres-per-task uid use-min-nodes
    verbose wait-all-nodes wckey""".split()
)

# What a batch file of this project decides by itself.
TAKEN = {
    "array": "the runs are the array: `throttle` says how many at a time",
    "chdir": "jobs run in the project's folder",
    "error": "errors go to the job's log",
    "job-name": "a job is called by the experiment's `name`",
    "no-requeue": "the preset's `requeue` decides",
    "ntasks": "say `tasks`, processes per node, and `nodes`",
    "open-mode": "logs are continued",
    "output": "logs are in the experiment's logs/",
    "parsable": "SlurmTrain.py reads what sbatch prints",
    "requeue": "the preset's `requeue` decides",
    "signal": "say `signal_seconds`",
    "test-only": "say --dry-run",
    "wait": "see `SlurmTrain.py status --watch`",
    "wrap": "the job is Train.py",
}


def read_resources(given: Mapping[str, Any], where: str = "resources") -> dict[str, Any]:
    """One layer of resources under this project's keys, its values checked; what is None takes a default away.

    Args:
        given: keys of the table, sbatch's names for them, other options of sbatch, and `cluster`.
        where: the layer's place, for messages.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or two names of one key have different values.
    """
    layer: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        for own, checked in read_key(str(name), value, where).items():
            if own in layer and layer[own] != checked:
                raise SettingsError(f"{where}: {names[own]} and {name} mean the same and differ: leave one of them out")
            layer[own] = checked
            names[own] = str(name)
    return layer


def read_key(name: str, value: Any, where: str) -> dict[str, Any]:
    """One key of a layer under this project's name; sbatch's way of writing GPUs can become two."""
    as_sbatch_writes = name.replace("_", "-")
    if as_sbatch_writes in TAKEN:
        raise SettingsError(f"{where}: {name} can't be set: {TAKEN[as_sbatch_writes]}")

    own = "cluster" if name == "cluster" else BY_NAME.get(as_sbatch_writes)
    if own is None and as_sbatch_writes not in SBATCH_OPTIONS:
        near = did_you_mean(name, {*KEYS, *BY_NAME, *SBATCH_OPTIONS, "cluster"})
        raise SettingsError(f"{where}: unknown key {name}{near}")
    if value is None:
        return {own or as_sbatch_writes: None}

    text = KEYS[own].help if own in KEYS else ""
    try:
        if own == "gpus":
            return read_gpus(as_sbatch_writes, value)
        if own is None:
            return {as_sbatch_writes: option_value(value)}
        return {own: KEYS[own].read(value) if own in KEYS else word(value)}
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{where}: {name}: {value!r} {error}{text and f' ({text})'}") from None


def read_gpus(name: str, value: Any) -> dict[str, Any]:
    """`gpus: 2`, or as sbatch writes it: `gpus-per-node: a100:2`, `gres: gpu:a100:2`."""
    text, kind = str(value), None
    if name == "gres":
        match = re.fullmatch(r"gpu(:[^\s\"'\\:,]*[A-Za-z_][^\s\"'\\:,]*)?(:\d+)?", text)
        if not match:
            raise ValueError("holds more than GPUs, gpu:TYPE:N; --gres=… for other resources can stand in `directives`")
        kind, text = (match[1] or ":")[1:] or None, (match[2] or ":1")[1:]
    elif ":" in text:
        kind, _, text = text.partition(":")

    # A text that is no number is named as it was given.
    number = KEYS["gpus"].read(text if text.isdigit() else value)
    return {"gpus": number, "gpu_type": word(kind)} if kind else {"gpus": number}


def option_value(value: Any) -> str | bool | None:
    """The value of an option that is only handed on: true for one without a value, false for leaving it out."""
    if isinstance(value, bool):
        return value or None
    if isinstance(value, list | tuple):
        return ",".join(line(str(each)) for each in value)
    return line(value if isinstance(value, str) else str(value))


def from_command_line(name: str, text: str) -> Any:
    """What was typed for an option: YAML where the key needs it, else text; `null` takes a default away."""
    own = BY_NAME.get(name.replace("_", "-"))
    if text in ("null", "~", ""):
        return None
    if own and KEYS[own].read in AS_YAML:
        return parse_value(text)
    return {"true": True, "false": False}.get(text, text) if own is None else text
