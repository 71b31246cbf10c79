"""A reference that stays as it is: it runs once on data that come again, and the maps are the same."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader, TensorDataset

from lightning_hpc.cka import CKACallback, compare, frozen

from .conftest import Data, Lit, Net
from .test_callback import fit, stored, trainer

RELOAD = {"reload_dataloaders_every_n_epochs": 1}


class Counted(Net):
    """Counts its runs in evaluation, over all copies of it."""

    runs = 0

    def forward(self, x):
        Counted.runs += not self.training
        return super().forward(x)


class CountedNoisy(Counted):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.rand(()))


class Moving(Data):
    """Validation data that are others in each epoch."""

    def val_dataloader(self):
        return DataLoader(self.set, self.batch_size, sampler=torch.randperm(64).tolist())


def runs_of_reference(folder, epochs, network=Counted, data=None, **kwargs):
    """How often the reference has run; the network itself runs once for each of the 4 batches of an epoch."""
    Counted.runs = 0
    seed_everything(0, verbose=False)
    run = trainer(folder, CKACallback(**kwargs), epochs=epochs, num_sanity_val_steps=0, **RELOAD)
    run.fit(Lit(network()), datamodule=data or Data())
    return Counted.runs - 4 * epochs


def test_a_fixed_reference_runs_once_on_data_that_come_again(tmp_path, monkeypatch):
    assert runs_of_reference(tmp_path / "known", 3) == 4
    assert runs_of_reference(tmp_path / "other data", 3, data=Moving()) == 3 * 4
    assert runs_of_reference(tmp_path / "noise", 3, network=CountedNoisy) == 3 * 4

    monkeypatch.setattr(frozen, "MOST_BYTES", 2 * (16 * 64 + 5 * 16 * 16) * 4)  # two batches and their matrices
    assert runs_of_reference(tmp_path / "no room", 3) == 4 + 2 * 2
    for epoch in range(3):
        matrix = stored(tmp_path / "known", epoch)["matrix"]
        np.testing.assert_array_equal(stored(tmp_path / "no room", epoch)["matrix"], matrix)

    monkeypatch.setattr(frozen, "MOST_BYTES", 0)
    assert runs_of_reference(tmp_path / "none", 3) == 3 * 4
    for epoch in range(3):
        known, none = (stored(tmp_path / name, epoch)["matrix"] for name in ("known", "none"))
        np.testing.assert_allclose(known, none, atol=1e-6)


def test_data_that_change_are_noticed(tmp_path):
    class Later(Data):
        def val_dataloader(self):
            images, labels = self.set.tensors
            return DataLoader(TensorDataset(images + self.trainer.current_epoch, labels), self.batch_size)

    initial, model, data = Lit(), Lit(), Later()
    model.load_state_dict(initial.state_dict())
    trainer(tmp_path, CKACallback(), epochs=2, num_sanity_val_steps=0, **RELOAD).fit(model, datamodule=data)
    last = [images + 1 for images in Data().set.tensors[0].split(16)]
    expected = compare(model.network, initial.network, last)
    np.testing.assert_allclose(stored(tmp_path, 1)["matrix"], expected.matrix, atol=1e-6)


def test_a_network_that_is_called_more_often_than_before_ends_the_maps(tmp_path):
    class Twice(Lit):
        def validation_step(self, batch, index):
            for _ in range(1 + self.current_epoch):
                super().validation_step(batch, index)

    with pytest.warns(UserWarning, match="is called more than once for a batch, but was not in earlier validations"):
        _, run = fit(tmp_path, CKACallback(), model=Twice())
    assert run.state.finished and [path.name for path in (tmp_path / "cka").glob("*.npz")] == ["epoch-001.npz"]


class InPlace(Net):
    """Changes what it is called with."""

    def forward(self, x):
        return super().forward(x.mul_(2))


class Sparse(Net):
    def forward(self, x):
        return super().forward(x.to_dense())


def test_models_that_change_their_inputs_in_place(tmp_path):
    model, losses = InPlace(), []

    class Noted(Lit):
        def validation_step(self, batch, index):
            images, labels = batch
            losses.append(self.loss(self.network(images), labels).item())

    for callbacks in ([], [CKACallback()], [CKACallback(reference=model)]):
        fit(tmp_path, *callbacks, model=Noted(deepcopy(model)))
    without, initial, itself = np.split(np.array(losses), 3)
    np.testing.assert_array_equal(initial, without)
    np.testing.assert_array_equal(itself, without)

    # Nor do the second model and the caller notice anything.
    batches = list(Data().set.tensors[0].split(16))
    result = compare(model, deepcopy(model), batches)
    np.testing.assert_allclose(result.matrix.diagonal(), 1, atol=1e-6)
    assert torch.equal(torch.cat(batches), Data().set.tensors[0])


def test_inputs_that_can_not_be_kept_are_run_each_time(tmp_path):
    class OfSparse(Lit):
        def training_step(self, batch, index):
            return super().training_step((batch[0].to_sparse(), batch[1]), index)

        def validation_step(self, batch, index):
            super().validation_step((batch[0].to_sparse(), batch[1]), index)

    fit(tmp_path, CKACallback(), model=OfSparse(Sparse()))
    assert stored(tmp_path, 1)["samples"] == 64
