"""Fine-tuning: a new last layer on a network that has learnt before, which is frozen at first, then learns more slowly.

    python Train.py fit --name before
    python Train.py fit --name tuned --model FineTuner --init_from runs/before/RUN/checkpoints/best.ckpt

The weights come from a run of yours (`--init_strict false` leaves out layers of another shape), or with a network of
a package: `--model.network torchvision.models.resnet18 --model.network.weights DEFAULT --model.head fc`.
On several GPUs add `--trainer.strategy ddp_find_unused_parameters_true`, since the frozen part has no gradients.
"""

from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_hpc.training import configure_optimizers

from .model import Classifier


class FineTuner(Classifier):
    """A Classifier whose network has a body that has learnt before, and a head that has not.

    Args:
        network, classes, optimizer, lr_scheduler, label_smoothing: as for Classifier.
        head: name of the head, which is one of the network's children.
        body_factor: learning rate of the body, as a share of the head's.
        frozen_epochs: epochs in which the head learns alone, so that its first, wild steps spoil nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        head: str = "head",
        body_factor: float = 0.1,
        frozen_epochs: int = 2,
    ) -> None:
        super().__init__(network, classes, optimizer, lr_scheduler, label_smoothing)
        self.head = head
        self.body_factor, self.frozen_epochs = body_factor, frozen_epochs

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # At each batch, so that a run which is started again in the middle of an epoch does the same.
        frozen = self.current_epoch < self.frozen_epochs
        for name, child in self.network.named_children():
            if name != self.head:
                child.requires_grad_(not frozen)
                child.train(not frozen)  # batch norm keeps the statistics that it has learnt

    def configure_optimizers(self) -> dict[str, Any]:
        head = list(self.network.get_submodule(self.head).parameters())
        of_head = {id(parameter) for parameter in head}
        body = [parameter for parameter in self.network.parameters() if id(parameter) not in of_head]

        # Both are in the optimizer from the start: what has no gradient yet is left as it is. The schedule multiplies
        # each group's own learning rate.
        optimizer = self.optimizer([{"params": head}, {"params": body}])
        optimizer.param_groups[1]["lr"] *= self.body_factor
        return configure_optimizers(self, optimizer, self.lr_scheduler)
