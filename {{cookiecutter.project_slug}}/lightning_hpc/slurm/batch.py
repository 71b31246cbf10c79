"""Batch files: one template, templates/job.sbatch.j2, for every kind of job. Read one, and you know what runs.

The post-generation hook renders slurm/*.sbatch with this module too, with no more than Jinja and PyYAML around.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..clusters.placement import directive, resolve
from ..clusters.presets import Preset
from ..clusters.resources import KEYS, Resources
from ..settings.errors import SettingsError

# What each kind of job does, in the words that stand in its batch file.
KINDS = {
    "array": "Element N of the array is run N of manifest.jsonl: sbatch --array=0-7%2 runs eight, two at a time.",
    "pack": "Element N of the array is packs/N.json: runs of manifest.jsonl that share a job.",
    "canary": "The canary: one run that goes ahead until its first validation, and on whose success the others wait.",
    "notify": "Says once, when all runs of an experiment have ended, how they ended.",
    "evaluate": "Runs Train.py with the command line that is given to sbatch: test --run runs/…",
    "train": "One run by hand: sbatch slurm/train.sbatch --name wide --model.network.width 64",
    "agent": "Agents of a sweep: sbatch --array=1-8%4 slurm/sweep_agent.sbatch SWEEP",
}

# Files that are used by hand, in the folder where sbatch is typed.
BY_HAND = {"train": "slurm/train.sbatch", "agent": "slurm/sweep_agent.sbatch"}

# Seconds that srun leaves the other ranks when one has ended. One that has crashed must not leave the others waiting
# for it; but they need time to save. How many there are may be said on sbatch's command line only.
WAIT = 300

# What goes into a container by name, as patterns for bash; all else of the node stays outside, such as its PYTHONPATH.
INTO_CONTAINER = (
    "SLURM_*", "JOB_BEGAN", "RESUBMITTED*", "MASTER_*", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NCCL_*", "WANDB_*",
    "NOTIFY_*", "HF_*", "AWS_*", "GOOGLE_*", "LIGHTNING_HPC_*",
)  # fmt: skip

# What a job's name ends with, beside the experiment's.
SUFFIXES = {"canary": "-canary", "notify": "-ended", "agent": "-sweep"}

# Who is told that the time limit is near: every rank, or the batch file alone (B:), which tells what it has started.
SIGNALS = {"array": "USR1", "canary": "USR1", "train": "USR1", "agent": "B:USR1", "pack": "B:USR1"}


def render(
    preset: Preset,
    resources: Resources,
    kind: str,
    name: str,
    project: Path | None = None,
    code: Path | None = None,
    experiment: Path | None = None,
    python: str = sys.executable,
    file: str | Path | None = None,
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
        file: where it will be; None: where files of this kind are.
    """
    activate = resources.activate
    if kind in BY_HAND:
        project, python = None, "python"
        activate = activate or activation(preset, name, resources.account)
    if file is None:
        file = BY_HAND.get(kind) or experiment / f"{'job' if kind == 'array' else kind}.sbatch"
    jinja = templates(Path(__file__).parent / "templates")
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
        into_container=" | ".join([*INTO_CONTAINER, *resources.environment]),
        prefix=f"{preset.container.partition(' ')[0].upper()}ENV_",  # what Apptainer takes into a container
        binds=binds(project, code, experiment),
        srun=f"srun --wait={WAIT}",
        file=file,
        slice=resources.slice if kind in SIGNALS else None,
        notice=resources.signal_seconds if kind in SIGNALS else None,
        missing=" ".join(f"--{key}=…" for key in preset.required if not getattr(resources, key)),
    )


def templates(folder: Path) -> Environment:
    """The templates in a folder, of which a name that is misspelt is an error. They are no HTML: nothing is escaped."""
    return Environment(
        loader=FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )


def binds(project: Path | None, code: Path | None, experiment: Path | None) -> list[str]:
    """The options that let a container see the folders of a job; one that lies in another is seen with it."""
    folders = [folder for folder in (code, experiment) if folder is not None]
    if project is not None:
        folders = [folder for folder in folders if not folder.is_relative_to(project)]
    seen = dict.fromkeys(quoted(folder) for folder in folders)
    return ['--bind="$PWD"', *(f"--bind={folder}" for folder in seen)]


