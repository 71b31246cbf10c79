"""The entrance of CreateSweep.py: check a sweep's file, create the sweep, say how to start agents or start them."""

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..logs import start_terminal
from ..planning import space
from ..printing import counted
from ..processes import Child
from ..settings.errors import SettingsError
from ..settings.flat import relative_to_project
from ..settings.places import command, shown
from ..stand_ins import import_torchmetrics
from .local_sweep import LocalSweep
from .server import serve
from .sweep_file import Sweep, find_sweep_file, read_sweep
from .wandb_sweeps import check_online, create_in_wandb, has_key, plain_id, resume_in_wandb

# Sweep id, how many, cluster, project's folder → job id, how many.
SubmitAgents = Callable[[str, int, str | None, Path], tuple[str, int]]

EXAMPLES = """examples:
  python CreateSweep.py                                    configs/sweeps/default.yaml, in W&B
  python CreateSweep.py my-grid.yaml --dry-run             check everything, create nothing
  python CreateSweep.py --local                            the same sweep without W&B
  python CreateSweep.py --agents 8 --submit                create it and submit eight agents
  python CreateSweep.py --resume team/project/x1y2z3 --agents 4 --submit
  python CreateSweep.py --status sweeps/lr-width-dropout   a local sweep's table and its best trial
  python CreateSweep.py --serve 127.0.0.1:5001             create or continue it, and tell agents its id
"""


def main(argv: Sequence[str], root: Path, submit_agents: SubmitAgents | None = None) -> int:
    """Run one command line of CreateSweep.py; returns the exit code.

    Args:
        argv: the sweep's file and options.
        root: the project's folder.
        submit_agents: submits agents to SLURM, for --submit; see slurm/other_jobs.py.

    Raises:
        SettingsError: wrong usage, or a wrong sweep.
    """
    arguments = read_arguments(argv)
    run_command(arguments, root, submit_agents)
    return 0


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python CreateSweep.py",
        description="Check a sweep's file and create the sweep, in W&B or in a local folder; agents then run it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("sweep", nargs="?", default="default", metavar="SWEEP",
           help="file or folder, also by its name in configs/sweeps (default: default)")  # fmt: skip
    option("--local", action="store_true", help="without W&B: the sweep is a folder in sweeps/")
    option("--dry-run", action="store_true", help="check everything and create nothing")
    option("--no-metric-check", action="store_true", help="do not train on one batch to see what is logged")
    option("--resume", metavar="ID", help="continue this sweep instead of creating one")
    option("--status", metavar="ID", help="show a local sweep's trials and the best one")
    option("--agents", type=int, metavar="N", help="how many agents to submit or to name in the commands")
    option("--submit", action="store_true", help="submit the agents to SLURM, as one array")
    option("--cluster", metavar="NAME", help="one of configs/clusters, or auto")
    option("--serve", metavar="HOST:PORT", help="create or continue it and tell agents its id by http")
    return parser.parse_args(argv)


def run_command(arguments: argparse.Namespace, root: Path, submit_agents: SubmitAgents | None) -> None:
    """Do what the command line asks for.

    Raises:
        SettingsError: an option or the sweep is wrong.
    """
    if arguments.agents is not None and arguments.agents < 1:
        raise SettingsError(f"--agents must be at least 1, got {arguments.agents}")
    if arguments.serve and arguments.dry_run:
        raise SettingsError("--serve creates a sweep and --dry-run does not: leave one out")
    if arguments.submit and submit_agents is None:
        raise SettingsError("agents are submitted by CreateSweep.py in the project's folder: start that")

    if arguments.status:
        print(LocalSweep.open(arguments.status, root).table())
        return
    if arguments.serve:
        source = str(relative_to_project(find_sweep_file(Path(arguments.sweep), root).resolve(), root))
        if arguments.local:
            source = f"{source}, locally"
        serve(arguments.serve, lambda: create_sweep(arguments, root), source, root)
        return

    if arguments.resume:
        sweep_id = resume_sweep(arguments.resume, root)
    else:
        sweep_id = create_sweep(arguments, root)
    if sweep_id is not None:
        start_agents(sweep_id, arguments, root, submit_agents)


def create_sweep(arguments: argparse.Namespace, root: Path) -> str | None:
    """Check the sweep and create it; returns its id, None after a dry run."""
    sweep = read_sweep(arguments.sweep, root)
    if not (arguments.local or arguments.dry_run or has_key()):
        raise SettingsError("there is no W&B key: run `wandb login`, or sweep without W&B: --local")
    if not (arguments.local or arguments.dry_run):
        check_online()

    print(f"{sweep.source}: {describe(sweep)}", flush=True)
    with contextlib.chdir(root):  # as its agents do: paths in its command and its parameters count from there
        check_sweep(sweep, root, metric=not arguments.no_metric_check)
    if arguments.dry_run:
        print("nothing is created: --dry-run")
        return None

    if arguments.local:
        local = LocalSweep.create(sweep, root)
        sweep_id = os.path.relpath(local.folder, root)
        print(f"local sweep: {sweep_id}\nits trials: {command('CreateSweep.py', '--status', sweep_id)}")
        return sweep_id

    sweep_id, address = create_in_wandb(sweep, root)
    print(f"sweep: {sweep_id}\nsee it: {address}")
    return sweep_id


