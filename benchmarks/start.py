"""What it takes to start a run, up to its first step: the default run of a generated project, and what others take.

    python benchmarks/start.py [--repeats 5] [--json FILE]

CPU seconds of a process and of what it has started, until the first training step has ended; the process ends there.
The cases take turns, and the least of the repetitions counts, since other programs can only add to it. *Floor* is torch
alone: a network, an optimizer and one step.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from figures import this_machine, write_figures

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from clean_copy import clean_copy  # noqa: E402

# What both peers and the project do at the end of their first step.
END = '''
import os, resource
from lightning.pytorch import Callback


class FirstStep(Callback):
    """Ends the process after the first step, and prints its CPU seconds."""

    def on_train_batch_end(self, *arguments):
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print("CPU", sum(one.ru_utime + one.ru_stime for one in used), flush=True)
        os._exit(0)
'''

FLOOR = """
import resource
import torch
network = torch.nn.Linear(64, 10)
optimizer = torch.optim.AdamW(network.parameters())
torch.nn.functional.cross_entropy(network(torch.rand(64, 64)), torch.zeros(64, dtype=torch.long)).backward()
optimizer.step()
used = resource.getrusage(resource.RUSAGE_SELF)
print("CPU", used.ru_utime + used.ru_stime)
"""

# As a project without this template has it: LightningCLI, scikit-learn's digits, and a tracker.
PEER = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torchmetrics.classification import MulticlassAccuracy


class Digits(LightningDataModule):
    def train_dataloader(self):
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
        return torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)


class Classifier(LightningModule):
    def __init__(self, width: int = 32):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch, batch_idx):
        logits = self.network(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        self.accuracy(logits, batch[1])
        self.log("train/loss", loss)
        self.log("train/acc", self.accuracy)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


LightningCLI(Classifier, Digits, save_config_callback=None, trainer_defaults=dict(enable_progress_bar=False))
"""


def cpu_seconds(*command: str, cwd: Path) -> float:
    """What one start has taken, as it prints it itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(cwd.parent)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("CPU ")]
    if not lines:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-3000:]}")
    return float(lines[-1].split()[1])


def cases(scratch: Path) -> dict[str, Callable[[], float]]:
    """What is started, by what it is called in the table."""
    from cookiecutter.main import cookiecutter

    (scratch / "first_step.py").write_text(END)
    project = Path(cookiecutter(str(clean_copy(scratch / "template")), no_input=True, output_dir=str(scratch)))
    number = 0

    def fit(*more: str) -> float:
        nonlocal number
        number += 1  # of a run of its own
        arguments = ["fit", "--trial", str(number), "--trainer.callbacks+", "first_step.FirstStep"]
        return cpu_seconds(sys.executable, "Train.py", *arguments, *more, cwd=project)

    def peer(logger: str) -> float:
        settings = ["--trainer.callbacks=first_step.FirstStep", f"--trainer.logger=lightning.pytorch.loggers.{logger}"]
        return cpu_seconds(sys.executable, "-c", PEER, "fit", *settings, "--trainer.logger.save_dir=.", cwd=project)

    return {
        "floor: torch, one step of AdamW": lambda: cpu_seconds(sys.executable, "-c", FLOOR, cwd=project),
        "LightningCLI, CSV file": lambda: peer("CSVLogger"),
        "this template, no tracker": lambda: fit("--trainer.logger", "false"),
        "LightningCLI, W&B": lambda: peer("WandbLogger"),
        "this template, W&B (the default run)": fit,
    }


def main() -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        all_cases = cases(Path(scratch))
        took: dict[str, list[float]] = {name: [] for name in all_cases}
        for _ in range(arguments.repeats + 1):
            for name, case in all_cases.items():  # in turn, so that a busy moment of the machine meets all of them
                took[name].append(case())

    rows = []
    floor = min(next(iter(took.values()))[1:])
    for name, seconds in took.items():
        least = min(seconds[1:])  # the first one compiles modules
        rows.append({"start": name, "CPU s": round(least, 2), "ratio to the floor": round(least / floor, 2)})
        print(f"{least:6.2f} CPU s  {least / floor:5.2f} × the floor  {name}", flush=True)
    if arguments.json:
        command = f"python benchmarks/start.py --repeats {arguments.repeats}"
        write_figures(arguments.json, this_machine(), command, rows)


if __name__ == "__main__":
    main()
