"""Classes of very different sizes: weights in the loss, or rare samples drawn more often.

    python Train.py fit --data RareDigits --model WeightedClassifier
    python Train.py fit --data RareDigits --data.balanced true --model WeightedClassifier --model.power 0

Use one of the two, and look at val/balanced_acc, the mean accuracy of the classes: the usual accuracy is high where the
rare ones are never named. To change: inherit from your own data instead of Digits, without `load`.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler
from torchmetrics.classification import MulticlassAccuracy

from .data import Digits
from .model import Classifier


class RareDigits(Digits):
    """Digits of which those from 5 on are rare: one in ten of them is left.

    Args:
        balanced: draw samples so that each class comes equally often, with repetitions.
        settings: those of every DataModule.
    """

    def __init__(self, balanced: bool = False, **settings) -> None:
        super().__init__(**settings)
        self.balanced = balanced

    def load(self) -> dict[str, Dataset]:
        images, targets = super().load()["train"].tensors
        keep = (targets < 5) | (torch.arange(len(targets)) % 10 == 0)
        return {"train": TensorDataset(images[keep], targets[keep])}

    def train_dataloader(self) -> DataLoader:
        if not self.balanced:
            return super().train_dataloader()
        targets = targets_of(self.train_set)
        weights = 1 / targets.bincount()[targets]
        sampler = WeightedRandomSampler(weights, num_samples=len(targets))
        return DataLoader(self.train_set, self.batch_size, sampler=sampler, num_workers=self.num_workers)


def targets_of(dataset: Dataset) -> Tensor:
    """The classes (N) of all samples."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    return torch.tensor([int(target) for _, target in dataset])


class WeightedClassifier(Classifier):
    """A Classifier whose loss counts rare classes more: each by (samples of a class of mean size / its samples)^power.

    Args:
        network, classes, optimizer, lr_scheduler, label_smoothing: as for Classifier.
        power: 1 lets all classes count the same, 0 all samples; in between is often best.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        power: float = 1.0,
    ) -> None:
        super().__init__(network, classes, optimizer, lr_scheduler, label_smoothing)
        self.power = power
        self.register_buffer("weights", torch.ones(classes))
        self.val_balanced = MulticlassAccuracy(classes, average="macro", validate_args=False)
        self.test_balanced = MulticlassAccuracy(classes, average="macro", validate_args=False)

    def on_fit_start(self) -> None:
        counts = targets_of(self.trainer.datamodule.train_set).bincount(minlength=len(self.weights))
        self.weights.copy_((counts.sum() / len(counts) / counts.clamp(min=1)) ** self.power)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        logits = self(inputs)
        loss = F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.label_smoothing)
        self.train_acc.update(logits, targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.evaluate_balanced(batch, "val", self.val_balanced)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.evaluate_balanced(batch, "test", self.test_balanced)

    def evaluate_balanced(self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy) -> None:
        inputs, targets = batch
        accuracy.update(self(inputs), targets)
        self.log(f"{stage}/balanced_acc", accuracy)
