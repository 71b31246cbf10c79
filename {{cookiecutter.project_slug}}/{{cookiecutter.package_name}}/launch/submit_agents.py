"""Agents of a sweep as one array of jobs."""

from pathlib import Path

from ..runs.folder import write_atomically
from . import presets, sbatch
from .batch import render
from .local_sweep import SWEEPS
from .resources import resolve


def submit_agents(sweep_id: str, count: int, cluster: str | None, root: Path) -> str:
    """Submit agents to SLURM.

    Args:
        sweep_id: the sweep, as SweepAgent.py wants it.
        count: how many agents; `throttle` in configs/slurm.yaml says how many at a time.
        cluster: name of a preset; None: that of configs/slurm.yaml.
        root: the project's folder.

    Returns:
        the job id.

    Raises:
        SettingsError: the cluster can't serve the request, or SLURM refuses.
    """
    preset = presets.choose(cluster, root)
    resources = resolve(preset, presets.standing_request(root), array=count)
    file = root / SWEEPS / f"{Path(sweep_id).name}.sbatch"  # not slurm/sweep_agent.sbatch, which is yours to edit
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, render(preset, resources, "agent", root.name))
    throttle = f"%{resources.throttle}" if resources.throttle and resources.throttle < count else ""
    arguments = [f"--array=1-{count}{throttle}", f"--chdir={root}", str(file), sweep_id]
    return sbatch.submit(arguments, preset.submit)
