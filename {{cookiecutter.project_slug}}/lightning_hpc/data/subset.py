"""Samples of a data set by their indices, several data sets as one, and the labels of a data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset


class TransformedSubset(Dataset):
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


def subset(dataset: Dataset, indices: Sequence[int], transform: Callable[[Any], Any] | None) -> Dataset:
    """Some samples, transformed; of tensors that need no transform, simply these rows."""
    if isinstance(dataset, TensorDataset) and transform is None:
        return TensorDataset(*(tensor[list(indices)] for tensor in dataset.tensors))
    return TransformedSubset(dataset, indices, transform)


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """One data set after the other, as one; of tensors, longer tensors."""
    if len(datasets) == 1:
        return datasets[0]
    if all(isinstance(dataset, TensorDataset) for dataset in datasets):
        columns = zip(*(dataset.tensors for dataset in datasets), strict=True)
        return TensorDataset(*(torch.cat(column) for column in columns))
    return ConcatDataset(datasets)


def labels_of(dataset: Dataset) -> list[Any] | None:
    """The label of each sample; None if it is unknown or no single value.

    It is the last of a TensorDataset's tensors, the column `label` of Hugging Face's data sets, or the attribute
    `targets` or `labels` that those of torchvision have.
    """
    if isinstance(dataset, ConcatDataset):
        labels: list[Any] = []
        for member in dataset.datasets:
            labels_of_member = labels_of(member)
            if labels_of_member is None:
                return None
            labels += labels_of_member
        return labels

    if isinstance(dataset, Subset):
        labels_of_all = labels_of(dataset.dataset)
        if labels_of_all is None:
            return None
        return [labels_of_all[int(index)] for index in dataset.indices]

    if isinstance(dataset, TensorDataset):
        targets = dataset.tensors[-1]
    elif "label" in (getattr(dataset, "column_names", None) or ()):
        targets = list(dataset["label"])
    else:
        targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
    return single_values(targets, len(dataset))


def single_values(targets: Any, count: int) -> list[Any] | None:
    """Labels as Python's numbers and texts; None if there is not one for each sample, or not of one value each.

    Args:
        targets: a tensor, an array or a list, of any shape and type; or anything else that a data set may have there.
        count: number of samples.
    """
    if (
        isinstance(targets, str | bytes | Mapping)
        or not hasattr(targets, "__len__")
        or getattr(targets, "ndim", 1) == 0
    ):
        return None

    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()  # at once: one by one, a million take seconds

    labels = [single_value(target) for target in targets]
    single = all(label is None or isinstance(label, int | float | str | bytes) for label in labels)
    if len(labels) != count or not single or labels.count(None) == count:
        return None
    return labels


def single_value(target: Any) -> Any:
    """The value in a tensor, array or list that has only one; anything else as it is. None is no label."""
    if isinstance(target, torch.Tensor | np.ndarray | np.generic):
        target = target.tolist()
    while isinstance(target, list | tuple) and len(target) == 1:
        target = target[0]
    return target
