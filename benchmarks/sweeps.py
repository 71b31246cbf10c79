"""What a local sweep costs beside the training: trials handed out per second, and seconds per trial.

    python benchmarks/sweeps.py                     a minute on 2 cores
    python benchmarks/sweeps.py --json docs/benchmarks/data/sweeps.json

Handing out: processes that take a trial, decide its parameters and write a result, with no run at all, on this
machine's file system. Overhead: an agent whose runs (tests/sweeps/objective.py) end at once, less the time of those
runs alone.

Training: trials of ten steps of a generated project's model, CPU seconds of all processes, by the agent of a local
sweep, by a program for each trial, as `wandb agent` starts them, and by Optuna in one process, which trains with a bare
Trainer: no folder, no checkpoint, no metrics. What an agent or a process needs once is left out: each is measured with
few trials and with more, and the difference counts.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import this_machine, write_figures
from template_path import ROOT, use_template

sys.path.append(str(ROOT / "tests"))
from clean_copy import clean_copy  # noqa: E402

WORKER = """
import sys
from pathlib import Path
from lightning_hpc.sweeps.local_sweep import LocalSweep
local = LocalSweep(Path(sys.argv[1]), Path(sys.argv[2]))
while claimed := local.claim(None):
    trial, _ = claimed
    overlay = local.choose(trial)["overlay"]
    trial.end(state="done", value=(overlay["x"] - 0.3) ** 2 + (overlay["y"] - 0.7) ** 2)
"""
# Optuna's own way: all trials in one process, which has imported torch once.
IN_PROCESS = """
import sys
sys.path[:0] = [sys.argv[1]]
import logging
import warnings
from functools import partial
import optuna
import torch
from lightning.pytorch import Trainer
from project.data import Digits
from project.model import Classifier
from project.networks import ConvNet

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
optuna.logging.set_verbosity(optuna.logging.ERROR)

def objective(trial):
    optimizer = partial(torch.optim.AdamW, lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True))
    model = Classifier(ConvNet(classes=10, input_shape=(1, 8, 8), width=32, dropout=0.2), 10, optimizer)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=10, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(model, datamodule=Digits(batch_size=64))
    return float(trainer.callback_metrics["val/loss"])

optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).optimize(objective, n_trials=int(sys.argv[2]))
"""
SETTINGS = {
    "trainer.max_epochs": 1, "trainer.limit_train_batches": 10, "trainer.accelerator": "cpu", "trainer.logger": False,
    "trainer.enable_model_summary": False, "cka": None,
}  # fmt: skip
FEW, MORE = 2, 8  # trials; what is needed once is in both
BOX = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="of each case")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        use_template()
        os.environ["OMP_NUM_THREADS"] = "1"
        rows = [
            hand_out(Path(scratch), method, processes, options.trials)
            for method in ("random", "bayes")
            for processes in (1, 4, 16)
        ]
        rows.append(overhead(Path(scratch), 20))
        rows += trainings(Path(scratch))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        command = f"python benchmarks/sweeps.py --trials {options.trials}"
        write_figures(options.json, this_machine(), command, rows)


def project(folder: Path) -> Path:
    """A project with the quick Train.py of the tests."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "base.yaml").write_text("x: 0.0\ny: 0.0\nsteps: 1\npause: 0.0\n")
    shutil.copy(ROOT / "tests" / "sweeps" / "objective.py", folder / "Train.py")
    return folder


def create(root: Path, **config):
    """A local sweep in a project."""
    from lightning_hpc.sweeps.local_sweep import LocalSweep
    from lightning_hpc.sweeps.sweep_file import Sweep, read_specification

    content = dict(metric={"name": "loss", "goal": "minimize"}, parameters=BOX, **config)
    return LocalSweep.create(Sweep(read_specification(content, "bowl"), root / "bowl.yaml"), root)


