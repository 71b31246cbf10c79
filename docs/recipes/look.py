"""Pictures and histograms in a tracker, and as files: here samples that the model gets wrong, and its weights.

    python Train.py fit --trainer.callbacks+ Look
    python Train.py fit --trainer.callbacks+ Look --config trackers/tensorboard.yaml

To change: `draw`, for another picture, and `values`, for what the histograms are of. W&B and TensorBoard get both; any
run has the pictures in its folder, in look/.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Look(Callback):
    """After each validation, draws samples of its first batch that the model gets wrong, and sends its weights.

    Args:
        count: samples in a picture.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self.wrong: list[tuple[Tensor, int, int]] = []  # image, target, what the model says

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0:
            return
        images, targets = batch
        said = pl_module(images).argmax(dim=1)
        places = (said != targets).nonzero().flatten()[: self.count].tolist()
        self.wrong = [(images[place].cpu(), int(targets[place]), int(said[place])) for place in places]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        figure, histograms = self.draw(), self.values(pl_module)

        file = Path(trainer.default_root_dir) / "look" / f"epoch-{trainer.current_epoch + 1:03d}.png"
        file.parent.mkdir(exist_ok=True)
        figure.savefig(file)

        # Trackers differ in all but numbers, so each is asked in its own words.
        for tracker in trainer.loggers:
            if isinstance(tracker, TensorBoardLogger):
                tracker.experiment.add_figure("look/wrong", figure, trainer.global_step, close=False)
                for name, values in histograms.items():
                    tracker.experiment.add_histogram(f"weights/{name}", values, trainer.global_step)
            elif isinstance(tracker, WandbLogger):
                import wandb

                row = {f"weights/{name}": wandb.Histogram(values.numpy()) for name, values in histograms.items()}
                row["look/wrong"] = wandb.Image(str(file))
                tracker.experiment.log(row | {"trainer/global_step": trainer.global_step})

    def draw(self) -> "Figure":
        """A row of pictures, each with its class and what the model says."""
        from matplotlib.figure import Figure  # not pyplot, which would keep every figure

        figure = Figure(figsize=(self.count, 1.4))
        for number, (image, target, said) in enumerate(self.wrong):
            axes = figure.add_subplot(1, self.count, number + 1)
            axes.imshow(image.mean(dim=0), cmap="gray")
            axes.set_title(f"{target}, not {said}", fontsize=8)
            axes.axis("off")
        return figure

    def values(self, model: LightningModule) -> dict[str, Tensor]:
        """The weights of each layer."""
        with torch.no_grad():
            return {name: weight.flatten().cpu() for name, weight in model.named_parameters() if weight.ndim > 1}
