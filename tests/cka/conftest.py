"""Song's unbiased HSIC, written from the formula in float64, and small models for the CKA tests."""

import os

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with a GPU in sight, autograd starts threads, and ranks can't be forked


def hsic_1(K, L):
    """Song et al. 2012, equation 5: for zero-diagonal K and L,
    [tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)] / (n (n-3))."""
    n = len(K)
    K, L = K.double().clone().fill_diagonal_(0), L.double().clone().fill_diagonal_(0)
    KL = K @ L
    return (KL.trace() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * KL.sum() / (n - 2)) / (n * (n - 3))


def song_cka(batches_a, batches_b=None):
    """CKA from batches of lists of features, each batch weighted by n (n - 3); all in float64, centred first (HSIC_1
    doesn't change when a feature's mean does)."""

    def grams(layers):
        centred = [x.double().flatten(1) - x.double().flatten(1).mean(0) for x in layers]
        return [x @ x.T / x.shape[1] for x in centred]

    sums = 0
    for index, layers_a in enumerate(batches_a):
        a = grams(layers_a)
        b = a if batches_b is None else grams(batches_b[index])
        weight = len(a[0]) * (len(a[0]) - 3)
        xy = torch.stack([torch.stack([hsic_1(K, L) for L in b]) for K in a])
        xx, yy = (torch.stack([hsic_1(K, K) for K in Ks]) for Ks in (a, b))
        sums = [weight * new + old for new, old in zip((xy, xx, yy), sums or (0, 0, 0), strict=True)]
    xy, xx, yy = sums
    return xy / torch.sqrt(xx[:, None] * yy)


class Collect:
    """The plain way to get at activations: keep a copy of each."""

    def __init__(self, model, names):
        self.batches = []
        modules = dict(model.named_modules())
        self.handles = [modules[name].register_forward_hook(self.hook) for name in names]

    def hook(self, module, inputs, output):
        self.batches[-1].append(output.detach().clone())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for handle in self.handles:
            handle.remove()


class Net(nn.Sequential):
    """Convolution, batch norm, in-place ReLU, pooling, dropout, linear: what a callback could disturb."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(16, 3),
        )  # fmt: skip


class Lit(LightningModule):
    def __init__(self, network=None):
        super().__init__()
        self.network = Net() if network is None else network
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch, index):
        x, y = batch
        return self.loss(self.network(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val/loss", self.loss(self.network(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Data(LightningDataModule):
    def __init__(self, samples=64, batch_size=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.set = TensorDataset(
            torch.randn(samples, 1, 8, 8, generator=generator), torch.randint(3, (samples,), generator=generator)
        )
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.set, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.set, self.batch_size)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
