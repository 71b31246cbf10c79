"""The sbatch calls that an experiment needs: arrays, canary and message, and how they wait for each other."""

import shlex
from collections.abc import Sequence

from .. import notify
from ..clusters.presets import Preset
from ..clusters.resources import Resources
from ..experiments.experiment import Experiment
from ..scheduler import sbatch
from ..scheduler.jobs import Element
from ..settings.errors import SettingsError
from ..settings.places import command


def notified(resources: Resources) -> bool:
    """True if a job of its own has to say how the array ended."""
    return resources.mail_by_job or notify.somebody_to_tell()


def calls_for(
    experiment: Experiment,
    indices: Sequence[int],
    preset: Preset,
    resources: Resources,
    canary: int | None = None,
    beside: Sequence[Element] = (),
) -> list[list[str]]:
    """The sbatch calls for some runs of an experiment, see `sbatch.submit_calls`.

    Args:
        experiment: the planned experiment.
        indices: of the runs, or numbers of the packs, ascending.
        preset, resources: the cluster, and what each job gets.
        canary: index of the run that goes ahead alone.
        beside: jobs of the same experiment that are in the queue already.
    """
    calls: list[list[str]] = []
    others = [element for element in beside if not element.is_of(experiment.notify)]
    throttle, depends = throttle_beside(resources.throttle, others)

    # The arrays wait for the canary, and are cancelled by SLURM if it fails.
    if canary is not None:
        ((offset, selection),) = sbatch.chunks([canary], preset.array_limit, None)
        calls.append([f"--array={selection}", str(experiment.canary), *start_argument(offset)])
        depends = ["--dependency=afterok:ID", "--kill-on-invalid-dep=yes"]
    calls += array_calls(experiment, indices, preset.array_limit, throttle, depends, resources.pack > 1)
    # The message waits for every array, whatever becomes of it.
    if notified(resources):
        calls.append(["--dependency=afterany:ID", str(experiment.notify)])
    return calls


def array_calls(
    experiment: Experiment,
    indices: Sequence[int],
    array_limit: int,
    throttle: int | None,
    options: Sequence[str],
    packed: bool,
) -> list[list[str]]:
    """The sbatch calls for arrays of some runs of an experiment.

    Args:
        experiment: the planned experiment.
        indices: of the runs, or numbers of the packs, ascending.
        array_limit: most elements of one array.
        throttle: most elements at a time; None: no limit.
        options: further options of sbatch.
        packed: True if each element is a pack of runs.
    """
    batch = experiment.packed if packed else experiment.batch
    calls = []
    for offset, selection in sbatch.chunks(indices, array_limit, throttle):
        own = [f"--array={selection}", *sbatch.log_option(experiment.logs, offset, packed), *options]
        calls.append([*own, str(batch), *start_argument(offset)])
    return calls


def throttle_beside(throttle: int | None, active: Sequence[Element]) -> tuple[int | None, list[str]]:
    """How many elements of a new array may run at a time beside those that are there already.

    Args:
        throttle: most elements of the experiment at a time; None: no limit.
        active: elements of its other arrays, which have the same limit.

    Returns:
        the new array's throttle, and sbatch options: where the others use all of it, the new array waits for their end.
    """
    if throttle is None or not active:
        return throttle, []
    left = throttle - min(throttle, len(active))
    if left:
        return left, []
    jobs = ":".join(sorted({element.job for element in active}, key=int))
    return throttle, [f"--dependency=afterany:{jobs}"]


def start_argument(offset: int) -> list[str]:
    """The batch file's argument: where its array starts in the experiment; none where that is run 0."""
    return [str(offset)] if offset else []


def show_calls(calls: Sequence[Sequence[str]], preset: Preset) -> None:
    """Print sbatch calls as one would type them."""
    for arguments in calls:
        print(shlex.join([preset.submit, *arguments]))


def send(experiment: Experiment, calls: Sequence[Sequence[str]], preset: Preset) -> int:
    """Submit some runs and say what to type next.

    Raises:
        SettingsError: SLURM refuses; the message says that the experiment is planned all the same.
    """
    try:
        jobs = sbatch.submit_calls(calls, preset.submit, experiment.clusters, experiment.note_job)
    except SettingsError as error:
        again = (
            f"The experiment is planned: once that is fixed, `{command('SlurmTrain.py', 'retry', experiment.shown)}`"
        )
        raise SettingsError(f"{error}. {again}") from None
    look = command("SlurmTrain.py", "status", experiment.shown)
    print(f"submitted: {', '.join(map(str, jobs))}; how it goes: {look}")
    return 0
