"""A metric of your own: here the Brier score, 0 for a model that is right and sure, 2 for one that is wrong and sure.

    python Train.py fit --model BrierClassifier
    python Train.py fit --model BrierClassifier --checkpoints.monitor val/brier
    python Train.py test --model BrierClassifier

Written as a metric of torchmetrics, it is exact with batches of different sizes, on several GPUs, and when a run is
killed and started again. To change: the two states, and what `update` and `compute` do with them.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from .model import Classifier


class BrierScore(Metric):
    """Mean squared distance between probabilities and what was the case (Brier 1950), over the samples."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        # States are what is added up. `dist_reduce_fx` says how those of several processes become one.
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch: probabilities (N, classes), targets (N)."""
        was = F.one_hot(targets, probabilities.shape[1])
        self.total += (probabilities - was).square().sum()
        self.count += len(targets)

    def compute(self) -> Tensor:
        return self.total / self.count


class BrierClassifier(Classifier):
    """A Classifier that also logs val/brier and test/brier.

    Args:
        network, classes, optimizer, lr_scheduler, label_smoothing: as for Classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, classes, optimizer, lr_scheduler, label_smoothing)
        self.val_brier, self.test_brier = BrierScore(), BrierScore()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        inputs, targets = batch
        self.val_brier.update(self(inputs).softmax(dim=1), targets)
        self.log("val/brier", self.val_brier)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        inputs, targets = batch
        self.test_brier.update(self(inputs).softmax(dim=1), targets)
        self.log("test/brier", self.test_brier)
