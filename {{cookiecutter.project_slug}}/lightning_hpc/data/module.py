"""A DataModule that splits, transforms and batches what `load` returns: a new data set is a matter of a few lines.

    class Faces(DataModule):
        classes, input_shape = 2, (3, 64, 64)

        def load(self):
            return {"train": TensorDataset(images, targets)}

data.py has two that are complete: one that ships with a package, and one that is downloaded.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from ..files import atomic_write
from ..settings.errors import SettingsError, did_you_mean
from .splits import SOURCES, Split, split
from .subset import concatenate, labels_of, single_values, subset

logger = logging.getLogger(__name__)

PARTS = ("test", "val", "train")  # of the split


class DataModule(LightningDataModule):
    """What all data sets have in common.

    A child has `load`; perhaps `prepare_data`, `transform`, `strata`, `groups`, `load_folder`.

    Args:
        batch_size: samples per batch on each device.
        num_workers: processes that load batches; 0 loads them in the training process.
        mode: what the samples are used for, see splits.py: `final` trains on those for validation too.
        folds: mode cross-validation: number of folds.
        fold: mode cross-validation: the fold that validates, from 0; the others train.
        val_share: share of the training samples that validates, where the data set has no validation samples.
        test_share: share of the training samples that tests, where the data set has no test samples.
        stratify: give each part the labels in the same proportion. With `auto` where the labels are known, and each
            sample has one; with `true` it is an error if not.
        split_seed: another one draws another split. The run's seed does not: repetitions see the same split.
        test_on: what `test` and `predict` use: `test`, `val`, `train`, or the name of another set that `load` returns.
        data_dir: folder for downloads; as a setting, it counts from the project's folder.
        predict_dir: folder of samples of your own, which `predict` uses in the place of test_on; see `load_folder`.
        also_validate: names of further sets that each validation measures beside `val`, as for `test_on`: of the set
            NAME it is val_NAME/loss, and so on. The metrics of `val` alone decide, and keep their names.
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
        stratify: bool | Literal["auto"] = "auto",
        split_seed: int = 0,
        test_on: str = "test",
        data_dir: str = "data",
        predict_dir: str | None = None,
        also_validate: list[str] | None = None,
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
        self.predict_dir = predict_dir
        self.also_validate, self.also_sets = also_validate or [], dict[str, Dataset]()
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
            training: True for samples that train: no others are to be augmented.
        """
        return None

    def strata(self) -> Sequence[Any] | None:
        """One number or text per sample, such as its label, in the order train, validation, test: for `stratify`.

        None where the data sets know it. They do if they are of tensors, have an attribute `targets` or `labels`, as
        torchvision's have, or a column `label`.
        """
        return None

    def groups(self) -> Sequence[Hashable] | None:
        """One per sample, in the order train, validation, test; a group, such as a patient, stays together."""
        return None

    def load_folder(self, folder: Path) -> Dataset:
        """The samples in a folder of the user's, which have no targets: for `predict` with data.predict_dir.

        A sample is what the model takes as one, such as `(image,)` where it takes pairs of image and target. With an
        attribute `files`, the name of each sample's file, the predictions say of which file they are.
        """
        raise SettingsError(f"data.predict_dir: {type(self).__name__} has no method load_folder, which reads a folder")

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        # What was trained on need not be there.
        if stage == "predict" and self.predict_dir is not None:
            folder = Path(self.predict_dir)
            if not folder.is_dir():
                raise SettingsError(f"data.predict_dir: {folder} is no folder")
            samples = self.load_folder(folder)
            self.predict_set = subset(samples, range(len(samples)), self.transform(training=False))
            return

        if self.split is not None:
            return

        given = self.load()
        if "train" not in given:
            raise SettingsError(f"{type(self).__name__}.load must return `train`, not only {', '.join(given)}")
        to_split = {name: given[name] for name in SOURCES if name in given}
        self.extra = {name: dataset for name, dataset in given.items() if name not in SOURCES}

        # First the indices, for which the data set is one; then the samples, each transformed by what it is used for.
        samples = concatenate(list(to_split.values()))
        self.split = split(
            {name: len(dataset) for name, dataset in to_split.items()},
            self.mode,
            self.folds,
            self.fold,
            self.val_share,
            self.test_share,
            self.split_seed,
            self.labels_to_draw_by(samples, to_split),
            self.groups(),
        )
        plain = self.transform(training=False)
        self.train_set = subset(samples, self.split.train, self.transform(training=True))
        self.val_set = subset(samples, self.split.val, plain)
        self.test_set, self.test_indices = self.named_set("test_on", self.test_on, samples)
        self.also_sets = {name: self.named_set("also_validate", name, samples)[0] for name in self.also_validate}

    def named_set(self, setting: str, name: str, samples: Dataset) -> tuple[Dataset, Sequence[int]]:
        """A set to evaluate, and its indices: a part of the split, or another one that `load` has returned.

        Args:
            setting: which setting names it, for the error.
            name: what it is called.
            samples: those that have been split.

        Raises:
            SettingsError: there is no such set.
        """
        plain = self.transform(training=False)
        if name in self.extra:
            samples = self.extra[name]
            return subset(samples, range(len(samples)), plain), range(len(samples))
        if name in PARTS:
            indices = getattr(self.split, name)
            return subset(samples, indices, plain), indices
        names = [*PARTS, *self.extra]
        raise SettingsError(f"data.{setting} {name}: there are {', '.join(names)}{did_you_mean(name, names)}")

    def labels_to_draw_by(self, samples: Dataset, given: Mapping[str, Dataset]) -> list[Any] | None:
        """The label of each sample, if the draw is to look at them.

        Raises:
            SettingsError: it must look at them, and they are not known.
        """
        validates = self.mode == "normal" and "validation" not in given
        draws = validates or self.mode == "cross-validation" or "test" not in given
        if not self.stratify or not draws:
            return None

        name, strata = type(self).__name__, self.strata()
        if strata is not None:
            labels = single_values(strata, len(samples))
            if labels is None:
                raise SettingsError(f"{name}.strata must return one number or text for each of {len(samples)} samples")
            return labels

        labels = labels_of(samples)
        if labels is None:
            reason = f"the data set of {name} does not say one label for each sample"
            if self.stratify is True:
                raise SettingsError(
                    f"data.stratify: {reason}; return them from a method `strata` of {name}", page="data.md#splits"
                )
            rank_zero_only(logger.info)(f"the split does not look at labels: {reason}, nor does a method `strata`")
        return labels

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader] | dict[str, DataLoader]:
        if not len(self.val_set):
            return []
        if not self.also_sets:
            return self.loader(self.val_set)
        sets = {"val": self.val_set} | self.also_sets
        return {name: self.loader(dataset) for name, dataset in sets.items()}

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        return self.loader(self.test_set if self.predict_dir is None else self.predict_set)

    def loader(self, dataset: Dataset, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class KeepSplit(Callback):
    """Keeps which samples train, validate and test in the run's folder: splits.npz, with indices as in splits.py.

    A run that continues with other samples than it began with would be neither run: that is an error.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        split_now: Split | None = getattr(trainer.datamodule, "split", None)
        if stage != "fit" or not isinstance(split_now, Split):
            return

        file = Path(trainer.default_root_dir) / "splits.npz"
        indices_now = {name: np.asarray(indices, dtype=np.int64) for name, indices in vars(split_now).items()}
        if file.exists():
            with np.load(file) as kept:
                if not all(np.array_equal(kept[name], indices) for name, indices in indices_now.items()):
                    raise SettingsError(
                        f"the data have changed since this run began ({file}): start a new run", page="data.md#splits"
                    )
        elif trainer.is_global_zero:
            with atomic_write(file, lasting=False) as stream:
                np.savez_compressed(stream, **indices_now)
