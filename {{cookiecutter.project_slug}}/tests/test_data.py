"""The data of configs/base.yaml: splits that do not overlap, samples as the network wants them, cross-validation."""

import json
import statistics

import pytest
import yaml
from conftest import ROOT

from lightning_hpc.settings.classes import import_class


@pytest.fixture
def make():
    """Makes the DataModule that configs/base.yaml names, with other settings."""
    settings = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text())["data"]

    def made(**others):
        data = import_class(settings["class_path"])(**{**settings["init_args"], **others})
        data.prepare_data()
        data.setup("fit")
        return data

    return made


def test_each_sample_has_one_use_and_folds_validate_all(make):
    splits = [make(mode="cross-validation", folds=3, fold=fold).split for fold in range(3)]
    for split in splits:
        assert not {*split.train} & {*split.val} and not {*split.train, *split.val} & {*split.test}
    assert sorted(index for split in splits for index in split.val) == sorted(splits[0].train + splits[0].val)
    final = make(mode="final").split
    assert final.train == sorted(splits[0].train + splits[0].val) and final.test == splits[0].test


def test_samples_are_what_the_network_expects(make):
    data = make(batch_size=4)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        inputs, targets = next(iter(loader))
        assert inputs.shape == (4, *data.input_shape)
        assert 0 <= targets.min() and targets.max() < data.classes


def test_a_cross_validation_ends_in_means(train, tmp_path, monkeypatch):
    from lightning_hpc.entrance import train as main
    from lightning_hpc.training import crossvalidation

    # Each fold in this process: to start one of its own takes longer than to train it.
    monkeypatch.setattr(crossvalidation, "train", lambda wanted, root, *_: main(["fit", *wanted.typed], root))
    assert train("crossvalidate", "--folds=2", "--name=folds").code == 0
    (entry,) = json.loads((tmp_path / "runs" / "folds" / "cross-validation.json").read_text())
    values = entry["each_fold"]["val/acc"]
    assert len(values) == 2 and entry["metrics"]["cross_validation_val/acc"] == pytest.approx(statistics.fmean(values))
