"""Jobs beside those of experiments: tests of a run, agents of a sweep, and the batch files for use by hand."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arrays.calls import show_calls
from ..arrays.next_wave import queue_limits
from ..clusters import presets
from ..clusters.placement import resolve
from ..clusters.presets import Preset
from ..clusters.resources import Resources
from ..experiments.experiment import Experiment, clusters_asked
from ..files import write_atomically
from ..scheduler import jobs, sbatch
from ..scheduler.commands import PAUSES
from ..settings.errors import SettingsError
from .asked import about_slices, asked_for
from .batch import BY_HAND, render

AGENTS = "sweeps"  # where the batch files of agents go


def submit_evaluation(arguments: argparse.Namespace, root: Path) -> int:
    """`eval`: submit a test of a run's best checkpoint."""
    run = arguments.run.resolve()
    if not (run / "status.json").is_file():
        raise SettingsError(f"{arguments.run} is no run's folder: it has no status.json")
    code, earlier = root, {}
    try:
        experiment = Experiment(run.parent)
        code, earlier = experiment.code, experiment.resources
    except SettingsError:
        pass  # a run that was started by hand

    preset, asked = asked_for(arguments, root, earlier)
    resources = resolve(preset, alone({**asked, "slice": None}))  # a test does not go on where it was
    text = render(preset, resources, "evaluate", name=f"test-{run.name}", project=root, code=code, experiment=run)
    file = run / "logs" / "test.sbatch"
    call = [str(file), "test", "--run", str(run)]
    if arguments.dry_run:
        print(text)
        show_calls([call], preset)
        return 0

    file.parent.mkdir(exist_ok=True)
    write_atomically(file, text)
    job = sbatch.submit_job(call, preset.submit, clusters_asked(asked))
    print(f"submitted: {job}; the result will be in {run / 'test.json'}")
    return 0


def render_files(arguments: argparse.Namespace, root: Path) -> int:
    """`render`: write slurm/*.sbatch."""
    if arguments.name:
        raise SettingsError(f"--name {arguments.name} is that of an experiment, for --kubernetes SPEC: leave it out")
    preset, asked = asked_for(arguments, root, {})
    resources = resolve(preset, alone(asked), partial=True)
    for kind, name in BY_HAND.items():
        file = root / name
        text = render(preset, resources, kind, name=root.name)
        if arguments.dry_run:
            print(f"==> {file} <==\n{text}")
        else:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, text)
            print(f"written: {file}")
    return 0


def alone(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a job asks for that is not shared by several runs."""
    return {**asked, "pack": None}


def submit_agents(sweep_id: str, count: int, cluster: str | None, root: Path, folder: str = AGENTS) -> tuple[str, int]:
    """Submit agents to SLURM.

    Args:
        sweep_id: the sweep, as SweepAgent.py takes it.
        count: how many agents; `throttle` in configs/slurm.yaml says how many at a time.
        cluster: name of a preset; None: that of configs/slurm.yaml.
        root: the project's folder.
        folder: where in it the batch file goes; not slurm/, whose sweep_agent.sbatch is yours to edit.

    Returns:
        the job id, and how many agents it has: fewer where the queue has no room for all.

    Raises:
        SettingsError: the cluster can't serve them, or SLURM refuses.
    """
    preset = presets.choose(cluster, root)
    asked = presets.project_resources(root)
    resources = resolve(preset, alone(asked), array=count)
    for line in about_slices(resources, root / "runs"):
        print(line)
    count = agents_with_room(count, preset, resources, clusters_asked(asked))
    file = root / folder / f"{Path(sweep_id).name}.sbatch"
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, render(preset, resources, "agent", root.name, file=file))

    # --chdir: the agents' batch file looks for the project where sbatch was typed.
    limited = resources.throttle is not None and resources.throttle < count
    throttle = f"%{resources.throttle}" if limited else ""
    arguments = [f"--array=1-{count}{throttle}", f"--chdir={root}", str(file), sweep_id]
    return str(sbatch.submit_job(arguments, preset.submit, clusters_asked(asked))), count


def agents_with_room(count: int, preset: Preset, resources: Resources, clusters: set[str]) -> int:
    """How many of some agents there is room for in the queue.

    The others wait for no wave: an agent goes on until the sweep has ended, so they would find nothing left to do.

    Args:
        count: how many are asked for.
        preset, resources: the cluster, and what each agent gets.
        clusters: names of other clusters to which they may go.

    Raises:
        SettingsError: there is room for none, or the queue can't be asked.
    """
    limits = queue_limits(preset, resources)
    if not limits:
        return count
    elements = jobs.queue(clusters=clusters, pauses=PAUSES)
    room = min(limit.room(elements) for limit in limits)
    if not room:
        raise SettingsError(
            f"your queue on {preset.name} is full, so no agents are submitted: try again when there is room, or set "
            f"over_quota: true in {presets.PROJECT_RESOURCES}"
        )
    if room < count:
        most = min(limit.most for limit in limits)
        print(f"{preset.name} lets a user have {most} jobs in the queue: {room} agents, which go on to the sweep's end")
    return min(room, count)
