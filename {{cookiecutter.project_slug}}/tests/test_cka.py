"""CKA: known answers, and the callback in a short training."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_hpc.cka import CKA, CKACallback, GramRecorder, cka, compare


def network():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.network(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def loader():
    return DataLoader(TensorDataset(torch.randn(64, 6), torch.randint(3, (64,))), batch_size=16)


def test_rotation_scale_and_shift_do_not_matter_and_independence_is_zero():
    torch.manual_seed(0)
    x = torch.randn(500, 20)
    rotation = torch.linalg.qr(torch.randn(20, 20)).Q
    assert cka(x, 3 * x @ rotation + 1).item() == pytest.approx(1, abs=1e-6)
    assert abs(cka(x, torch.randn(500, 20)).item()) < 0.02


def test_streaming_over_batches_finds_the_same_as_all_at_once():
    torch.manual_seed(0)
    model, x = network(), torch.randn(4000, 6)
    with GramRecorder(model) as recorder, torch.no_grad():
        metric = None
        for batch in x.split(100):
            model(batch)
            grams = recorder.grams()
            metric = metric or CKA(len(recorder.names))
            metric.update(grams)
    everything = compare(model, None, [x])
    np.testing.assert_allclose(metric.compute().numpy(), everything.matrix, atol=0.02)


def test_the_callback_writes_maps_and_leaves_training_alone(tmp_path):
    weights = []
    for callbacks in ([], [CKACallback()]):
        torch.manual_seed(0)
        model = Model()
        trainer = Trainer(
            max_epochs=2, default_root_dir=tmp_path, callbacks=callbacks, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, loader(), loader())
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert callbacks[0].picture == tmp_path / "cka" / "epoch-002.png" and callbacks[0].picture.exists()
    matrix = np.load(tmp_path / "cka" / "epoch-002.npz")["matrix"]
    assert matrix.shape == (3, 3) and 0 < matrix[0, 0] < 1


def test_a_metric_in_the_validation_step(train):
    """WatchedClassifier in model.py, an example to copy."""
    watched = ["fit", "--model", "WatchedClassifier", "--data.batch_size", "128"]
    moved = train(*watched)
    assert 0 < moved.status["metrics"]["val/cka"] < 1
    still = train(*watched, "--model.optimizer.lr", "0", "--model.network", "MLP")  # batch norm would move all the same
    assert still.status["metrics"]["val/cka"] == pytest.approx(1, abs=1e-6)

    # A run that is resumed has to compare with the same initial weights.
    weights = torch.load(still.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(weights["initial.layers.1.weight"], weights["network.layers.1.weight"])
    assert train("validate", "--run", str(still.folder)).code == 0
