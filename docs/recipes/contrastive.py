"""Learning without labels: two views of a sample are to be alike, and unlike those of all other samples.

    python Train.py fit --name views --data TwoViews --model Contrastive --data.batch_size 256 --trainer.max_epochs 20
    python Train.py test --name views --data TwoViews --model Contrastive --data.batch_size 256 --trainer.max_epochs 20

To change: `view`, which says what is to make no difference. To use what was learnt, train a Classifier with the same
network, `--init_from runs/views/RUN/checkpoints/best.ckpt` and `--init_strict false`; fine-tuning is a recipe, too.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_hpc.training import configure_optimizers

from .data import Digits


class TwoViews(Digits):
    """Digits, each as two views: (view, other view)."""

    classes = 64  # what the network gives are no classes, but so many features

    def transform(self, training: bool) -> Callable:
        return two_views  # also where it validates, since that asks the same question


def two_views(sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    image, _ = sample
    return view(image), view(image)


def view(image: Tensor) -> Tensor:
    """A picture moved by up to a pixel in each direction, with other contrast and some noise."""
    rows, columns = torch.randint(-1, 2, (2,)).tolist()
    contrast = torch.empty(1).uniform_(0.6, 1.4)
    return contrast * image.roll((rows, columns), (1, 2)) + 0.1 * torch.randn_like(image)


class Contrastive(LightningModule):
    """Trains a network by the loss of SimCLR (Chen et al. 2020, arXiv:2002.05709).

    It logs val/match, the share of views whose nearest other view in the batch is that of the same sample.

    Args:
        network: (N, *input_shape) → (N, features).
        optimizer, lr_scheduler: as for Classifier.
        temperature: how much the nearest of the other samples count more than those far away.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.temperature = temperature
        self.val_match, self.test_match = MeanMetric(), MeanMetric()

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of length 1."""
        return F.normalize(self.network(inputs), dim=1)

    def compare(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Similarities (2N, 2N) of all views of N samples, as logits, and which view is each one's partner."""
        views = self(torch.cat(batch))
        logits = views @ views.T / self.temperature
        logits.fill_diagonal_(-torch.inf)  # no view is its own partner
        count = len(batch[0])
        partners = torch.arange(2 * count, device=views.device).roll(count)
        return logits, partners

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(*self.compare(batch))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_match)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_match)

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str, match: MeanMetric) -> None:
        """Log the loss of one batch, and how often the nearest view is the partner."""
        logits, partners = self.compare(batch)
        match.update((logits.argmax(dim=1) == partners).float())
        self.log(f"{stage}/loss", F.cross_entropy(logits, partners), sync_dist=True, batch_size=len(batch[0]))
        self.log(f"{stage}/match", match)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizers(self, self.optimizer(self.parameters()), self.lr_scheduler)
