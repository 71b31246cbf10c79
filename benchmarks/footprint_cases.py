"""What benchmarks/footprint.py measures: projects of this template, now and before, and a project of a single file."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from clean_copy import clean_copy  # noqa: E402

# Makes all epochs of a run equally long, and shows where its parts begin: strace sees what is asked for.
PACE = '''
import os, time
from lightning.pytorch import Callback


class Pace(Callback):
    """Lets an epoch last some seconds."""

    begin = None

    def on_train_batch_end(self, *arguments):
        if self.begin is None:
            os.access("/part/training", os.F_OK)
            self.begin = time.monotonic()

    def on_train_epoch_end(self, *arguments):
        self.begin += float(os.environ["SECONDS_AN_EPOCH"])
        time.sleep(max(0, self.begin - time.monotonic()))

    def on_train_end(self, *arguments):
        os.access("/part/end", os.F_OK)
'''

PEER = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torchmetrics.classification import MulticlassAccuracy


class Digits(LightningDataModule):
    def setup(self, stage):
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
        self.train, self.val = torch.utils.data.random_split(dataset, [0.8, 0.2])

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.train, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.val, batch_size=64)


class Classifier(LightningModule):
    def __init__(self, width: int = 256):
        super().__init__()
        layers = [torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)]
        self.network, self.accuracy = torch.nn.Sequential(*layers), MulticlassAccuracy(10)

    def step(self, batch, name):
        logits = self.network(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        self.accuracy(logits, batch[1])
        self.log(f"{name}/loss", loss)
        self.log(f"{name}/acc", self.accuracy)
        return loss

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


best = ModelCheckpoint(monitor="val/loss", save_last=True)
defaults = dict(callbacks=[best], enable_progress_bar=False, log_every_n_steps=10)
LightningCLI(Classifier, Digits, trainer_defaults=defaults, save_config_kwargs=dict(overwrite=True))
"""

PEERS = "LightningCLI, "  # what their names begin with
DEFAULT, EARLIER = "this template, W&B (the default run)", "as it was, W&B (the default run)"


@dataclass
class Project:
    """A project that is measured.

    Attributes:
        folder: where it is.
        command: what starts a run of it.
        runs: the folders of its runs, as a pattern.
    """

    folder: Path
    command: list[str]
    runs: str


def generated(template: Path, target: Path) -> Project:
    """A project of a template, with the settings of a default run."""
    from cookiecutter.main import cookiecutter

    folder = Path(cookiecutter(str(template), no_input=True, output_dir=str(target)))
    return Project(folder, [sys.executable, "Train.py", "fit", "--trainer.callbacks+", "pace.Pace"], "runs/[!.]*/*")


def of_one_file(target: Path) -> Project:
    """The peer."""
    folder = target / "peer"
    folder.mkdir()
    (folder / "train.py").write_text(PEER)
    return Project(folder, [sys.executable, "train.py", "fit", "--trainer.callbacks=pace.Pace"], "logs")


def earlier_template(commit: str, target: Path) -> Path:
    """The template as it was in a commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(target, filter="data")
    return target


def all_cases(before: str | None, scratch: Path) -> dict[str, tuple[Project, list[str]]]:
    """Projects, each in a folder of its own, and the settings of their runs, by what the case is called."""
    template = clean_copy(scratch / "template")
    untracked, without_cka = ["--trainer.logger", "false"], ["--cka", "null"]
    makes: dict[str, tuple[Callable[[Path], Project], list[str]]] = {
        f"{PEERS}CSV file": (of_one_file, to_logger("CSVLogger")),
        "this template, no tracker, no CKA": (partial(generated, template), [*untracked, *without_cka]),
        "this template, no tracker": (partial(generated, template), untracked),
        f"{PEERS}W&B": (of_one_file, to_logger("WandbLogger")),
        "this template, W&B, no CKA": (partial(generated, template), without_cka),
        DEFAULT: (partial(generated, template), []),
    }
    if before is not None:
        earlier = earlier_template(before, scratch / "earlier")
        makes["as it was, no tracker"] = (partial(generated, earlier), untracked)
        makes[EARLIER] = (partial(generated, earlier), [])

    cases = {}
    for number, (name, (make, settings)) in enumerate(makes.items()):
        folder = scratch / str(number)
        folder.mkdir()
        cases[name] = make(folder), settings
    return cases


def to_logger(name: str) -> list[str]:
    """Settings of the peer."""
    return [f"--trainer.logger=lightning.pytorch.loggers.{name}", "--trainer.logger.save_dir=logs"]
