"""Generator objects are found by reachability: wherever user code holds them, if a reference leads there."""

import functools
import random
import warnings
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, RandomSampler, Subset

from lightning_hpc.loading import generators
from lightning_hpc.loading.generators import own_generators
from lightning_hpc.loading.loaders import ExactLoader
from lightning_hpc.loading.randomness import reseed

OF_THE_MODULE = np.random.default_rng()


class Slots:
    __slots__ = ("rng",)

    def __init__(self, rng) -> None:
        self.rng = rng


class Holder:
    def __init__(self, rng) -> None:
        self.rng = rng

    def draw(self) -> float:
        return self.rng.random()


class OfTheClass:
    rng = random.Random()


class Linked(list):
    """A list of the user's own, with an attribute."""


class Compose:
    def __init__(self, *transforms) -> None:
        self.transforms = transforms


def uses_the_modules() -> float:
    return [OF_THE_MODULE.random() for _ in range(2)][0]


def closure(rng):
    return lambda: rng.random()


def deep(rng, levels: int = 30):
    for _ in range(levels):
        rng = SimpleNamespace(inner=[rng])
    return rng


def linked(rng) -> Linked:
    made = Linked([1, 2])
    made.rng = rng
    return made


PLACES = {
    "an attribute": Holder,
    "slots": Slots,
    "a dict": lambda rng: {"rng": rng},
    "a deque": lambda rng: deque([rng]),
    "a tuple of a list": lambda rng: ([rng],),
    "a list with attributes": linked,
    "a closure": closure,
    "a partial function": lambda rng: functools.partial(print, rng),
    "a bound method": lambda rng: Holder(rng).draw,
    "a method of the generator": lambda rng: SimpleNamespace(draw=rng.random),
    "a default": lambda rng: functools.partial(lambda x, rng=rng: x),
    "thirty levels down": deep,
    "Compose in Subset in ConcatDataset": lambda rng: ConcatDataset([Subset(Compose(Holder(rng)), [0])]),
    "a sampler in a batch sampler": lambda rng: BatchSampler(RandomSampler(range(3), generator=rng), 2, False),
    "a module": lambda rng: torch.nn.Sequential(torch.nn.Linear(1, 1), WithAttribute(rng)),
}


class WithAttribute(torch.nn.Module):
    def __init__(self, rng) -> None:
        super().__init__()
        self.rng = rng


@pytest.mark.parametrize("place", PLACES)
def test_generators_are_found_in(place):
    rng = np.random.default_rng()
    if "sampler" in place:
        rng = torch.Generator()
    assert any(generator is rng for generator in own_generators(PLACES[place](rng)))


def test_generators_of_classes_and_modules_are_found():
    assert own_generators(OfTheClass()) == [OfTheClass.rng]
    assert own_generators(uses_the_modules) == [OF_THE_MODULE]


@pytest.mark.parametrize(
    "rng",
    [
        random.Random(),
        np.random.default_rng(),
        np.random.RandomState(),
        np.random.RandomState(np.random.PCG64()),
        np.random.Philox(),
        torch.Generator(),
    ],
    ids=lambda rng: type(rng).__name__,
)
def test_each_kind_of_generator_is_seeded(rng):
    def draw():
        if isinstance(rng, torch.Generator):
            return torch.rand(3, generator=rng).tolist()
        if isinstance(rng, np.random.BitGenerator):
            return np.random.Generator(rng).random()
        if isinstance(rng, np.random.RandomState):
            return rng.normal()  # every other one comes from a cache
        return rng.random()

    drawn = []
    for place in (1, 1, 2):
        reseed(place, also=own_generators(Holder(rng)))
        drawn.append(draw())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_search_that_meets_its_bound_says_so(monkeypatch):
    with pytest.warns(UserWarning, match="generators in list ended at its bound"):
        own_generators([random.Random() for _ in range(generators.MOST_ITEMS + 1)])

    monkeypatch.setattr(generators, "MOST_OBJECTS", 50)
    with pytest.warns(UserWarning, match="generators in SimpleNamespace ended at its bound of 50 objects"):
        own_generators(SimpleNamespace(many=[[] for _ in range(99)]))


def test_a_search_does_not_enter_what_is_large_or_nobodys_business():
    image_folder = SimpleNamespace(samples=[(f"{number}.png", number) for number in range(50_000)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert own_generators(image_folder, torch.nn.functional.relu, random) == []


class Lazy(Dataset):
    """It makes its generator with the first sample."""

    rng = None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        if self.rng is None:
            self.rng = np.random.default_rng()
        return self.rng.random()


def test_a_generator_that_is_made_with_the_first_sample_is_seeded_for_it():
    epochs = [torch.cat(list(ExactLoader(DataLoader(Lazy(), 2), seed=0))) for _ in range(2)]
    assert torch.equal(*epochs)


def test_generators_of_collate_fn_and_of_the_model_are_seeded():
    own, of_model = np.random.RandomState(), random.Random()

    def collate(samples: list) -> list:
        return [own.rand() for _ in samples]

    def epoch(first: int) -> list:
        exact = ExactLoader(DataLoader(range(6), 2, collate_fn=collate), seed=0, also=[of_model])
        exact.seek(1, first)
        return [(batch, of_model.random(), random.random(), float(torch.rand(()))) for batch in exact]

    assert epoch(0)[1:] == epoch(1)
