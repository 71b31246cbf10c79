"""The default networks, model and data: shapes, counts, what is logged, and that they can learn."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from data import Digits
from model import Classifier
from networks import MLP, ConvNet

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 4, 4), (1, 9, 13)])
def test_convnet_maps_images_of_any_size_to_logits(shape):
    network = ConvNet(classes=5, input_shape=shape, width=4).eval()
    assert network(torch.randn(3, *shape)).shape == (3, 5)


def test_convnet_has_the_width_and_dropout_it_is_given():
    network = ConvNet(10, (1, 8, 8), width=16, dropout=0.3)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 16), (16, 16), (16, 32), (32, 32)]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3]


@pytest.mark.parametrize("hidden, layers", [((), 1), ((7,), 2), ((7, 6), 3)])
def test_mlp(hidden, layers):
    network = MLP(4, (2, 3), hidden)
    assert network(torch.randn(5, 2, 3)).shape == (5, 4)
    assert sum(isinstance(layer, nn.Linear) for layer in network.modules()) == layers


@pytest.fixture(scope="module")
def digits():
    data = Digits(batch_size=100)
    data.setup("fit")
    return data


def test_digits_are_1797_images_in_three_disjoint_stratified_sets(digits):
    sets = [digits.train_set, digits.val_set, digits.test_set]
    assert [len(each) for each in sets] == [1077, 360, 360]
    images = torch.cat([each.tensors[0] for each in sets])
    assert images.shape[1:] == digits.input_shape and images.min() == 0 and images.max() == 1
    # Two of the images occur twice in the source; beyond them no image is in two of the sets.
    assert 1797 - len(images.flatten(1).unique(dim=0)) <= 2
    for each in sets:
        counts = each.tensors[1].bincount(minlength=digits.classes).double() / len(each)
        assert (counts - 0.1).abs().max() < 0.01


def test_the_same_images_are_split_the_same_way_whatever_the_seed(digits):
    torch.manual_seed(99)
    again = Digits()
    again.setup("test")
    assert again.test_set.tensors[0].equal(digits.test_set.tensors[0])


def test_only_training_data_is_shuffled(digits):
    first = [next(iter(digits.train_dataloader()))[1] for _ in range(2)]
    assert not first[0].equal(first[1])
    for loader, dataset in ((digits.val_dataloader(), digits.val_set), (digits.test_dataloader(), digits.test_set)):
        assert torch.cat([targets for _, targets in loader]).equal(dataset.tensors[1])
    assert digits.train_dataloader().batch_size == 100


def classifier(network=None, **settings):
    model = Classifier(network or MLP(3, (4,), ()), classes=3, optimizer=torch.optim.SGD, **settings)
    model.logged = {}
    model.log = lambda name, value, **_: model.logged.update({name: value})
    return model


def test_the_training_step_logs_and_smooths_labels():
    batch = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    model = classifier(label_smoothing=0.3)
    loss = model.training_step(batch, 0)
    expected = nn.functional.cross_entropy(model.network(batch[0]), batch[1], label_smoothing=0.3)
    assert loss.equal(expected) and loss.requires_grad
    model.on_train_epoch_end()
    assert set(model.logged) == {"train/loss", "train/acc"}
    assert model.train_acc.compute() == (model.network(batch[0]).argmax(1) == batch[1]).float().mean()


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_logs_the_loss_without_label_smoothing(stage):
    batch = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    model = classifier(label_smoothing=0.3).eval()
    {"val": model.validation_step, "test": model.test_step}[stage](batch, 0)
    assert set(model.logged) == {f"{stage}/loss", f"{stage}/acc"}
    assert model.logged[f"{stage}/loss"].equal(nn.functional.cross_entropy(model.network(batch[0]), batch[1]))


def test_predictions_are_probabilities():
    probabilities = classifier().predict_step((torch.randn(6, 4), torch.zeros(6)), 0)
    assert probabilities.shape == (6, 3) and torch.allclose(probabilities.sum(1), torch.ones(6))


def test_networks_that_return_an_object_with_logits():
    class Wrapped(MLP):
        def forward(self, inputs):
            return SimpleNamespace(logits=super().forward(inputs))

    model = classifier(Wrapped(3, (4,), ()))
    assert model(torch.randn(6, 4)).shape == (6, 3)


def test_the_optimizer_gets_all_parameters_of_the_network():
    configured = classifier().configure_optimizers()
    assert isinstance(configured["optimizer"], torch.optim.SGD)
    assert [p.shape for group in configured["optimizer"].param_groups for p in group["params"]] == [(3, 4), (3,)]


@pytest.mark.parametrize("network", [ConvNet, MLP])
def test_the_networks_can_learn_a_batch_by_heart(network, digits):
    torch.manual_seed(0)
    model = Classifier(network(10, (1, 8, 8)), 10, torch.optim.Adam)
    images, targets = digits.train_set[:50]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    assert (model.eval()(images).argmax(1) == targets).float().mean() > 0.95
