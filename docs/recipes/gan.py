"""Two networks that train against each other, each with its optimizer: a GAN, by Lightning's manual optimization.

    python Train.py fit --model GAN --trainer.gradient_clip_val null --trainer.max_epochs 20
    python Train.py predict --model GAN --trainer.gradient_clip_val null --trainer.max_epochs 20

With manual optimization the steps, the schedules and the clipping of gradients are yours, so Lightning's clipping has
to be off. To change: the two networks, or the losses. The data can be any of the project's with pictures from 0 to 1.
"""

import math

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Adam, Optimizer


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with leaky ReLUs between them."""
    parts: list[nn.Module] = []
    for size_in, size_out in zip(sizes, sizes[1:], strict=False):
        parts += [nn.Linear(size_in, size_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*parts[:-1])


class GAN(LightningModule):
    """A generator that makes pictures from noise, and a discriminator that tells them from real ones.

    Source: Goodfellow et al. 2014, arXiv:1406.2661. The best checkpoint has the smallest val/loss, which is how far
    mean and deviation of each pixel are from those of real pictures. It says little, and needs no other network.

    Args:
        input_shape: (channels, height, width) of a picture; filled in from the data.
        lr: learning rate of both.
        noise: numbers that a picture is made from.
        width: features of the hidden layers.
    """

    def __init__(self, input_shape: tuple[int, int, int], lr: float = 0.001, noise: int = 16, width: int = 256) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.input_shape, self.lr, self.noise = input_shape, lr, noise
        pixels = math.prod(input_shape)
        self.generator = nn.Sequential(layers(noise, width, width, pixels), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Flatten(), layers(pixels, width, width, 1))

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (N, noise) → pictures (N, *input_shape)."""
        return self.generator(noise).reshape(-1, *self.input_shape)

    def sample(self, count: int) -> Tensor:
        """So many new pictures."""
        return self(torch.randn(count, self.noise, device=self.device))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, _ = batch
        of_generator, of_discriminator = self.optimizers()

        # The discriminator learns to say 1 of real pictures and 0 of others.
        real, made = self.discriminator(images), self.discriminator(self.sample(len(images)).detach())
        loss = F.softplus(-real).mean() + F.softplus(made).mean()
        self.step(of_discriminator, loss)
        self.log("train/discriminator", loss, prog_bar=True)

        # The generator learns to be told 1.
        loss = F.softplus(-self.discriminator(self.sample(len(images)))).mean()
        self.step(of_generator, loss)
        self.log("train/generator", loss, prog_bar=True)

    def step(self, optimizer: Optimizer, loss: Tensor) -> None:
        """One step of one optimizer: what Lightning does by itself where there is only one."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        """Log how far the statistics of new pictures are from those of a batch of real ones."""
        images, _ = batch
        made = self.sample(len(images))
        distance = (images.mean(dim=0) - made.mean(dim=0)).abs() + (images.std(dim=0) - made.std(dim=0)).abs()
        self.log(f"{stage}/loss", distance.mean(), sync_dist=True, batch_size=len(images))

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """As many new pictures as the batch has real ones."""
        return self.sample(len(batch[0]))

    def configure_optimizers(self) -> list[Optimizer]:
        networks = (self.generator, self.discriminator)
        return [Adam(network.parameters(), self.lr, betas=(0.0, 0.999)) for network in networks]
