"""From a planned experiment to jobs: batch files, one sbatch call for all runs, and the same again for what is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runs.folder import write_atomically
from ..runs.settings import SettingsError
from . import notify, sbatch
from .batch import render
from .experiment import Experiment
from .presets import Preset
from .resources import Resources


def write_batch_files(
    experiment: Experiment, preset: Preset, resources: Resources, project: Path, canary: bool
) -> None:
    """Write job.sbatch and, where they are wanted, canary.sbatch and notify.sbatch.

    Args:
        experiment: the planned experiment.
        preset: the cluster.
        resources: what each run gets.
        project: the working folder of the jobs.
        canary: the first run is to go ahead alone.
    """
    files = {"array": experiment.batch}
    if canary:
        files["canary"] = experiment.canary
    if notified(resources):
        files["notify"] = experiment.folder / "notify.sbatch"
    for kind, file in files.items():
        text = render(preset, resources, kind, experiment.folder.name, project, experiment.code, experiment.folder)
        write_atomically(file, text)


def notified(resources: Resources) -> bool:
    """Whether a job of its own has to tell how the array ended."""
    return resources.mail_by_job or notify.wanted()


def array(indices: Sequence[int], throttle: int | None) -> str:
    """sbatch's way of writing indices: 0-7,12,14%4."""
    parts, start = [], None
    for position, index in enumerate(indices):
        if start is None:
            start = index
        if position + 1 == len(indices) or indices[position + 1] != index + 1:
            parts.append(str(start) if start == index else f"{start}-{index}")
            start = None
    return ",".join(parts) + (f"%{throttle}" if throttle and throttle < len(indices) else "")


def chunks(indices: Sequence[int], limit: int, throttle: int | None) -> list[tuple[int, str]]:
    """Indices as few arrays as a cluster allows: each array's offset, and its indices counted from there.

    Args:
        indices: of runs, ascending.
        limit: the cluster's MaxArraySize: array indices must be smaller.
        throttle: most elements at a time over all arrays; shared out among them.
    """
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(index // limit * limit, []).append(index % limit)
    share = max(1, throttle // len(groups)) if throttle and groups else None
    return [(offset, array(group, share)) for offset, group in groups.items()]


def log_option(logs: Path, offset: int) -> list[str]:
    """sbatch's option for the logs of an array that does not start at run 0; the batch file has that of the first."""
    return [f"--output={str(logs).replace('%', '%%')}/{offset}+%a.log"] if offset else []


def calls_for(
    experiment: Experiment, indices: Sequence[int], preset: Preset, resources: Resources, canary: bool = False
) -> list[list[str]]:
    """The sbatch calls for some runs of an experiment; ID stands for the id that the call before it returns."""
    calls: list[list[str]] = []
    first = []
    if canary:
        ((offset, selection),) = chunks(indices[:1], preset.array_limit, None)
        calls.append([f"--array={selection}", str(experiment.canary), *([str(offset)] if offset else [])])
        first = ["--dependency=afterok:ID", "--kill-on-invalid-dep=yes"]
    for offset, selection in chunks(indices, preset.array_limit, resources.throttle):
        options = [f"--array={selection}", *log_option(experiment.logs, offset), *first]
        calls.append([*options, str(experiment.batch), *([str(offset)] if offset else [])])
    if notified(resources):
        calls.append(["--dependency=afterany:ID", str(experiment.folder / "notify.sbatch")])
    return calls


def submit(experiment: Experiment, calls: Sequence[Sequence[str]], command: str) -> list[str]:
    """Make the sbatch calls; returns the job ids.

    Raises:
        SettingsError: SLURM refused one. What was submitted before it is cancelled where it would be of no use.
    """
    jobs: list[str] = []
    for arguments in calls:
        depends = ":".join(jobs) if any("afterany:ID" in each for each in arguments) else "".join(jobs[:1])
        try:
            # Only there: a folder's name may hold :ID too.
            known = [each.replace(":ID", f":{depends}") if each.startswith("--dep") else each for each in arguments]
            jobs.append(sbatch.submit(known, command))
        except SettingsError as error:
            if jobs and "afterok:ID" in " ".join(arguments):
                sbatch.cancel(jobs)  # a canary of nothing
            submitted = f"; submitted before that: {', '.join(jobs)}" if jobs else ""
            raise SettingsError(
                f"{error}{submitted}. The experiment is planned: when that is mended, `retry {experiment.folder}`"
            ) from None
    return jobs


def cost(count: int, resources: Resources) -> str:
    """What the runs may use at most: `108 runs × 2 GPUs × 12.0 h = 2592 GPU-hours, 10 at a time`."""
    at_once = f", {resources.throttle} at a time" if resources.throttle and resources.throttle < count else ""
    gpus = resources.gpus * resources.nodes
    if resources.seconds is None:
        return f"{count} runs × {gpus} GPUs, as long as the partition allows{at_once}"
    hours = resources.seconds / 3600
    what, number = ("GPU", gpus) if gpus else ("CPU", resources.nodes * resources.tasks * (resources.cpus or 1))
    each = f"{number} {what}{'s' * (number != 1)} × {hours:.3g} h"
    return f"{count} run{'s' * (count != 1)} × {each} = {count * number * hours:,.4g} {what}-hours at most{at_once}"


def trainer_settings(resources: Resources, settings: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """trainer.devices and trainer.num_nodes for a request; only one side may say them, or both the same.

    Args:
        resources: what SLURM will give.
        settings: the experiment's own settings.
        asked: the request as typed.

    Raises:
        SettingsError: the settings say another number than the request.
    """
    wanted = {"trainer.devices": resources.tasks, "trainer.num_nodes": resources.nodes}
    for (key, number), names in zip(wanted.items(), (("gpus", "tasks"), ("nodes",)), strict=True):
        said = settings.get(key)
        if any(name in asked for name in names) and isinstance(said, int) and said not in (1, number):
            raise SettingsError(
                f"{key} is {said}, but the resources give {number} ({' or '.join(names)}): say one of them"
            )
    return {key: number for key, number in wanted.items() if settings.get(key, 1) != number}
