"""A DataModule that splits, transforms and batches what `load` returns: a new data set is a matter of a few lines.

    class Faces(DataModule):
        classes, input_shape = 2, (3, 64, 64)

        def load(self):
            return {"train": TensorDataset(images, targets)}

data.py has two that are complete: one that ships with a package, and one that is downloaded.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from ..runs.settings import SettingsError, did_you_mean
from ..training.checkpoint_files import atomic_write
from .splits import SOURCES, Split, split


class DataModule(LightningDataModule):
    """What all data sets have in common. A child has `load`, and may have `prepare_data`, `transform` and `groups`.

    Args:
        batch_size: samples per batch on each device.
        num_workers: processes that load batches; 0 loads them in the training process.
        mode: what the samples are used for, see splits.py: `final` trains on those for validation too.
        folds: mode cross-validation: number of folds.
        fold: mode cross-validation: the fold that validates, from 0; the others train.
        val_share: share of the training samples that validates, where the data set has no validation samples.
        test_share: share of the training samples that tests, where the data set has no test samples.
        stratify: give each part the labels in the same proportion, where each sample has one label.
        split_seed: another one draws another split. The run's seed does not: repetitions see the same split.
        test_on: what `test` and `predict` use: `test`, or the name of another set that `load` returns.
        data_dir: folder for downloads.
    """

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        mode: Literal["normal", "cross-validation", "final"] = "normal",
        folds: int = 5,
        fold: int = 0,
        val_share: float = 0.2,
        test_share: float = 0.2,
        stratify: bool = True,
        split_seed: int = 0,
        test_on: str = "test",
        data_dir: str = "data",
    ) -> None:
        super().__init__()
        if folds < 2:
            raise SettingsError(f"data.folds: there must be at least 2, got {folds}")
        if not 0 <= fold < folds:
            raise SettingsError(f"data.fold: folds are counted from 0 to {folds - 1}, got {fold}")
        if not (0 < val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
            raise SettingsError(
                f"data.val_share: {val_share} and data.test_share {test_share} leave nothing to train on"
            )
        self.batch_size, self.num_workers = batch_size, num_workers
        self.mode, self.folds, self.fold = mode, folds, fold
        self.val_share, self.test_share = val_share, test_share
        self.stratify, self.split_seed = stratify, split_seed
        self.test_on, self.data_dir = test_on, Path(data_dir)
        self.split: Split | None = None

    # What a child says about its data

    def load(self) -> Mapping[str, Dataset]:
        """The data, untransformed: `train`, perhaps `test`, perhaps `validation`; any other name is an extra test set.

        Called on every rank. Downloads belong into `prepare_data`, which is called once on each machine.
        """
        raise NotImplementedError

    def transform(self, training: bool) -> Callable[[Any], Any] | None:
        """What is done to a sample when it is loaded: a function or an nn.Module, sample → sample, or None.

        Args:
            training: whether it is for samples that train: no others are to be augmented.
        """
        return None

    def groups(self) -> Sequence[Hashable] | None:
        """One per sample, in the order train, validation, test; a group, such as a patient, stays together."""
        return None

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        if self.split is not None:
            return
        given = self.load()
        if "train" not in given:
            raise SettingsError(f"{type(self).__name__}.load must return `train`, not only {', '.join(given)}")
        main = {name: given[name] for name in SOURCES if name in given}
        samples = join([*main.values()])
        self.split = split(
            {name: len(dataset) for name, dataset in main.items()},
            self.mode,
            self.folds,
            self.fold,
            self.val_share,
            self.test_share,
            self.split_seed,
            labels(samples) if self.stratify else None,
            self.groups(),
        )
        plain = self.transform(training=False)
        self.train_set = part(samples, self.split.train, self.transform(training=True))
        self.val_set = part(samples, self.split.val, plain)
        self.test_set = part(samples, self.split.test, plain)
        extra = {name: dataset for name, dataset in given.items() if name not in SOURCES}
        if self.test_on in extra:
            self.test_set = part(extra[self.test_on], range(len(extra[self.test_on])), plain)
        elif self.test_on != "test":
            names = ["test", *extra]
            near = did_you_mean(self.test_on, names)
            raise SettingsError(f"data.test_on {self.test_on}: there are {', '.join(names)}{near}")

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader(self.val_set) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        return self.loader(self.test_set)

    def loader(self, dataset: Dataset, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class Part(Dataset):
    """Some samples of a data set, transformed when they are loaded.

    Args:
        dataset: the data set.
        indices: of the samples in it.
        transform: sample → sample; None leaves them as they are.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int], transform: Callable[[Any], Any] | None) -> None:
        self.dataset, self.transform = dataset, transform
        self.indices = np.asarray(indices, dtype=np.int64)  # a list would be copied, bit by bit, into every worker

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[int(self.indices[index])]
        return sample if self.transform is None else self.transform(sample)


def part(dataset: Dataset, indices: Sequence[int], transform: Callable[[Any], Any] | None) -> Dataset:
    """Some samples, transformed; of tensors that need no transform, simply these rows."""
    if isinstance(dataset, TensorDataset) and transform is None:
        return TensorDataset(*(tensor[list(indices)] for tensor in dataset.tensors))
    return Part(dataset, indices, transform)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """One data set after the other."""
    if len(datasets) == 1:
        return datasets[0]
    if all(isinstance(dataset, TensorDataset) for dataset in datasets):
        return TensorDataset(*(torch.cat(column) for column in zip(*(d.tensors for d in datasets), strict=True)))
    return ConcatDataset(datasets)


def labels(dataset: Dataset) -> list[Any] | None:
    """The label of each sample; None if it is unknown or no single value.

    It is the last of a TensorDataset's tensors, the column `label` of Hugging Face's data sets, or the attribute
    `targets` that those of torchvision have.
    """
    if isinstance(dataset, ConcatDataset):
        found = [labels(each) for each in dataset.datasets]
        return None if None in found else [label for each in found for label in each]
    if isinstance(dataset, TensorDataset):
        targets = dataset.tensors[-1]
    elif "label" in getattr(dataset, "column_names", ()):
        targets = list(dataset["label"])
    else:
        targets = getattr(dataset, "targets", None)
    if targets is None:
        return None
    array = np.asarray(targets)
    return array.tolist() if array.ndim == 1 else None


class KeepSplit(Callback):
    """Keeps which samples train, validate and test in the run's folder: splits.npz, with indices as in splits.py.

    A run that goes on with other samples than it began with would be neither run: that is an error.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        parts: Split | None = getattr(trainer.datamodule, "split", None)
        if stage != "fit" or not isinstance(parts, Split):
            return
        file = Path(trainer.default_root_dir) / "splits.npz"
        now = {name: np.asarray(indices, dtype=np.int64) for name, indices in vars(parts).items()}
        if file.exists():
            with np.load(file) as before:
                if not all(np.array_equal(before[name], indices) for name, indices in now.items()):
                    raise SettingsError(f"the data have changed since this run began ({file}): start a new run")
        elif trainer.is_global_zero:
            with atomic_write(file) as stream:
                np.savez_compressed(stream, **now)
