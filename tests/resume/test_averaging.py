"""Weight averaging: what is evaluated, what is saved. That it survives kills is in test_kill_chains.py."""

import copy
import threading

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lightning_hpc.survive.checkpoint_files import read_meta
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.survive.exact_resume import ExactResume
from lightning_hpc.survive.metrics_file import MetricsFile
from lightning_hpc.training.averaging import EMA, SWA


class Weight(LightningModule):
    """One weight that grows by 1 with each step, and reports itself."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.mean = MeanMetric()

    def training_step(self, batch, batch_idx):
        return -self.weight

    def validation_step(self, batch):
        self.log("val/weight", self.weight)
        self.mean.update(self.weight)
        self.log("val/mean", self.mean)

    def on_validation_epoch_end(self):
        self.log("val/end", self.mean.compute())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


def fit(tmp_path, averaging, epochs=3):
    model, loader = Weight(), DataLoader(TensorDataset(torch.ones(4, 1)))
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=MetricsFile(tmp_path), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[averaging],
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    return model, trainer


def ema(steps, decay):
    average = 1.0
    for step in range(2, steps + 1):
        average = decay * average + (1 - decay) * step
    return average


def test_averaged_alone_is_evaluated_in_place_of_the_weights(tmp_path):
    model, trainer = fit(tmp_path, EMA(0.9))
    assert float(trainer.callback_metrics["val/weight"]) == pytest.approx(ema(12, 0.9))
    assert not any("ema" in name for name in trainer.callback_metrics)
    assert float(model.weight) == pytest.approx(ema(12, 0.9))  # after training, the model is the average


def test_both_are_evaluated_in_one_validation(tmp_path):
    _, trainer = fit(tmp_path, EMA(0.9, evaluate="both"))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("weight", "mean", "end"):
        assert metrics[f"val/{name}"] == 12
        assert metrics[f"val_ema/{name}"] == pytest.approx(ema(12, 0.9))


def test_swa_is_the_mean_over_epochs(tmp_path):
    model, trainer = fit(tmp_path, SWA(start_epoch=1, evaluate="both"), epochs=4)
    assert float(model.weight) == pytest.approx((8 + 12 + 16) / 3)
    assert float(trainer.callback_metrics["val/weight"]) == 16
    assert float(trainer.callback_metrics["val_swa/weight"]) == pytest.approx((8 + 12 + 16) / 3)


def test_validating_alone_needs_no_average(tmp_path):
    model, loader = Weight(), DataLoader(TensorDataset(torch.ones(4, 1)))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[EMA(evaluate="both")])
    (metrics,) = trainer.validate(copy.deepcopy(model), loader, verbose=False)
    assert metrics["val/weight"] == 0


class Towards(Weight):
    """Its loss is the distance of the weight from 9, so that the best validation is not the last one."""

    def validation_step(self, batch):
        self.log("val/loss", (self.weight - 9.0).abs())


@pytest.mark.parametrize("averaging", [SWA(start_epoch=1), SWA(start_epoch=9), EMA(0.9)], ids=["SWA", "late", "EMA"])
@pytest.mark.parametrize("length", [dict(max_epochs=4), dict(max_steps=14)], ids=str)
def test_what_is_scored_is_what_is_saved(tmp_path, averaging, length):
    model, loader = Towards(), DataLoader(TensorDataset(torch.ones(4, 1)))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **length,
        enable_model_summary=False, default_root_dir=tmp_path, val_check_interval=2,
        callbacks=[ExactResume(), Checkpoints(), copy.deepcopy(averaging)],
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    best = read_meta(tmp_path / "checkpoints")["best"]
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert abs(float(saved["weight"]) - 9.0) == pytest.approx(best["value"], abs=1e-5)


def test_a_model_that_can_not_be_copied_is_named(tmp_path):
    model = Weight()
    model.lock = threading.Lock()
    with pytest.raises(
        TypeError, match="EMA can't copy Weight, whose weights it is to average: cannot pickle '_thread"
    ):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[EMA()]).fit(model)
