"""Several labels at once, each of which a sample has or not: what is in a picture, which topics a text has.

    python Train.py fit --data Topics --model Tagger --model.network MLP
    python Train.py predict --data Topics --model Tagger --model.network MLP

To change: `load`, whose targets are 0 and 1, (N, labels). Rare labels are learnt better with
`--model.positive_weight 5`, which makes a label that is there count five times.
"""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from lightning_hpc.data import DataModule
from lightning_hpc.training import configure_optimizers


class Topics(DataModule):
    """2,000 made-up documents, as counts of 20 words, each with some of five topics."""

    classes = 5
    input_shape = (20,)

    def load(self) -> dict[str, Dataset]:
        from sklearn.datasets import make_multilabel_classification

        counts, topics = make_multilabel_classification(2000, n_features=20, n_classes=5, n_labels=2, random_state=0)
        counts = torch.tensor(counts).float()
        return {"train": TensorDataset((counts - counts.mean()) / counts.std(), torch.tensor(topics).float())}


class Tagger(LightningModule):
    """Trains a network that gives a logit for each label.

    Args:
        network: (N, *input_shape) → (N, classes).
        classes: number of labels; filled in from the data.
        optimizer, lr_scheduler: as for Classifier.
        positive_weight: how much a label that is there counts, against one that is not.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        positive_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.positive_weight = positive_weight
        metrics = {"f1": MultilabelF1Score(classes), "ap": MultilabelAveragePrecision(classes)}
        self.val_metrics = MetricCollection(metrics, prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        weight = torch.full_like(logits[0], self.positive_weight)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_metrics)

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str, metrics: MetricCollection) -> None:
        """Log loss, F1 and average precision of one batch."""
        inputs, targets = batch
        logits = self(inputs)
        metrics.update(logits.sigmoid(), targets.int())
        self.log(f"{stage}/loss", self.loss(logits, targets), sync_dist=True, batch_size=len(targets))
        self.log_dict(metrics)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Probabilities (N, classes) of each label by itself."""
        return self(batch[0]).sigmoid()

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizers(self, self.optimizer(self.parameters()), self.lr_scheduler)
