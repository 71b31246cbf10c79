"""Your LightningModules: what one step does. Choose one with `--model Name`.

python Train.py fit --model.label_smoothing 0.1 --model.network.width 64
python Train.py fit --model.optimizer SGD --model.optimizer.lr 0.1 --model.optimizer.momentum 0.9
python Train.py fit --model WatchedClassifier                            CKA as a metric of the validation
"""

import copy
from typing import Any

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_hpc.cka import CKA, GramRecorder
from lightning_hpc.training import configure_optimizers, is_logged


class Classifier(LightningModule):
    """Trains any network that maps a batch to logits with cross entropy, and reports loss and accuracy.

    To have a trained one in Python: `from lightning_hpc import load`, then `load("runs/…").model`.

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
        if is_logged(self):  # at the other steps, logging would cost more than a small network does
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        # Not at every step, where it would cost as much as a small network; and not if a child's step leaves it out.
        if self.train_acc.update_called:
            self.log("train/acc", self.train_acc)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
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
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(trained)
        # Returns what Lightning asks for, here with the default schedule, WarmupCosine, which also learns how long the
        # run is: {"optimizer": optimizer, "lr_scheduler": {"scheduler": WarmupCosine(optimizer), "interval": "step"}}
        return configure_optimizers(self, optimizer, self.lr_scheduler)


class WatchedClassifier(Classifier):
    """A Classifier that also measures, while it validates, how far each layer has moved from its initial weights: CKA.

    An example of a metric of your own in `validation_step`: record, update, compute at the epoch's end. It logs
    val/cka/LAYER, 1 for the same representation as at the start, about 0 for an unrelated one, and their mean, val/cka.
    Not with `--compile true`, where a network's layers can't be seen; the setting `cka` draws such maps for any model.

    Args:
        network, classes, optimizer, lr_scheduler, label_smoothing: as for Classifier.
        layers: names of the parts of the network to look at; default: its children.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        layers: list[str] | None = None,
    ) -> None:
        super().__init__(network, classes, optimizer, lr_scheduler, label_smoothing)
        # A part of the model, so it is in its checkpoints, and a run that is resumed compares with the same weights.
        self.initial = copy.deepcopy(network).requires_grad_(False)
        self.layers = layers or [name for name, _ in network.named_children()]
        self.cka = CKA(len(self.layers), len(self.layers), self.layers, self.layers)

    def on_validation_epoch_start(self) -> None:
        # New ones in each epoch: from its first batch a recorder learns how exactly it has to multiply.
        self.now = GramRecorder(self.network, self.layers)
        self.then = GramRecorder(self.initial, self.layers)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs, _ = batch
        with self.now, self.then:
            super().validation_step(batch, batch_idx)  # runs the network
            self.initial(inputs)
        self.cka.update(self.now.grams(), self.then.grams())

    def on_validation_epoch_end(self) -> None:
        # (layers now, layers then): the diagonal has each layer with itself. On several GPUs, compute adds up them all.
        size = len(self.layers)
        similarity = self.cka.compute().reshape(size, size).diagonal()
        self.cka.reset()
        self.log("val/cka", similarity.mean())
        for name, value in zip(self.now.names, similarity, strict=True):
            self.log(f"val/cka/{name}", value)
