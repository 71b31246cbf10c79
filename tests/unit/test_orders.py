"""Draws and orders: each place in a run has its own, whatever draws; and which samplers know of ranks."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, Sampler

from lightning_hpc.loading.orders import drawn, set_epoch
from lightning_hpc.loading.randomness import reseed
from lightning_hpc.loading.ranks import Share, knows_ranks

# Generator objects → a draw from one of them.
OWN = {
    "Python's": (random.Random, lambda own: own.random()),
    "torch's": (torch.Generator, lambda own: torch.rand((), generator=own).item()),
    "NumPy's": (np.random.default_rng, lambda own: own.random()),
    "NumPy's, by Philox": (lambda: np.random.Generator(np.random.Philox()), lambda own: own.random()),
    "NumPy's, legacy": (np.random.RandomState, lambda own: own.rand()),
    "NumPy's, legacy by PCG64": (lambda: np.random.RandomState(np.random.PCG64()), lambda own: own.rand()),
    "a bit generator": (np.random.PCG64, lambda own: int(own.random_raw())),
}
GLOBAL = {"random": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(()).item()}


@pytest.mark.parametrize("kind", OWN)
def test_each_place_has_draws_of_its_own_from_a_generator_object(kind):
    make, draw = OWN[kind]
    own, other = make(), make()
    draws = []
    for number in range(100):
        reseed(0, "train", number, also=[own])
        draws.append(draw(own))
        reseed(0, "train", number, also=[other])
        assert draw(other) == draws[-1]
    assert len(set(draws)) == 100


@pytest.mark.parametrize("kind", GLOBAL)
def test_each_place_has_draws_of_its_own(kind):
    draws = []
    for number in range(100):
        reseed(0, "train", number)
        draws.append(GLOBAL[kind]())
    assert len(set(draws)) == 100


@pytest.mark.parametrize("length, ranks", [(23, 2), (24, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_torchs_sampler_for_ranks_keeps_its_order(length, ranks, shuffle, drop_last):
    """Its lists of Python integers are one tensor here, which must give the same order: also where samples repeat."""
    for rank in range(ranks):
        sampler = DistributedSampler(range(length), ranks, rank, shuffle=shuffle, seed=3, drop_last=drop_last)
        assert list(drawn(sampler, (0, "train", 2, 0), epoch=2, with_epochs=[sampler])) == list(sampler)


class Endless(Sampler):
    """Draws at each item, from a global generator or from its own."""

    def __init__(self, own=None):
        self.own = own

    def __iter__(self):
        while True:
            yield self.own.randrange(10**12) if self.own else random.randrange(10**12)


@pytest.mark.parametrize("own", [None, random.Random()], ids=["global", "own"])
def test_each_epoch_has_an_order_of_its_own_whatever_draws_in_between(own):
    def order(epoch, disturb=0):
        items = drawn(Endless(own), (0, "train", epoch, 0), size=4)
        taken = []
        for item in itertools.islice(items, 12):
            taken.append(item)
            for _ in range(disturb):  # only what is taken at once is drawn at once
                random.random()
        return taken

    orders = [order(epoch) for epoch in range(5)]
    assert len({item for order in orders for item in order}) == 60
    assert [order(epoch, disturb=3) for epoch in range(5)] == orders


def test_a_sampler_is_told_the_epoch_once_however_often_it_is_named():
    class Told:
        def __init__(self):
            self.epochs, self.sampler = [], self

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    inner, outer = Told(), Told()
    outer.sampler = inner
    set_epoch(3, outer, None, inner, outer)
    assert inner.epochs == outer.epochs == [3]


class Slotted:
    __slots__ = ("num_replicas",)


class Hidden:
    def __init__(self):
        self._world_size = 2


class Asking:
    @property
    def part(self):
        return torch.distributed.get_world_size()


class Inheriting(Asking, RandomSampler):
    pass


@pytest.mark.parametrize("kind", [Slotted, Hidden, Asking])
def test_a_sampler_that_knows_ranks_is_known_also_inside_another(kind):
    assert knows_ranks(kind()) and knows_ranks(BatchSampler(kind(), 4, False))


def test_what_a_base_class_asks_counts_and_torchs_own_do_not():
    assert knows_ranks(Inheriting(range(8)))
    assert not knows_ranks(RandomSampler(range(8))) and not knows_ranks(BatchSampler(range(8), 4, False))
    assert not knows_ranks(None)


def test_nothing_is_repeated_where_it_need_not_be():
    assert Share(0, 2, size=1).take_each_once(4) == 0
    assert Share(0, 2, size=1).take_each_once(5) == 1
    assert Share(0, 2, size=4).take_each_once(None) == 0 and Share(0, 2, size=4).repeats
    assert Share(0, 3, size=4).take_each_once(1) == 2  # fewer samples than ranks
