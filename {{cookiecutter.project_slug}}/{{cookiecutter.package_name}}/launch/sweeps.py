"""The entrance of CreateSweep.py: check a sweep's file, create the sweep, say how to start agents or start them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs import space
from ..runs.settings import SettingsError
from .local_sweep import LocalSweep
from .sweep_file import Sweep, read_sweep

EXAMPLES = """examples:
  python CreateSweep.py                                    configs/sweeps/default.yaml, in W&B
  python CreateSweep.py my-grid.yaml --dry-run             check everything, create nothing
  python CreateSweep.py --local                            the same sweep without W&B
  python CreateSweep.py --agents 8 --submit                create it and submit eight agents
  python CreateSweep.py --resume team/project/x1y2z3 --agents 4 --submit
  python CreateSweep.py --status sweeps/lr-width-dropout   a local sweep's table and its best trial
  python CreateSweep.py --serve 127.0.0.1:5001             create or continue it, and tell agents its id
"""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python CreateSweep.py",
        description="Check a sweep's file and create the sweep, in W&B or in a local folder; agents then run it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("sweep", nargs="?", default="default", metavar="SWEEP",
                       help="file or folder, also by its name in configs/sweeps (default: default)")  # fmt: skip
    found.add_argument("--local", action="store_true", help="without W&B: the sweep is a folder in sweeps/")
    found.add_argument("--dry-run", action="store_true", help="check everything and create nothing")
    found.add_argument("--no-metric-check", action="store_true", help="do not train on one batch to see what is logged")
    found.add_argument("--resume", metavar="ID", help="continue this sweep instead of creating one")
    found.add_argument("--status", metavar="ID", help="show a local sweep's trials and the best one")
    found.add_argument("--agents", type=int, metavar="N", help="how many agents to submit or to name in the commands")
    found.add_argument("--submit", action="store_true", help="submit the agents to SLURM, as one array")
    found.add_argument("--cluster", metavar="NAME", help="one of configs/clusters, or auto")
    found.add_argument("--serve", metavar="HOST:PORT", help="create or continue it and tell agents its id by http")
    return found


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code: 0 on success, 2 for wrong usage or a wrong sweep.

    Args:
        argv: the sweep's file and options.
        root: the project's folder.
    """
    arguments = parser().parse_args(argv)
    try:
        if arguments.agents is not None and arguments.agents < 1:
            raise SettingsError(f"--agents must be at least 1, got {arguments.agents}")
        if arguments.status:
            print(LocalSweep.open(arguments.status, root).table())
        elif arguments.serve:
            from .server import serve

            return serve(arguments.serve, lambda: create(arguments, root), root)
        elif arguments.resume:
            start_agents(resume(arguments.resume, root), arguments, root)
        elif sweep_id := create(arguments, root):
            start_agents(sweep_id, arguments, root)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def create(arguments: argparse.Namespace, root: Path) -> str | None:
    """Check the sweep and create it; its id, None after a dry run."""
    sweep = read_sweep(arguments.sweep, root)
    if not (arguments.local or arguments.dry_run):
        from .wandb_sweeps import has_key

        if not has_key():
            raise SettingsError("there is no W&B key: run `wandb login`, or sweep without W&B: --local")
    print(f"{sweep.source}: {describe(sweep)}", flush=True)
    check(sweep, root, metric=not arguments.no_metric_check)
    if arguments.dry_run:
        print("nothing is created: --dry-run")
        return None
    if arguments.local:
        local = LocalSweep.create(sweep, root)
        sweep_id = os.path.relpath(local.folder, root)
        print(f"local sweep: {sweep_id}\nits trials: python CreateSweep.py --status {sweep_id}")
        return sweep_id
    from .wandb_sweeps import create as create_in_wandb

    sweep_id, address = create_in_wandb(sweep, root)
    print(f"sweep: {sweep_id}\nsee it: {address}")
    return sweep_id


def describe(sweep: Sweep) -> str:
    """What will be tried, in one line."""
    parameters = [each for each in space.check(sweep.parameters) if len(each.values) != 1]
    if sweep.method == "grid":
        factors = " × ".join(f"{len(each.grid())} {each.name}" for each in parameters)
        return f"grid, {len(space.grid(sweep.parameters))} runs{f' = {factors}' if len(parameters) > 1 else ''}"
    cap = sweep.config.get("run_cap")
    names = ", ".join(each.name for each in parameters)
    return f"{sweep.method}, {f'{cap} runs' if cap else 'runs without end (no run_cap)'} over {names}"


def check(sweep: Sweep, root: Path, metric: bool) -> None:
    """Check every listed value and both ends of every distribution with Train.py's parser, and what is logged.

    Raises:
        SettingsError: a value is wrong, or nothing logs the metric.
    """
    requests = list(sweep.requests(root))  # before torch is imported: unknown files and keys are found at once
    from ..training.check import check_all
    from ..training.logs import start_terminal

    start_terminal()
    check_all(requests)
    print(f"{len(requests)} combinations of values are right", flush=True)
    if metric and sweep.metric is not None:
        from ..training.objective import logged_metrics

        first = space.corners(sweep.parameters)[0]
        names = sweep.logged(logged_metrics(sweep.arguments(first), root))
        if sweep.metric not in names:
            raise SettingsError(
                f"metric {sweep.metric}: no run logs it; there are {', '.join(name for name in names if '/' in name)}. "
                "The best so far is logged of checkpoints.monitor: add --checkpoints.monitor=NAME to `command`"
            )
        print(f"metric {sweep.metric} is logged")


def resume(sweep_id: str, root: Path) -> str:
    """Let an existing sweep go on; its id."""
    if LocalSweep.exists(sweep_id, root):
        return os.path.relpath(LocalSweep.open(sweep_id, root).folder, root)
    from .wandb_sweeps import resume as resume_in_wandb

    resume_in_wandb(sweep_id)
    return sweep_id


def start_agents(sweep_id: str, arguments: argparse.Namespace, root: Path) -> None:
    """Submit agents, or say how to start them."""
    count = arguments.agents or 4
    if not arguments.submit:
        print(f"an agent here:    python SweepAgent.py {sweep_id}")
        print(f"agents by SLURM:  sbatch --array=1-{count} slurm/sweep_agent.sbatch {sweep_id}")
        return
    from .submit_agents import submit_agents

    job = submit_agents(sweep_id, count, arguments.cluster, root)
    print(f"{count} agents: job {job}; stop them: scancel {job}")
