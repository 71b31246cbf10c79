"""Several sets in each validation: what is measured of each, and what it is called."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric

from lightning_hpc.values.named_sets import logging_as, metrics_of, name_of

SHORT = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=1.0")  # until accuracies are no longer chance

MY_DATA = """
import torch
from my_research_project.data import Digits

class Noisy(Digits):
    def load(self):
        given = dict(super().load())
        images, targets = zip(*given["train"])
        noise = torch.rand(len(images), 1, 8, 8, generator=torch.Generator().manual_seed(0))
        given["noisy"] = torch.utils.data.TensorDataset(torch.stack(list(map(torch.as_tensor, images))) + noise,
            torch.as_tensor(targets))
        return given
"""


def test_each_set_has_its_metrics_and_val_is_as_without_others(train):
    alone = train("fit", "--name=alone", *SHORT)
    run = train("fit", "--name=several", "--data.also_validate=[test,train]", *SHORT)
    assert run.status["identity"] == alone.status["identity"]
    for name in ("val/acc", "val/loss", "val/loss_best"):
        assert run.column(name) == alone.column(name)

    # Those of the test set are what `test` says of the same weights.
    train("test", "--run", str(run.folder), "--ckpt_path=last")
    tested = json.loads((run.folder / "test.json").read_text())
    for name in ("acc", "loss"):
        assert run.column(f"val_test/{name}")[-1] == pytest.approx(tested[f"test/{name}"], abs=1e-6)
    assert run.column("val_train/acc") != run.column("val/acc") and len(run.column("val_train/acc")) == 3
    assert not [name for name in run.rows[0] if "dataloader" in name]


def test_the_average_that_is_validated_beside_has_them_too(train):
    average = ("--trainer.callbacks+=EMA", "--trainer.callbacks.evaluate=both", "--trainer.callbacks.decay=0.5")
    run = train("fit", *average, "--data.also_validate=[test]", *SHORT)
    names = ("val/acc", "val_ema/acc", "val_ema/loss", "val_ema_test/acc", "val_ema_test/loss")
    found = {name: run.column(name)[0] for name in names}
    without = train("fit", "--name=without", *average, *SHORT)
    for name in names[:3]:
        assert found[name] == without.column(name)[0]
    assert found["val_ema_test/loss"] != found["val_ema/loss"] and 0 <= found["val_ema_test/acc"] <= 1


def test_a_set_of_ones_own_and_one_that_is_not_there(train, capsys):
    Path("my_data.py").write_text(MY_DATA)
    run = train("fit", "--data=my_data.Noisy", "--data.also_validate=[noisy]")
    assert run.code == 0 and run.column("val_noisy/loss") and run.column("val/loss")
    assert train("validate", "--run", str(run.folder)).code == 0
    validated = json.loads((run.folder / "validate.json").read_text())
    assert validated["val_noisy/loss"] == pytest.approx(run.column("val_noisy/loss")[-1], abs=1e-6)
    train("fit", "--name=none", "--data.also_validate=[nosiy,test]")
    assert "error: data.also_validate nosiy: there are test, val, train" in capsys.readouterr().err


def test_a_model_that_can_not_is_refused_before_the_run_begins(train, capsys):
    Path("single.py").write_text(
        "from my_research_project.model import Classifier\n"
        "class Single(Classifier):\n"
        "    def validation_step(self, batch, batch_idx):\n"
        "        super().validation_step(batch, batch_idx)\n"
    )
    assert train("fit", "--model=single.Single").code == 0
    assert train("fit", "--name=b", "--model=single.Single", "--data.also_validate=[test]").code == 2
    assert "Single.validation_step must take dataloader_idx=0 after batch_idx" in capsys.readouterr().err


@pytest.mark.parametrize(
    "metric, called",
    [
        ("val/loss", "val_far/loss"),
        ("valid/acc/0", "valid_far/acc/0"),
        ("test/f1", "test_far/f1"),
        ("loss", "loss_far"),
    ],
)
def test_names(metric, called):
    assert name_of(metric, "far") == called and name_of(metric, None) == metric


def test_metrics_are_found_wherever_they_are_and_the_model_is_as_before():
    model = LightningModule()
    model.parts = nn.ModuleDict({"mean": MeanMetric()})
    model.all = MetricCollection({"mean": MeanMetric()})
    assert [(type(metric).__name__, key) for _, key, metric in metrics_of(model)] == [
        ("MetricCollection", "all"), ("MeanMetric", "mean"),
    ]  # fmt: skip
    with logging_as(model, "far"):
        assert "log" in vars(model)
    assert "log" not in vars(model) and model.log.__func__ is LightningModule.log
