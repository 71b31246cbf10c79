"""What a pasted LightningModule meets: the metric that is monitored, missing hooks, and what its logger understands."""

import csv
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger

from lightning_hpc.modules.hooks import check_hooks, check_loader, evaluation_of
from lightning_hpc.modules.writer import speak_all
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.survive.metrics_file import MetricsFile
from lightning_hpc.survive.monitor import equivalent


@pytest.mark.parametrize(
    "name",
    "val_loss valid/loss valid_loss Validation/Loss validation_loss loss/val valLoss eval_loss dev.loss val/loss_epoch"
    " val_loss/dataloader_idx_0".split(),
)
def test_other_names_of_the_same_metric(name):
    assert equivalent("val/loss", ["train_loss", name, "val_acc"]) == name


@pytest.mark.parametrize(
    "names",
    [
        ["train/loss"],
        ["val/loss_kl"],
        ["val/simple_loss"],
        ["loss"],
        ["val"],
        ["test_loss"],
        ["val_loss", "valid_loss"],
    ],
)
def test_names_of_other_metrics_and_two_that_would_do(names):
    assert equivalent("val/loss", names) is None


def test_of_several_loaders_the_first_counts():
    assert equivalent("val/loss", [f"val_loss/dataloader_idx_{n}" for n in (1, 0, 2)]) == "val_loss/dataloader_idx_0"
    assert equivalent("val/loss", ["val_loss/dataloader_idx_1", "val_loss/dataloader_idx_2"]) is None


class Bare(LightningModule):
    """Has a training step and nothing else."""

    def training_step(self, batch):
        return None


class Whole(Bare):
    def configure_optimizers(self):
        return None

    def validation_step(self, batch):
        return None

    def forward(self, inputs):
        return inputs + 1


class OfLightning1(Whole):
    def training_epoch_end(self, outputs):
        return None


@pytest.mark.parametrize(
    "model, command, message",
    [
        (Bare, "fit", "Bare has no configure_optimizers, which fit calls: write it"),
        (LightningModule, "fit", "LightningModule has no training_step"),
        (Bare, "validate", "Bare has no validation_step, which validate calls: write it, or evaluate with `test`"),
        (
            Whole,
            "test",
            "Whole has no test_step, which test calls: write it, as short as `test_step = valid",
        ),
        (Bare, "predict", "Bare has neither predict_step nor forward"),
        (OfLightning1, "fit", r"training_epoch_end is of Lightning 1, .* rename it to on_train_epoch_end\(self\)"),
    ],
)
def test_a_missing_hook_is_one_line(model, command, message):
    with pytest.raises(SettingsError, match=message):
        check_hooks(model(), command)


def test_without_a_predict_step_forward_gets_the_inputs():
    model = Whole()
    check_hooks(model, "predict")
    assert model.predict_step([torch.zeros(2), torch.ones(2)], 0).tolist() == [1, 1]
    assert model.predict_step(torch.zeros(2), 0).tolist() == [1, 1]


def test_of_a_batch_that_is_a_mapping_nobody_knows_what_the_inputs_are():
    model = Whole()
    check_hooks(model, "predict")
    with pytest.raises(SettingsError, match=r"Whole has no predict_step, .* a mapping: write .* \(TypeError: "):
        model.predict_step({"image": torch.zeros(2)}, 0)

    class OfMappings(Whole):
        def forward(self, batch):
            return batch["image"] + 1

    model = OfMappings()
    check_hooks(model, "predict")
    assert model.predict_step({"image": torch.zeros(2)}, 0).tolist() == [1, 1]


class WithoutTest(LightningDataModule):
    """Trains and validates, as pasted ones do."""

    def train_dataloader(self):
        return []

    val_dataloader = train_dataloader


class WithTest(Whole):
    def test_step(self, batch):
        return None

    def test_dataloader(self):
        return []


@pytest.mark.parametrize(
    "data, command, message",
    [
        (WithoutTest, "test", "WithoutTest has no test_dataloader, which test calls: write it, or evaluate with `val"),
        (WithoutTest, "predict", "no predict_dataloader, which predict calls: write it, as short as `predict_dataload"),
        (LightningDataModule, "fit", "LightningDataModule has no train_dataloader, which fit calls: write it"),
        (
            WithTest,
            "validate",
            "WithTest has no val_dataloader, which validate calls: write it, or evaluate with `test`",
        ),
    ],
)
def test_data_without_the_loader_of_a_command_are_one_line(data, command, message):
    with pytest.raises(SettingsError, match=message):
        check_loader(data(), command)
    check_loader(WithoutTest(), "validate")


def test_how_a_model_can_be_evaluated():
    pairs = [
        (Bare, WithoutTest),
        (Whole, WithoutTest),
        (WithTest, WithoutTest),
        (WithTest, WithTest),
        (Whole, WithTest),
    ]
    assert [evaluation_of(*pair) for pair in pairs] == [None, "validate", "validate", "test", None]


class Tracker(Logger):
    """A tracker with some experiment, which writes down what it is told."""

    name = version = None

    def __init__(self, **methods):
        super().__init__()
        self.told = []
        self._experiment = SimpleNamespace(**methods)

    @property
    def experiment(self):
        return self._experiment

    def log_hyperparams(self, *arguments, **keywords):
        pass

    def log_metrics(self, metrics, step=None):
        self.told.append((metrics, step))


def test_without_a_tracker_scalars_go_into_the_file_and_the_rest_is_said_once(tmp_path, caplog):
    logger = MetricsFile(tmp_path)
    speak_all([logger])
    writer = logger.experiment
    writer.add_scalar("kl", torch.tensor(0.5), torch.tensor(3))
    writer.add_scalars("both", {"a": 1, "b": 2}, 4)
    writer.log({"mine": 7, "picture": object()}, step=5)
    for _ in range(2):
        writer.add_histogram("weights", torch.ones(3), 1)
        logger.log_image(key="picture", images=[])
    writer.flush()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert [row.pop("seconds") for row in rows] and rows == [
        dict(step="3", kl="0.5"),
        {"step": "4", "both/a": "1.0", "both/b": "2.0"},
        dict(step="5", mine="7.0"),
    ]

    # Ours only: the service of a W&B run that an earlier test has killed may still complain in a thread.
    said = [record.message for record in caplog.records if record.name.startswith("lightning_hpc")]
    assert said == [
        "warning: add_histogram shows nothing in MetricsFile; to see it, add --config trackers/tensorboard.yaml",
        "warning: log_image shows nothing in MetricsFile",
    ]
    assert not hasattr(writer, "add_nonsense") and not hasattr(logger, "nonsense")
    assert type(logger).__name__ == "MetricsFile" and isinstance(logger, MetricsFile)


def test_a_tracker_says_it_in_its_own_way_or_another_does(tmp_path):
    told = []
    own = Tracker(log=lambda data: told.append(("log", data)), name="mine")
    other = Tracker(add_histogram=lambda tag, values, step: told.append((tag, step)))
    speak_all([own, other, MetricsFile(tmp_path)])
    own.experiment.log({"a": 1})
    own.experiment.add_histogram("weights", torch.ones(2), 5)
    own.experiment.add_scalar("b", 2, 3)
    assert told == [("log", {"a": 1}), ("weights", 5)] and own.told == [({"b": 2.0}, 3)]
    assert own.experiment.name == "mine"
    assert "log" in dir(own.experiment) and "add_image" not in dir(own.experiment) and "log_image" not in dir(own)
    own.experiment.name = "another"
    assert own._experiment.name == "another"
