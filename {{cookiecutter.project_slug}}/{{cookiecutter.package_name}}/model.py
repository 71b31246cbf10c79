"""Your LightningModule: what one step does. Choose another with `--model my_package.model.Name`.

python Train.py fit --model.label_smoothing 0.1 --model.network.width 64
python Train.py fit --model.optimizer SGD --model.optimizer.lr 0.1 --model.optimizer.momentum 0.9
"""

from typing import Any

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from .training.schedules import configure_optimizers


class Classifier(LightningModule):
    """Trains any network that maps a batch to logits with cross entropy, and reports loss and accuracy.

    Args:
        network: the network; (N, *input_shape) → logits (N, classes), or an output object with `.logits`.
        classes: number of classes; filled in from the data.
        optimizer: makes the optimizer from the parameters. No default here on purpose: configs/base.yaml has it, and a
            default in the signature would leak into every other optimizer that is chosen.
        lr_scheduler: makes the learning rate schedule from the optimizer; none keeps the learning rate constant.
        label_smoothing: share in [0, 1) of the target spread evenly over all classes.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        # Metric objects count samples exactly: over ragged batches, ranks, and restarts in the middle of an epoch.
        # To check their arguments would make the GPU wait at every step.
        self.train_acc = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.val_acc = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.test_acc = MulticlassAccuracy(classes, average="micro", validate_args=False)

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.network(inputs)
        return getattr(output, "logits", output)  # transformers' networks return an object

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        logits = self(inputs)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        self.train_acc.update(logits, targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        # Not at every step, where it would cost as much as a small network; and not if a child's step leaves it out.
        if self.train_acc.update_called:
            self.log("train/acc", self.train_acc)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_acc)

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy) -> None:
        """Log loss and accuracy of one batch as `stage/loss` and `stage/acc`; the loss without label smoothing."""
        inputs, targets = batch
        logits = self(inputs)
        accuracy.update(logits, targets)
        loss = F.cross_entropy(logits, targets)
        self.log(f"{stage}/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(targets))
        self.log(f"{stage}/acc", accuracy, prog_bar=True)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Probabilities (N, classes)."""
        return self(batch[0]).softmax(dim=-1)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizers(self, self.optimizer(self.parameters()), self.lr_scheduler)