def hand_out(scratch: Path, method: str, processes: int, trials: int) -> dict[str, object]:
    """Trials per second that processes take, decide and end."""
    root = project(scratch / f"{method}-{processes}")
    local = create(root, method=method, run_cap=trials)
    command = [sys.executable, "-c", WORKER, str(local.folder), str(root)]
    start = time.monotonic()
    workers = [subprocess.Popen(command) for _ in range(processes)]
    codes = [worker.wait() for worker in workers]
    seconds = time.monotonic() - start
    ended = sum(bool(trial.result) for trial in local.trials())
    assert set(codes) == {0} and ended == trials, (codes, ended)
    return {"case": f"{method}, {processes} agents", "trials": trials, "trials/s": round(trials / seconds, 1)}


def overhead(scratch: Path, trials: int) -> dict[str, object]:
    """Seconds that an agent adds to each trial."""
    root = project(scratch / "overhead")
    local = create(root, method="random", run_cap=trials)
    agent = "import sys; from pathlib import Path; from lightning_hpc.entrance import sweep_agent as main; "
    agent += "sys.exit(main([sys.argv[1]], Path(sys.argv[2])))"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", agent, str(local.folder), str(root)], check=True, stdout=subprocess.DEVNULL)
    with_agent = time.monotonic() - start
    start = time.monotonic()
    for number in range(trials):
        command = [sys.executable, str(root / "Train.py"), "fit", "--name=alone", f"--x={number}"]
        subprocess.run(command, check=True, cwd=root)
    alone = time.monotonic() - start
    return {"case": "overhead of an agent", "trials": trials, "ms/trial": round(1000 * (with_agent - alone) / trials)}


def trainings(scratch: Path) -> list[dict[str, object]]:
    """CPU seconds of a trial that trains for ten steps, in three ways."""
    from cookiecutter.main import cookiecutter

    template = clean_copy(scratch / "template")
    extra = dict(project_name="Project", package_name="project")
    root = Path(cookiecutter(str(template), no_input=True, output_dir=str(scratch), extra_context=extra))
    ways = {
        "an agent of a local sweep": by_agent,
        "a program for each trial, as `wandb agent`": by_programs,
        "Optuna in one process, a bare Trainer": by_optuna,
    }
    seconds: dict[str, float] = {}
    for name, way in ways.items():
        few, more = way(root, FEW), way(root, MORE)
        seconds[name] = (more - few) / (MORE - FEW)

    rows = []
    for name, each in seconds.items():
        row = {"case": f"ten steps: {name}", "trials": MORE, "CPU s/trial": round(each, 2)}
        row["beside the training"] = round(each - seconds["Optuna in one process, a bare Trainer"], 2)
        row["trials/h of a core"] = round(3600 / each)
        rows.append(row)
    return rows


def cpu_of(*command: str | Path, root: Path) -> float:
    """CPU seconds of a program, with all that it starts and waits for."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def by_agent(root: Path, trials: int) -> float:
    """An agent, with a sweep of its own."""
    from lightning_hpc.sweeps.local_sweep import LocalSweep
    from lightning_hpc.sweeps.sweep_file import Sweep, read_specification

    parameters = {key: {"value": value} for key, value in SETTINGS.items()}
    parameters["model.optimizer.lr"] = {"min": 1e-4, "max": 1e-2}
    content = dict(metric={"name": "val/loss", "goal": "minimize"}, parameters=parameters, method="random")
    content |= dict(run_cap=trials, name=f"trials-{trials}")
    local = LocalSweep.create(Sweep(read_specification(content, content["name"]), root / "sweep.yaml"), root)
    return cpu_of("SweepAgent.py", local.folder, root=root)


def by_programs(root: Path, trials: int) -> float:
    """Train.py, again and again."""
    typed = [f"--{key}={'null' if value is None else value}" for key, value in SETTINGS.items()]
    total = 0.0
    for number in range(trials):
        rate = f"--model.optimizer.lr={1e-3 + 1e-5 * number + trials * 1e-4}"
        total += cpu_of("Train.py", "fit", "--name=programs", *typed, rate, root=root)
    return total


def by_optuna(root: Path, trials: int) -> float:
    return cpu_of("-c", IN_PROCESS, root, str(trials), root=root)


if __name__ == "__main__":
    main()
