"""Your LightningDataModule: where the data comes from. Choose another with `--data my_package.data.Name`.

    python Train.py fit --data.batch_size 128 --data.num_workers 4

A DataModule has two attributes that the networks need, `classes` and `input_shape`, and returns ordinary DataLoaders;
exact resume wraps them, so a run that is killed sees the same batches again in the same order.
"""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Digits(LightningDataModule):
    """1,797 real images of hand-written digits, 8×8 grey values, that ship with scikit-learn: nothing to download.

    60 % of each class are for training, 20 % for validation, 20 % for the test; always the same images, whatever the
    run's seed. Source: Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49

    Args:
        batch_size: samples per batch on each device.
        num_workers: processes that load batches; 0 loads them in the training process.
    """

    classes = 10
    input_shape = (1, 8, 8)

    def __init__(self, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        from sklearn.datasets import load_digits  # late: importing scikit-learn takes seconds
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # grey values are 0 to 16
        targets = torch.tensor(digits.target)
        rest, test = train_test_split(range(len(targets)), test_size=0.2, stratify=targets, random_state=0)
        train, val = train_test_split(rest, test_size=0.25, stratify=targets[rest], random_state=0)
        self.train_set, self.val_set, self.test_set = (
            TensorDataset(images[subset], targets[subset]) for subset in (train, val, test)
        )

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self.loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        return self.loader(self.test_set)

    def loader(self, dataset: TensorDataset, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
