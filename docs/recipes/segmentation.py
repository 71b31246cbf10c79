"""A class for each pixel: segmentation, measured by the intersection over union (IoU) of each class.

    python Train.py fit --data Shapes --model Segmenter --model.network UNet --data.batch_size 16
    python Train.py test --data Shapes --model Segmenter --model.network UNet --data.batch_size 16

To change: `load`, to return your own pictures and masks. Where these are files, see the recipe of pictures, and return
the mask in the place of the class.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_hpc.data import DataModule
from lightning_hpc.training import configure_optimizers


class Shapes(DataModule):
    """400 noisy pictures, 32×32, of a disc (class 1) and a square (class 2) on a background (class 0)."""

    classes = 3
    input_shape = (1, 32, 32)

    def load(self) -> dict[str, Dataset]:
        generator = torch.Generator().manual_seed(0)  # the same pictures, whatever the run's seed
        places = torch.randint(8, 24, (400, 2, 2), generator=generator)
        rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        masks = torch.zeros(400, 32, 32, dtype=torch.long)
        for mask, (disc, square) in zip(masks, places, strict=True):
            mask[(rows - disc[0]) ** 2 + (columns - disc[1]) ** 2 <= 36] = 1
            mask[(rows - square[0]).abs().maximum((columns - square[1]).abs()) <= 5] = 2
        images = masks.sign().unsqueeze(1) + 0.3 * torch.randn(400, 1, 32, 32, generator=generator)
        return {"train": TensorDataset(images, masks)}

    def transform(self, training: bool) -> Callable | None:
        return flip if training else None


def flip(sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mirror every second picture, and its mask with it."""
    image, mask = sample
    if torch.rand(()) < 0.5:
        return sample
    return image.flip(-1), mask.flip(-1)


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015, arXiv:1505.04597): down, up, and what was seen on the way down.

    Args:
        classes: number of classes.
        in_channels: channels of a picture.
        width: channels at full size.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W), with H and W multiples of 4
    """

    def __init__(self, classes: int, in_channels: int, width: int = 16) -> None:
        super().__init__()
        self.down1 = block(in_channels, width)
        self.down2 = block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2 = block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join1 = block(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        full = self.down1(images)
        half = self.down2(F.max_pool2d(full, 2))
        quarter = self.bottom(F.max_pool2d(half, 2))
        half = self.join2(torch.cat([self.up2(quarter), half], dim=1))
        full = self.join1(torch.cat([self.up1(half), full], dim=1))
        return self.head(full)


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """A convolution that keeps the size, with batch norm."""
    layers = [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers)


class Segmenter(LightningModule):
    """Trains a network that gives logits for each pixel.

    Args:
        network: (N, channels, H, W) → (N, classes, H, W).
        classes: number of classes; filled in from the data.
        optimizer, lr_scheduler: as for Classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.val_iou = MulticlassJaccardIndex(classes, validate_args=False)
        self.test_iou = MulticlassJaccardIndex(classes, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        loss = F.cross_entropy(self(images), masks)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_iou)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_iou)

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str, iou: MulticlassJaccardIndex) -> None:
        """Log loss and mean IoU of one batch."""
        images, masks = batch
        logits = self(images)
        iou.update(logits, masks)
        self.log(f"{stage}/loss", F.cross_entropy(logits, masks), sync_dist=True, batch_size=len(masks))
        self.log(f"{stage}/iou", iou)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Masks (N, H, W)."""
        return self(batch[0]).argmax(dim=1)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizers(self, self.optimizer(self.parameters()), self.lr_scheduler)
