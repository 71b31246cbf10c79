"""Numbers to be predicted instead of classes, measured by mean absolute error and R².

    python Train.py fit --data Diabetes --model Regressor --model.network MLP
    python Train.py predict --data Diabetes --model Regressor --model.network MLP

To change: `load`, and `classes`, which is the number of numbers to predict. Predictions are in the unit of the targets.
"""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics import MeanAbsoluteError, R2Score

from lightning_hpc.data import DataModule
from lightning_hpc.training import configure_optimizers


class Diabetes(DataModule):
    """442 people: ten measurements of each, and how far their diabetes has got after a year (25 to 346).

    Source: Efron, Hastie, Johnstone & Tibshirani 2004, https://doi.org/10.1214/009053604000000067
    """

    classes = 1
    input_shape = (10,)

    def load(self) -> dict[str, Dataset]:
        from sklearn.datasets import load_diabetes

        data = load_diabetes()
        inputs = torch.tensor(data.data, dtype=torch.float32) / data.data.std()  # they come with mean 0
        return {"train": TensorDataset(inputs, torch.tensor(data.target, dtype=torch.float32))}


class Regressor(LightningModule):
    """Trains a network with the squared error of the standardised targets.

    Args:
        network: (N, *input_shape) → (N, 1).
        optimizer, lr_scheduler: as for Classifier.
    """

    def __init__(
        self, network: nn.Module, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        # Buffers, so that they are in the checkpoint, and a test uses what was used to train.
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))
        self.val_error, self.val_r2 = MeanAbsoluteError(), R2Score()
        self.test_error, self.test_r2 = MeanAbsoluteError(), R2Score()

    def on_fit_start(self) -> None:
        # Of the samples that train, and no others: the rest is to be as unknown as what comes later.
        data = self.trainer.datamodule.train_set
        targets = torch.stack([target for _, target in data])
        self.mean.copy_(targets.mean())
        self.deviation.copy_(targets.std())

    def forward(self, inputs: Tensor) -> Tensor:
        """Predictions (N) in the unit of the targets."""
        return self.network(inputs).squeeze(1) * self.deviation + self.mean

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(predictions / self.deviation, targets / self.deviation)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_error, self.val_r2)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_error, self.test_r2)

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str, error: MeanAbsoluteError, r2: R2Score) -> None:
        """Log loss, mean absolute error and R² of one batch."""
        inputs, targets = batch
        predictions = self(inputs)
        error.update(predictions, targets)
        r2.update(predictions, targets)
        self.log(f"{stage}/loss", self.loss(predictions, targets), sync_dist=True, batch_size=len(targets))
        self.log(f"{stage}/error", error)
        self.log(f"{stage}/r2", r2)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizers(self, self.optimizer(self.parameters()), self.lr_scheduler)
