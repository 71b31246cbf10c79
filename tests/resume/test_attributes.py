"""Attributes of a model that change while it trains are kept; what belongs to the code is not."""

from collections import deque

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.utils import prune

from lightning_hpc.values import attributes
from lightning_hpc.values.plain_data import is_plain


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.weight = torch.ones(3)  # of the code: never changed
        self.alpha = 0.5
        self.name = "first"
        self.count, self.hidden, self.best = 0, None, float("nan")
        self.losses, self.recent = [], deque(maxlen=2)
        self.queue = torch.zeros(2)
        self.log_alpha = torch.zeros(1, requires_grad=True)


def train(model: Model) -> None:
    """What a step may do."""
    model.count += 1
    model.hidden = (torch.ones(2, requires_grad=True) * 2, torch.zeros(1))
    model.losses.append(torch.tensor(0.5))
    model.recent.extend([1, 2, 3])
    model.queue[0] = 7  # in place
    model.net.seen = {"images": 3, "of": {1, 2}}
    with torch.no_grad():
        model.log_alpha += 1
    model.net.bias.requires_grad_(False)
    model.name = "second"


def saved_after_training() -> dict:
    model = Model()
    before = attributes.fingerprints(model)
    assert attributes.save(model, before) == dict(attributes={}, learning={})
    train(model)
    return attributes.save(model, before)


def test_what_has_changed_is_kept_as_plain_data():
    saved = saved_after_training()
    assert sorted(saved["attributes"][""]) == ["count", "hidden", "log_alpha", "losses", "queue", "recent"]
    assert saved["learning"] == {"net.bias": False} and is_plain(saved)


def test_it_is_put_back():
    saved = saved_after_training()
    model = Model()
    optimized = model.log_alpha
    attributes.restore(model, saved)
    assert model.count == 1 and model.recent == deque([2, 3], maxlen=2) and model.losses == [torch.tensor(0.5)]
    assert isinstance(model.hidden, tuple) and model.hidden[0].tolist() == [2, 2] and not model.hidden[0].requires_grad
    assert model.queue.tolist() == [7, 0] and model.net.seen == {"images": 3, "of": {1, 2}}
    assert model.log_alpha is optimized and optimized.tolist() == [1]  # an optimizer may have it
    assert not model.net.bias.requires_grad and model.net.weight.requires_grad
    assert model.name == "first"


def test_a_copy_is_kept_and_a_copy_is_put_back():
    model = Model()
    before = attributes.fingerprints(model)
    train(model)
    saved = attributes.save(model, before)
    train(model)
    assert len(saved["attributes"][""]["losses"]["value"]) == 1
    attributes.restore(model, saved)
    model.losses[0] += 1
    assert saved["attributes"][""]["losses"]["value"][0]["value"] == 0.5


def test_new_code_with_another_constant_has_the_new_one():
    saved = saved_after_training()
    model = Model()
    model.alpha, model.weight = 0.7, torch.zeros(3)
    attributes.restore(model, saved)
    assert model.alpha == 0.7 and model.weight.tolist() == [0, 0, 0]


def test_what_a_changed_model_has_no_longer_is_passed_over():
    saved = saved_after_training()
    saved["attributes"]["gone"] = dict(count=1)
    saved["learning"]["gone.weight"] = False
    attributes.restore(Model(), saved)


@pytest.mark.parametrize("module", [nn.LSTM(2, 2), nn.GRU(2, 2), nn.Transformer(2, 1, 1, 1, 4), nn.BatchNorm1d(4)])
def test_layers_of_torch_change_nothing_by_running(module):
    before = attributes.fingerprints(module)
    inputs = torch.randn(3, 4, 2)
    module(inputs, inputs) if isinstance(module, nn.Transformer) else module(inputs)
    assert attributes.save(module, before) == dict(attributes={}, learning={})


def test_weights_that_are_computed_from_others_are_left_to_them():
    module = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)), nn.utils.spectral_norm(nn.Linear(2, 2)))
    before = attributes.fingerprints(module)
    module(torch.ones(1, 2))
    prune.l1_unstructured(module[0], "bias", 0.5)
    assert attributes.save(module, before)["attributes"] == {}


def test_what_is_a_weight_in_the_changed_model_is_passed_over():
    saved = saved_after_training()
    model = Model()
    del model.count
    model.count = nn.Parameter(torch.ones(1))
    attributes.restore(model, saved)
    assert model.count.tolist() == [1]
