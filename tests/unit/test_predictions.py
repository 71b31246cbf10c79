"""What `predict` saves: whatever a model returns is kept, and read back with weights_only=True."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_hpc.values.predictions import as_record, files_of, on_cpu, target_of, write

TWO_BATCHES = [[0, 1], [2]]


def saved(tmp_path: Path, predictions: list, targets: list | None = None, positions: list | None = TWO_BATCHES):
    """Returns what the .pt file has, and the rows of the .csv file or None."""
    unknown = [None] * len(predictions)
    batches = list(zip(map(on_cpu, predictions), targets or unknown, positions or unknown, strict=True))
    files = write(as_record(batches, None, range(3)), tmp_path / "predictions")
    record = torch.load(files[0], weights_only=True)
    return record, list(csv.DictReader(files[1].open())) if len(files) == 2 else None


def test_rows_of_numbers_are_one_tensor_and_a_table(tmp_path):
    predictions = [torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([[1.0, 0.0]])]
    record, table = saved(tmp_path, predictions, [torch.tensor([1, 0]), torch.tensor([0])])
    assert torch.equal(record["prediction"], torch.cat(predictions))
    assert record["index"].tolist() == [0, 1, 2] and record["target"].tolist() == [1, 0, 0]
    assert table[0] == dict(index="0", target="1", prediction_0="0.25", prediction_1="0.75") and len(table) == 3


@pytest.mark.parametrize(
    "predictions, kept",
    [
        # one number for each sample; one for each batch
        ([torch.tensor([1, 2]), torch.tensor([3])], torch.tensor([1, 2, 3])),
        ([torch.tensor(1.5), torch.tensor(2.5)], [torch.tensor(1.5), torch.tensor(2.5)]),
        ([1.5, 2.5], [1.5, 2.5]),
        # texts and boxes of different number for each sample
        ([["a", "b"], ["c"]], ["a", "b", "c"]),
        (
            [[torch.zeros(2, 4), torch.zeros(0, 4)], [torch.ones(1, 4)]],
            [torch.zeros(2, 4), torch.zeros(0, 4), torch.ones(1, 4)],
        ),
        # padded to the longest of each batch
        ([torch.zeros(2, 5), torch.zeros(1, 3)], [torch.zeros(5), torch.zeros(5), torch.zeros(3)]),
        # several outputs
        (
            [
                dict(mask=torch.zeros(2, 4, 4), score=torch.ones(2)),
                dict(mask=torch.zeros(1, 4, 4), score=torch.ones(1)),
            ],
            dict(mask=torch.zeros(3, 4, 4), score=torch.ones(3)),
        ),
        ([np.zeros((2, 3)), np.ones((1, 3))], torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3], dtype=torch.float64)),
        ([None, None], [None, None]),
    ],
)
def test_whatever_a_model_returns_is_kept(tmp_path, predictions, kept):
    record, _ = saved(tmp_path, predictions)
    assert str(record["prediction"]) == str(kept)


def test_of_unknown_samples_there_is_no_index(tmp_path):
    record, table = saved(tmp_path, [torch.ones(2), torch.zeros(1)], positions=None)
    assert set(record) == {"prediction"} and [row["prediction"] for row in table] == ["1.0", "1.0", "0.0"]


def test_a_table_of_another_model_is_not_left_beside_new_predictions(tmp_path):
    assert saved(tmp_path, [torch.ones(2), torch.zeros(1)])[1]
    assert saved(tmp_path, [torch.ones(2, 2, 2), torch.zeros(1, 2, 2)])[1] is None
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.pt"]


def test_targets_are_found_in_pairs_and_by_name():
    assert target_of([1, 2]) == target_of((1, 2)) == target_of(dict(x=1, labels=2)) == 2
    assert target_of([1, 2, 3]) is None and target_of(torch.zeros(2)) is None and target_of(dict(x=1)) is None


class Images(Dataset):
    samples = [("a.png", 0), ("b.png", 1), ("c.png", 0)]

    def __len__(self) -> int:
        return 3


class Indexed:
    """A DataModule, as far as predictions ask it."""

    def __init__(self, test_set, test_indices) -> None:
        self.test_set, self.test_indices = test_set, test_indices


def test_each_sample_has_its_index_and_file():
    batch = [(torch.ones(2), None, [0, 1])]
    part = Subset(Images(), [2, 0])
    record = as_record(batch, None, part)
    assert record["index"].tolist() == [2, 0] and record["file"] == ["c.png", "a.png"]

    rows = TensorDataset(torch.zeros(2, 3))
    assert as_record(batch, Indexed(rows, [7, 5]), rows)["index"].tolist() == [7, 5]
    assert files_of(ConcatDataset([Images(), part])) == ["a.png", "b.png", "c.png", "c.png", "a.png"]
    assert files_of(ConcatDataset([Images(), rows])) is None