def quoted(value: object) -> str:
    """A value in double quotes for bash, so that nothing in it is expanded; plain words stay plain."""
    text = str(value)
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def options(preset: Preset, resources: Resources, kind: str, name: str, experiment: Path | None) -> list[str]:
    """The options of the #SBATCH lines, in the order in which one reads them."""
    if kind == "notify":
        resources = small(preset, resources)
    elif kind == "agent":
        resources = replace(resources, tasks=1)  # the agent starts the run's processes

    values: dict[str, object] = {
        "job-name": name + SUFFIXES.get(kind, ""),
        "output": log(kind, experiment),
        "open-mode": "append",  # a requeued job continues its log
    }
    for own, known in KEYS.items():
        if own == "gpus":
            values |= gpu_options(preset, resources)
        elif own == "mail":
            values |= mail_options(preset, resources, kind)
        elif own == "time":
            values["time"] = resources.slice or resources.time
        elif known.sbatch:
            values[known.sbatch[0]] = getattr(resources, own)
    if kind in SIGNALS:
        values["signal"] = f"{SIGNALS[kind]}@{resources.signal_seconds}"

    lines = [directive(option, value) for option, value in values.items() if value is not None]
    return [*lines, "--requeue" if preset.requeue else "--no-requeue", *resources.directives]


def gpu_options(preset: Preset, resources: Resources) -> dict[str, object]:
    """How a cluster wants GPUs to be asked for: so many on each node, or so many in all."""
    if not resources.gpus:
        return {}
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    if preset.gpu_option == "gres":
        asked: dict[str, object] = {"gres": f"gpu:{kind}{resources.gpus}"}
    else:
        asked = {"gpus": f"{kind}{resources.gpus * resources.nodes}"}
    if preset.cpus_per_gpu and not resources.cpus:
        asked["cpus-per-gpu"] = preset.cpus_per_gpu
    return asked


def mail_options(preset: Preset, resources: Resources, kind: str) -> dict[str, object]:
    """Who hears of the job's end; nobody from an array whose cluster rejects that."""
    rejected = resources.mail_by_job or (kind == "agent" and not preset.array_mail)
    if not resources.mail or (rejected and kind != "notify"):
        return {}
    return {"mail-user": resources.mail, "mail-type": "END" if kind == "notify" else "END,FAIL"}


def log(kind: str, experiment: Path | None) -> str:
    """sbatch's pattern for the log; a folder that does not exist would end the job without a word."""
    if experiment is None:
        return "slurm-%x-%A_%a.log" if kind == "agent" else "slurm-%x-%j.log"
    folder = str(experiment / "logs").replace("%", "%%")
    if "\\" in folder or "\n" in folder:
        raise SettingsError(f"SLURM can't write a log into {experiment}: rename the folder with the backslash")
    names = {"array": "%a", "pack": "pack-%a"}
    return f"{folder}/{names.get(kind, f'{kind}-%j')}.log"


def small(preset: Preset, resources: Resources) -> Resources:
    """Next to nothing, for a job that only says something; with a GPU where a cluster gives nothing without."""
    asked = dict(gpus=0, time=5, account=resources.account, qos=resources.qos, mail=resources.mail)
    if not preset.share_follows_gpus:
        asked |= dict(cpus=1, memory="1G")
    try:
        return resolve(preset, asked)
    except SettingsError:
        return resolve(preset, asked | dict(gpus=1, gpu_type=resources.gpu_type))


def activation(preset: Preset, slug: str, account: str | None) -> str | None:
    """The line of a batch file that activates the project's conda environment; None where the preset has no place."""
    folder = conda_folder(preset, slug, account)
    if not folder:
        return None
    command = preset.conda.get("activate", "")
    if command.startswith("conda "):  # a shell function, which a job's shell does not have
        command = f'source "$(conda info --base)/etc/profile.d/conda.sh" && {command}'
    return f'{command} "{folder}"'


def conda_folder(preset: Preset, slug: str, account: str | None) -> str | None:
    """Where the preset puts the conda environment of a project; None: where conda puts it."""
    folder = preset.conda.get("folder")
    if not folder or ("{account}" in folder and not account):
        return None
    return folder.format(slug=slug, account=account)
