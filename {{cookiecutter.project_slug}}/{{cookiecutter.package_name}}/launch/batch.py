"""Batch files: one template, templates/job.sbatch.j2, for every kind of job. Read one, and you know what runs.

The post-generation hook renders slurm/*.sbatch with this module too, with no more than Jinja and PyYAML around.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..runs.settings import SettingsError
from .presets import Preset, activation
from .resources import Resources, resolve

# What each kind of job does, in the words that stand in its batch file.
KINDS = {
    "array": "Element N of the array is run N of manifest.jsonl: sbatch --array=0-7%2 runs eight, two at a time.",
    "canary": "The canary: one run that goes ahead until its first validation, and on whose success the others wait.",
    "notify": "Tells once, when all runs of an experiment have ended.",
    "evaluate": "Runs Train.py with the command line that is given to sbatch: test --run runs/…",
    "train": "One run by hand: sbatch slurm/train.sbatch --name wide --model.network.width 64",
    "agent": "Agents of a sweep: sbatch --array=1-8%4 slurm/sweep_agent.sbatch SWEEP",
}
# Files that are used by hand, in the folder where sbatch is typed.
BY_HAND = {"train": "slurm/train.sbatch", "agent": "slurm/sweep_agent.sbatch"}


def render(
    preset: Preset,
    resources: Resources,
    kind: str,
    name: str,
    project: Path | None = None,
    code: Path | None = None,
    experiment: Path | None = None,
    python: str = sys.executable,
) -> str:
    """The text of a batch file.

    Args:
        preset: the cluster.
        resources: what the job gets, from `resolve`.
        kind: one of KINDS.
        name: what the job is called: the experiment, or the project for a file that is used by hand.
        project: the working folder; not for files that are used by hand.
        code: where Train.py and SlurmTrain.py are; None: the working folder.
        experiment: the experiment's folder, whose logs/ exists.
        python: the interpreter, unless `resources.activate` decides: the one that submits has the right packages.
    """
    activate = resources.activate
    if kind in BY_HAND:
        activate, python, project = activate or activation(preset, name, resources.account), "python", None
    file = BY_HAND.get(kind) or experiment / f"{'job' if kind == 'array' else kind}.sbatch"
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # this is no HTML; `quote` is for the shell
    )
    jinja.filters["quote"] = quoted
    return jinja.get_template("job.sbatch.j2").render(
        preset=preset,
        resources=resources,
        kind=kind,
        purpose=KINDS[kind],
        options=options(preset, resources, kind, name, experiment),
        project=project,
        code=code or ".",
        experiment=experiment,
        activate=activate,
        python="python" if activate else python,
        # A rank that has crashed must not leave the others waiting for it; but they need time to save.
        srun="srun" + (" --wait=300" if resources.nodes * resources.tasks > 1 else ""),
        file=file,
        missing=" ".join(f"--{key}=…" for key in preset.required if not getattr(resources, key)),
    )


def quoted(value: object) -> str:
    """A value in double quotes for bash, so that nothing in it is expanded; plain words stay plain."""
    text = str(value)
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII) else '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def options(preset: Preset, resources: Resources, kind: str, name: str, experiment: Path | None) -> list[str]:
    """The options of the #SBATCH lines, in the order in which one reads them."""
    if kind == "notify":
        resources = small(preset, resources)
    elif kind == "agent":
        resources = replace(resources, tasks=1)  # the agent starts the run's processes
    rejected = resources.mail_by_job or (kind == "agent" and not preset.array_mail)
    mail = resources.mail and (kind == "notify" or not rejected)
    total = resources.gpus * resources.nodes
    kind_of_gpu = f"{resources.gpu_type}:" if resources.gpu_type else ""
    signal = {"agent": "B:USR1", "notify": None, "evaluate": None}.get(kind, "USR1")
    suffix = {"canary": "-canary", "notify": "-ended", "agent": "-sweep"}.get(kind, "")
    found = {
        "job-name": name + suffix,
        "output": log(kind, experiment),
        "open-mode": "append",  # a requeued job goes on in its log
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks,
        "gres": f"gpu:{kind_of_gpu}{resources.gpus}" if resources.gpus and preset.gpu_option == "gres" else None,
        "gpus": f"{kind_of_gpu}{total}" if resources.gpus and preset.gpu_option == "gpus" else None,
        "cpus-per-task": resources.cpus,
        "cpus-per-gpu": preset.cpus_per_gpu if resources.gpus and not resources.cpus else None,
        "mem": resources.memory,
        "time": resources.time,
        "begin": resources.begin,
        "mail-user": resources.mail if mail else None,
        "mail-type": ("END" if kind == "notify" else "END,FAIL") if mail else None,
        "signal": signal and f"{signal}@{resources.signal_seconds}",
    }
    lines = [f"--{key}={directive(str(value))}" for key, value in found.items() if value is not None]
    return [*lines, "--requeue" if preset.requeue else "--no-requeue", *resources.directives]


def log(kind: str, experiment: Path | None) -> str:
    """sbatch's pattern for the log; a folder that does not exist would end the job without a word."""
    if experiment is None:
        return "slurm-%x-%A_%a.log" if kind == "agent" else "slurm-%x-%j.log"
    folder = str(experiment / "logs").replace("%", "%%")
    if "\\" in folder or "\n" in folder:
        raise SettingsError(f"SLURM can't write a log into {experiment}: rename the folder with the backslash")
    return f"{folder}/{'%a' if kind == 'array' else f'{kind}-%j'}.log"


def directive(value: str) -> str:
    """A value for a #SBATCH line: sbatch reads quotes as a shell would, but expands nothing."""
    return value if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII) else '"' + value.replace('"', r"\"") + '"'


def small(preset: Preset, resources: Resources) -> Resources:
    """Next to nothing, for a job that only says something; with a GPU where a cluster gives nothing without."""
    request = dict(gpus=0, time=5, account=resources.account, qos=resources.qos, mail=resources.mail)
    if not preset.share_follows_gpus:
        request |= dict(cpus=1, memory="1G")
    try:
        return resolve(preset, request)
    except SettingsError:
        return resolve(preset, request | dict(gpus=1, gpu_type=resources.gpu_type))
