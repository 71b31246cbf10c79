"""What each run of a pack gets of its job: a step of its own, threads, a share of the memory, and one of the GPUs.

Why a step (srun) for each run and not plain processes: SLURM counts and limits memory by step. Where one process of a
step needs too much, sites have all of the step killed (OOMKillStep, OverMemoryKill); plain processes are in the step of
the batch file, which takes the job with it. Tried on a real SLURM: of four plain processes none was left, of four
steps three. --overlap lets them share GPUs; with --exact alone they would wait for each other's.
"""

import os
from collections.abc import Mapping, Sequence

MEMORY = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU")  # of which srun accepts one, or --mem

OWN_MEMORY = 256  # MB of the job for the batch file, and who looks after the runs; at most a twentieth of all

GPUS = "CUDA_VISIBLE_DEVICES"


def command_in_step(command: Sequence[str], slot: int, size: int, job: Mapping[str, str]) -> list[str]:
    """The command of one run, as a step of its own in a job of SLURM; elsewhere a plain process.

    Args:
        command: the program and its arguments.
        slot: the run's place in its pack, from 0.
        size: how many runs share the job.
        job: the job's environment.
    """
    gpu = share_of_gpus(slot, job)
    # SLURM sets this variable anew in each step, so it is set again inside.
    inside = ["env", f"{GPUS}={gpu}", *command] if gpu is not None else list(command)
    if "SLURM_JOB_ID" not in job:
        return inside

    memory = share_of_memory(size, job)
    limit = [f"--mem={memory}M"] if memory else []
    return ["srun", "--overlap", "--nodes=1", "--ntasks=1", *limit, *inside]


def environment_of_run(size: int, job: Mapping[str, str]) -> dict[str, str]:
    """The environment of one run: as many threads as its share of the CPUs, unless the job says how many.

    Args:
        size: how many runs share the job; so that results do not depend on which of them are left.
        job: the job's environment.
    """
    kept = {name: value for name, value in job.items() if name not in MEMORY}
    return {"OMP_NUM_THREADS": str(max(1, cpus(job) // size)), **kept}


def cpus(job: Mapping[str, str]) -> int:
    """How many CPUs the job has on this node."""
    return int(job.get("SLURM_CPUS_ON_NODE") or len(os.sched_getaffinity(0)))


def share_of_gpus(slot: int, job: Mapping[str, str]) -> str | None:
    """The GPU of one run, which it may share with others; None without GPUs."""
    gpus = [gpu for gpu in job.get(GPUS, "").split(",") if gpu]
    return gpus[slot % len(gpus)] if gpus else None


def share_of_memory(size: int, job: Mapping[str, str]) -> int | None:
    """MB for one run; None where the job does not say how much it has, or has all of its node."""
    units = {
        "SLURM_MEM_PER_NODE": 1,
        "SLURM_MEM_PER_CPU": cpus(job),
        "SLURM_MEM_PER_GPU": len(job.get(GPUS, "").split(",")),
    }
    for name, count in units.items():
        if job.get(name, "").isdigit():
            total = int(job[name]) * count
            return (total - min(OWN_MEMORY, total // 20)) // size or None
    return None
