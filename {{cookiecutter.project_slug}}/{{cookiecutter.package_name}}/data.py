"""Your DataModules: where the data comes from. Choose one with `--data my_package.data.Name`.

    python Train.py fit --data.batch_size 128 --data.num_workers 4
    python Train.py fetch --data FashionMNIST                          download it, on a login node
    python Train.py fit --data FashionMNIST

A data set has two attributes that the networks need, `classes` and `input_shape`, and `load`, which returns its
samples. Splits, cross-validation and loaders come from DataModule; exact resume wraps the loaders, so a run that is
killed sees the same batches again in the same order.
"""

import gzip
from collections.abc import Callable
from importlib.metadata import distribution

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from lightning_hpc.data import DataModule, Source, fetch_all


class Digits(DataModule):
    """1,797 real images of hand-written digits, 8×8 grey values, that ship with scikit-learn: nothing to download.

    60 % of each class are for training, 20 % for validation, 20 % for the test; always the same images, whatever the
    run's seed. Source: Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49
    """

    classes = 10
    input_shape = (1, 8, 8)

    def load(self) -> dict[str, Dataset]:
        # Read from scikit-learn's file: importing scikit-learn itself takes a second.
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        table = torch.from_numpy(np.loadtxt(str(file), delimiter=","))  # 64 grey values from 0 to 16, and the digit
        images = table[:, :-1].float().view(-1, *self.input_shape) / 16
        return {"train": TensorDataset(images, table[:, -1].long())}


class FashionMNIST(DataModule):
    """70,000 images of clothes, 28×28 grey values: 60,000 to train with, of which 20 % validate, and 10,000 to test.

    A download of 31 MB. Source: Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747
    """

    classes = 10
    input_shape = (1, 28, 28)
    mirrors = (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    # name: (bytes, SHA-256), from TensorFlow Datasets, url_checksums/fashion_mnist.txt
    files = {
        "train-images-idx3-ubyte.gz": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    }

    def prepare_data(self) -> None:
        folder = self.data_dir / "fashion-mnist"
        sources = []
        for name, (size, sha256) in self.files.items():
            addresses = [mirror + name for mirror in self.mirrors]
            sources.append(Source(addresses, folder / name, sha256, size=size))
        fetch_all(sources)

    def load(self) -> dict[str, Dataset]:
        return {"train": TensorDataset(*self.read("train")), "test": TensorDataset(*self.read("t10k"))}

    def read(self, prefix: str) -> tuple[Tensor, Tensor]:
        """Images (N, 1, 28, 28) as bytes, and labels (N), from the files, which have headers of 16 and 8 bytes."""
        folder = self.data_dir / "fashion-mnist"
        images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())

        # bytearray: a tensor must be able to write to its memory
        pixels = torch.frombuffer(bytearray(images), dtype=torch.uint8, offset=16)
        targets = torch.frombuffer(bytearray(labels), dtype=torch.uint8, offset=8)
        return pixels.view(-1, *self.input_shape), targets.long()

    def transform(self, training: bool) -> Callable:
        return to_float  # sample by sample: all images as floats would need four times the memory


def to_float(sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Grey values 0 to 255 as 0 to 1."""
    image, target = sample
    return image / 255, target
