"""`predict`, as one types it, and a run that is loaded in Python."""

import csv

import numpy as np
import pytest
import torch

MODELS = """
import torch
from my_research_project.model import Classifier
from lightning_hpc.data import DataModule
from torch.utils.data import DataLoader, TensorDataset


class OneNumber(Classifier):
    def predict_step(self, batch, batch_idx):
        return self(batch[0]).mean()


class OfSeveral(Classifier):
    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return super().predict_step(batch, batch_idx)


class NothingToPredict(DataModule):
    classes, input_shape = 2, (1, 8, 8)

    def load(self):
        def data(size):
            return TensorDataset(torch.zeros(size, 1, 8, 8), torch.arange(size) % 2)
        return {"train": data(40), "test": data(0)}


class TwoSets(NothingToPredict):
    def predict_dataloader(self):
        return [DataLoader(self.val_set, batch_size=4), DataLoader(self.train_set, batch_size=4)]
"""


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models.py").write_text(MODELS)


def read(run, name="predictions") -> tuple[dict, list[dict[str, str]]]:
    record = torch.load(run.folder / f"{name}.pt", weights_only=True)
    with (run.folder / f"{name}.csv").open() as file:
        return record, list(csv.DictReader(file))


def test_predictions_say_of_which_sample_they_are(train):
    run = train("fit")
    assert train("predict").code == 0
    record, table = read(run)
    with np.load(run.folder / "splits.npz") as split:
        assert record["index"].tolist() == split["test"].tolist()

    from sklearn.datasets import load_digits

    assert record["target"].tolist() == load_digits().target[record["index"].numpy()].tolist()
    assert record["prediction"].shape == (len(record["index"]), 10)
    assert list(table[0]) == ["index", "target", *(f"prediction_{number}" for number in range(10))]
    assert float(table[3]["prediction_7"]) == pytest.approx(float(record["prediction"][3, 7]))


def test_any_part_of_the_data_can_be_predicted_and_tested(train):
    run = train("fit")
    for part in ("val", "train"):
        assert train("predict", f"--data.test_on={part}", "--run", str(run.folder)).code == 0
        record, _ = read(run, f"predictions-{part}")
        with np.load(run.folder / "splits.npz") as split:
            assert record["index"].tolist() == split[part].tolist()
    assert train("test", "--data.test_on=val", "--run", str(run.folder)).code == 0
    assert (run.folder / "test-val.json").exists() and not (run.folder / "test.json").exists()


def test_what_is_no_row_for_each_sample_is_kept_by_batch(train, models):
    run = train("fit", "--model=models.OneNumber")
    assert train("predict", "--run", str(run.folder)).code == 0
    record = torch.load(run.folder / "predictions.pt", weights_only=True)
    assert len(record["prediction"]) == -(-len(record["index"]) // 64)
    assert not (run.folder / "predictions.csv").exists()


def test_nothing_to_predict_is_said(train, models, capsys):
    run = train("fit", "--data=models.NothingToPredict")
    assert train("predict", "--run", str(run.folder)).code == 2
    assert "there is no sample to predict" in capsys.readouterr().err


def test_several_loaders_have_files_of_their_own(train, models):
    run = train("fit", "--data=models.TwoSets", "--model=models.OfSeveral")
    assert train("predict", "--run", str(run.folder)).code == 0
    with np.load(run.folder / "splits.npz") as split:
        assert len(read(run, "predictions-0")[1]) == len(split["val"])
        assert len(read(run, "predictions-1")[1]) == len(split["train"])


def test_a_run_is_loaded_for_looking_into_it(train, project, tmp_path, monkeypatch, capsys):
    from lightning_hpc import load
    from lightning_hpc.settings.errors import SettingsError

    run = train("fit", "--model.network.width=12")
    assert train("test", "--run", str(run.folder)).code == train("predict", "--run", str(run.folder)).code == 0
    capsys.readouterr()
    relative = run.folder.relative_to(tmp_path)
    loaded = load(str(relative), root=project)
    assert capsys.readouterr() == ("", "")

    # The model is the one that has predicted.
    record, _ = read(run)
    loaded.data.setup("test")
    inputs = torch.stack([sample[0] for sample in loaded.data.test_set])
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(inputs).softmax(dim=-1), record["prediction"])
    assert not loaded.model.training and len(loaded.data.val_set)
    assert loaded.settings["model"]["init_args"]["network"]["init_args"]["width"] == 12
    assert {"val/loss", "test/acc"} <= set(loaded.metrics) and loaded.checkpoint.path.name == "best.ckpt"

    last = load(relative / "checkpoints" / "last.ckpt", root=project)
    assert last.checkpoint.path.name == "last.ckpt"
    with pytest.raises(SettingsError, match="nowhere"):
        load("runs/nowhere", root=project)

    # Lightning's own way makes the same model.
    from my_research_project.model import Classifier

    own = Classifier.load_from_checkpoint(run.folder / "checkpoints" / "best.ckpt").state_dict()
    assert all(torch.equal(own[name], value) for name, value in loaded.model.state_dict().items())

    # A notebook in a folder of the project's names runs as one does in the project's.
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    (tmp_path / "configs").symlink_to(project / "configs")
    assert load(str(relative), root=tmp_path).checkpoint.path == run.folder / "checkpoints" / "best.ckpt"