def describe(sweep: Sweep) -> str:
    """Return in one line what will be tried."""
    parameters = [parameter for parameter in space.read_parameters(sweep.parameters) if len(parameter.values) != 1]
    if sweep.method == "grid":
        runs = f"grid, {counted(len(space.grid(sweep.parameters)), 'run')}"
        if len(parameters) < 2:
            return runs
        factors = " × ".join(f"{len(parameter.grid())} {parameter.name}" for parameter in parameters)
        return f"{runs} = {factors}"

    cap = sweep.config.get("run_cap")
    runs = counted(cap, "run") if cap else "runs without end (no run_cap)"
    names = ", ".join(parameter.name for parameter in parameters)
    return f"{sweep.method}, {runs} over {names}"


def check_sweep(sweep: Sweep, root: Path, metric: bool) -> None:
    """Check every listed value and both ends of every distribution with Train.py's parser, and what is logged.

    Args:
        sweep: the sweep.
        root: the project's folder.
        metric: whether to train on one batch, to see which metrics are logged.

    Raises:
        SettingsError: a value is wrong, or nothing logs the metric.
    """
    # All of them before torch is imported: unknown files and keys are found at once.
    runs = list(sweep.runs_to_check(root))
    start_terminal()
    import_torchmetrics()
    from ..settings.parser import check_all

    check_all((values, run.settings) for values, run in runs)
    print(f"{counted(len(runs), 'combination')} of values {'is' if len(runs) == 1 else 'are'} right", flush=True)
    if not metric or sweep.metric is None:
        return

    first = space.corners(sweep.parameters)[0]
    metrics, status = try_run(sweep.arguments(first), root)
    names = sweep.logged(metrics)
    if sweep.metric not in names:
        choices = ", ".join(name for name in names if "/" in name)
        raise SettingsError(
            f"metric {sweep.metric}: no run logs it; there are {choices}. "
            "The best so far is logged of checkpoints.monitor: add --checkpoints.monitor=NAME to `command`",
            page="sweeps.md#the-file",
        )
    check_goal(sweep, status)
    print(f"metric {sweep.metric} is logged")


def check_goal(sweep: Sweep, status: Mapping[str, Any]) -> None:
    """Check that a sweep and its runs look for the same end of the metric, where it is the best value of a run.

    Args:
        sweep: the sweep.
        status: status.json of one of its runs: which metric decides about checkpoints, and whether small is good.

    Raises:
        SettingsError: the best value of each run would be the worst one for the sweep.
    """
    mode = "max" if sweep.maximize else "min"
    if sweep.metric != f"{status.get('monitor')}_best" or status.get("mode") in (None, mode):
        return
    raise SettingsError(
        f"metric {sweep.metric} has goal {sweep.config['metric']['goal']}, but its runs keep the "
        f"{'smallest' if status['mode'] == 'min' else 'largest'} {status['monitor']}: change the goal, or add "
        f"--checkpoints.mode={mode} to `command`"
    )


def try_run(arguments: Sequence[str], root: Path) -> tuple[list[str], dict[str, Any]]:
    """Train and validate on one batch on the CPU, to see what a run logs.

    It is a program of its own, which ends when this one does.

    Args:
        arguments: what would follow `Train.py fit`.
        root: the project's folder.

    Returns:
        the names of the metrics, and the run's status.json.

    Raises:
        SettingsError: a setting is wrong, or the run does not get through one batch.
    """
    with tempfile.TemporaryDirectory() as folder:
        quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.devices=1", "--cka=null"]
        quick += ["--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.logger=false", f"--runs_dir={folder}"]
        command = [sys.executable, str(root / "Train.py"), "fit", *arguments, *quick]
        log = Path(folder) / "output.txt"
        with log.open("wb") as output, Child(command, output=output) as child:
            code = child.wait()

        if code != 0:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            errors += [f"{line.strip()} (code {code})" for line in lines[-1:]]  # of a traceback
            reason = errors[0] if errors else f"code {code}"
            raise SettingsError(f"a run does not get through one batch: {reason}")

        (file,) = Path(folder).glob("*/*/metrics.csv")
        with file.open(encoding="utf-8") as rows:
            metrics = next(rows).strip().split(",")
        return metrics, json.loads(file.with_name("status.json").read_text(encoding="utf-8"))


def resume_sweep(sweep_id: str, root: Path) -> str:
    """Let an existing sweep hand out runs again; returns its id."""
    if LocalSweep.exists(sweep_id, root):
        return os.path.relpath(LocalSweep.open(sweep_id, root).folder, root)
    sweep_id = plain_id(sweep_id)
    resume_in_wandb(sweep_id)
    return sweep_id


def start_agents(sweep_id: str, arguments: argparse.Namespace, root: Path, submit_agents: SubmitAgents | None) -> None:
    """Submit agents, or say how to start them."""
    count = arguments.agents or 4
    if arguments.submit and submit_agents is not None:
        job, submitted = submit_agents(sweep_id, count, arguments.cluster, root)
        print(f"{counted(submitted, 'agent')}: job {job}; stop them: scancel {job}")
    else:
        print(f"an agent here:    {command('SweepAgent.py', sweep_id)}")
        elsewhere = [] if Path.cwd() == root else [f"--chdir={root}"]  # where the batch file looks for the project
        batch = str(shown(root / "slurm" / "sweep_agent.sbatch"))
        print(f"agents by SLURM:  {shlex.join(['sbatch', f'--array=1-{count}', *elsewhere, batch, sweep_id])}")
