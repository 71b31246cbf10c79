"""What `predict` saves: for each sample its index, file, target and prediction. KeepPredictions collects them.

    predictions.pt     all of it, whatever `predict_step` returns: torch.load(FILE, weights_only=True)
    predictions.csv    the same as a table, where a prediction is one number or a row of numbers

The work is done when they are written, so nothing that a model may return can stop it: what doesn't fit together to one
tensor is kept sample by sample, or batch by batch.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from ..files import atomic_write

# Where batches that are mappings have the target, by the names in use.
TARGETS = ("target", "targets", "label", "labels", "y")

# Attributes in which data sets list their files; `samples` has pairs of file and class.
FILES = ("files", "paths", "filenames", "samples", "imgs")

COLUMNS = 10_000  # a wider table is none that people read: the .pt file has it

# Prediction, target and positions in the data set, of one batch; None where they are not known.
Batch = tuple[Any, Any, list[int] | None]


def on_cpu(value: Any) -> Any:
    """The same on the CPU, with NumPy's arrays as tensors: torch.load reads them with weights_only=True."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [on_cpu(item) for item in value]
    if isinstance(value, Tensor):
        value = value.detach()
    return move_data_to_device(value, torch.device("cpu"))


def target_of(batch: Any) -> Any:
    """The targets of a batch: the second of two, or what goes by one of the usual names. None if there are none."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[1]
    if isinstance(batch, Mapping):
        for name in TARGETS:
            if name in batch:
                return batch[name]
    return None


def as_record(batches: list[Batch], datamodule: Any, dataset: Any) -> dict[str, Any]:
    """What belongs in the file, of all batches together.

    Args:
        batches: prediction, target and positions in the data set of each.
        datamodule: where the data are from.
        dataset: what has been predicted.

    Returns:
        prediction, and where they are known: index, file and target, each of all samples.
    """
    predictions, targets, positions = (list(column) for column in zip(*batches, strict=True))
    sizes = [None if each is None else len(each) for each in positions]
    record: dict[str, Any] = {}

    if None not in sizes:
        all_positions = [position for of_batch in positions for position in of_batch]
        record["index"] = torch.tensor(indices_in_data(datamodule, dataset, all_positions))
        files = files_of(dataset)
        if files is not None:
            record["file"] = [files[position] for position in all_positions]

    if all(target is not None for target in targets):
        record["target"] = joined(targets, sizes)
    record["prediction"] = joined(predictions, sizes)
    return record


def indices_in_data(datamodule: Any, dataset: Any, positions: Sequence[int]) -> list[int]:
    """The samples' indices in all of the data, as in splits.npz; of an unknown data set, their positions in it."""
    indices = getattr(dataset, "indices", None)
    if dataset is getattr(datamodule, "test_set", None):
        indices = getattr(datamodule, "test_indices", None)
    if indices is None:
        return list(positions)
    return [int(indices[position]) for position in positions]


def files_of(dataset: Dataset) -> list[str] | None:
    """The file of each sample, if the data set lists them, as those of torchvision do; otherwise None."""
    if isinstance(dataset, ConcatDataset):
        members = [files_of(member) for member in dataset.datasets]
        if any(member is None for member in members):
            return None
        return [file for member in members for file in member]

    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is not None and indices is not None:
        files = files_of(inner)
        return None if files is None else [files[int(index)] for index in indices]

    for name in FILES:
        entries = getattr(dataset, name, None)
        if isinstance(entries, list | tuple) and len(entries) == len(dataset):
            entries = [entry[0] if isinstance(entry, tuple | list) else entry for entry in entries]
            if all(isinstance(entry, str | Path) for entry in entries):
                return [str(entry) for entry in entries]
    return None


def joined(values: list[Any], sizes: list[int | None]) -> Any:
    """Those of all batches as one: a tensor (N, …), a mapping of such, or a list.

    Args:
        values: one for each batch.
        sizes: samples of each batch, where they are known.
    """
    first = values[0]
    if isinstance(first, dict) and all(isinstance(value, dict) and value.keys() == first.keys() for value in values):
        return {key: joined([value[key] for value in values], sizes) for key in first}

    # A tensor or a list with as many entries as the batch has samples has one for each sample.
    def has_one_each(value: Any, size: int | None) -> bool:
        if isinstance(value, Tensor):
            return value.ndim > 0 and size in (None, len(value))
        return isinstance(value, list) and size == len(value)

    if not all(has_one_each(value, size) for value, size in zip(values, sizes, strict=True)):
        return values

    tensors = all(isinstance(value, Tensor) for value in values)
    if tensors and len({(value.shape[1:], value.dtype) for value in values}) == 1:
        return torch.cat(values)
    return [sample for value in values for sample in value]


def write(record: dict[str, Any], path: Path) -> list[Path]:
    """Write PATH.pt, and PATH.csv if a prediction is a number or a row of numbers; returns what was written."""
    file_of_all = path.with_name(f"{path.name}.pt")
    with atomic_write(file_of_all) as file:
        torch.save(record, file)

    # A table of earlier predictions, beside a new file, would be of another model.
    table = path.with_name(f"{path.name}.csv")
    columns = as_columns(record)
    if columns is None:
        table.unlink(missing_ok=True)
        return [file_of_all]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    with atomic_write(table) as file:
        file.write(text.getvalue().encode())
    return [file_of_all, table]


def as_columns(record: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Columns of a table: index, file, target, prediction; of rows of numbers prediction_0, prediction_1, …

    Returns:
        None if the predictions are no numbers, or not the same number for each sample.
    """
    prediction = record["prediction"]
    if not isinstance(prediction, Tensor) or prediction.ndim > 2 or prediction.is_complex():
        return None
    if prediction.ndim == 2 and prediction.shape[1] > COLUMNS:
        return None

    columns: dict[str, list[Any]] = {}
    for name in ("index", "file", "target"):
        values = record.get(name)
        if isinstance(values, Tensor) and values.ndim == 1:
            values = values.tolist()
        if isinstance(values, list) and len(values) == len(prediction) and not isinstance(values[0], Tensor | dict):
            columns[name] = values

    if prediction.ndim == 1:
        columns["prediction"] = prediction.tolist()
    else:
        for number, column in enumerate(prediction.T):
            columns[f"prediction_{number}"] = column.tolist()
    return columns
