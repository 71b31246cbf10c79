"""Counted randomness: batches and their augmentation depend on the seed, the epoch and the batch alone."""

import random
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, RandomSampler

from lightning_hpc.loading.generators import own_generators
from lightning_hpc.loading.loaders import ExactLoader
from lightning_hpc.loading.randomness import reseed
from lightning_hpc.loading.sources import make_exact, seek


class Numbers(Dataset):
    """index, and a number from each kind of generator."""

    def __init__(self, length: int = 20) -> None:
        self.length = length
        self.own = dict(numpy=[np.random.default_rng()], python=random.Random(), torch=torch.Generator())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        own = self.own
        noise = [
            random.random(),
            np.random.rand(),
            float(torch.rand(())),
            own["numpy"][0].random(),
            own["python"].random(),
        ]
        return torch.tensor([index, *noise, float(torch.rand((), generator=own["torch"]))], dtype=torch.float64)


def noisy_collate(samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(samples) + random.random()


def epoch(loader: ExactLoader, number: int, first: int = 0) -> list[torch.Tensor]:
    loader.seek(number, first)
    return list(loader)


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_draws_do_not_depend_on_workers_or_on_where_one_starts():
    loaders = [
        ExactLoader(DataLoader(Numbers(), 3, shuffle=True, collate_fn=noisy_collate, **workers), seed=1)
        for workers in (dict(), dict(num_workers=2), dict(num_workers=2, persistent_workers=True))
    ]
    whole = [epoch(loaders[0], number) for number in range(3)]
    assert not same(whole[0], whole[1])
    for loader in loaders:
        assert len(loader) == 7
        assert same(epoch(loader, 2), whole[2])
        assert same(epoch(loader, 1, first=4), whole[1][4:])
    order = torch.cat(whole[0])[:, 0] - (torch.cat(whole[0])[:, 0].min())
    assert len(order.unique()) > 10  # shuffled, and collate_fn's noise is drawn per batch


class Noise(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        return random.random()


@pytest.mark.slow
def test_spawned_workers_draw_the_same():
    loader = DataLoader(Noise(), 3, num_workers=1, multiprocessing_context="spawn")
    assert same(list(ExactLoader(loader, seed=1)), list(ExactLoader(DataLoader(Noise(), 3), seed=1)))


def test_each_seed_stage_and_turn_has_draws_of_its_own():
    loader = DataLoader(Numbers(), 4, shuffle=True)
    seeds = [list(ExactLoader(loader, seed=seed)) for seed in (1, 2)]
    stages = [list(ExactLoader(loader, seed=1, stage=stage)) for stage in ("train 0", "train 1")]
    one = ExactLoader(loader, seed=1)
    turns = [list(one), list(one)]
    for pair in (seeds, stages, turns):
        assert not same(*pair)
    one.seek(0, len(one) + 2)  # two batches into the second turn
    assert same(list(one), turns[1][2:])


@pytest.mark.parametrize("length", [1, 2, 19, 20])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_the_samples_as_distributed_sampler_does(length, drop_last):
    dataset = Numbers(length)
    for rank in range(3):
        sampler = DistributedSampler(dataset, 3, rank, shuffle=False)
        expected = list(DataLoader(dataset, 2, sampler=sampler, drop_last=drop_last))
        loader = ExactLoader(DataLoader(dataset, 2, drop_last=drop_last), seed=0, rank=rank, world_size=3)
        batches = list(loader)
        assert len(loader) == len(batches) == len(expected)
        for batch, other in zip(batches, expected, strict=True):
            assert torch.equal(batch[:, 0], other[:, 0])


def test_all_ranks_have_the_same_order_and_other_draws():
    batches = [
        torch.cat(list(ExactLoader(DataLoader(Numbers(), 4, shuffle=True), 0, rank=r, world_size=2))) for r in (0, 1)
    ]
    assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(20))
    assert not torch.equal(batches[0][:, 1], batches[1][:, 1])


def test_a_users_own_distributed_sampler_is_not_shared_out_again():
    dataset = Numbers()
    loader = DataLoader(dataset, 4, sampler=DistributedSampler(dataset, 2, 1, shuffle=True))
    exact = ExactLoader(loader, seed=0, rank=1, world_size=2)
    assert [len(batch) for batch in epoch(exact, 3)] == [4, 4, 2]
    loader.sampler.set_epoch(3)
    assert [int(i) for batch in epoch(exact, 3) for i in batch[:, 0]] == list(loader.sampler)


def test_samplers_batch_samplers_and_datasets_that_make_batches():
    dataset, generator = Numbers(), torch.Generator()
    loaders = [
        DataLoader(dataset, 4, sampler=RandomSampler(dataset, generator=generator)),
        DataLoader(dataset, batch_sampler=Pairs(RandomSampler(dataset), 4, drop_last=False)),
        DataLoader(dataset, batch_size=None, shuffle=True),
    ]
    for loader, batches in zip(loaders, (5, 10, 20), strict=True):
        exact = ExactLoader(loader, seed=0)
        whole = epoch(exact, 1)
        assert len(exact) == len(whole) == batches
        assert same(epoch(exact, 1, first=3), whole[3:])
    assert whole[0].ndim == 1  # without a batch size, samples are not stacked


class Pairs(BatchSampler):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            yield random.sample(batch, len(batch))

    def __len__(self) -> int:
        return 2 * super().__len__()


def test_a_dataset_that_loads_a_whole_batch_may():
    class Fast(Numbers):
        def __getitems__(self, indices):
            return [torch.tensor(index) for index in indices]

    assert [batch.tolist() for batch in ExactLoader(DataLoader(Fast(4), 2), seed=0)] == [[0, 1], [2, 3]]


def test_a_pass_in_the_middle_of_another_disturbs_nothing():
    loader = ExactLoader(DataLoader(Numbers(), 4, shuffle=True), seed=0)
    whole = epoch(loader, 0)
    loader.seek(0)
    outer = iter(loader)
    first = next(outer)
    list(loader)
    assert same([first, *outer], whole)


class Data(LightningDataModule):
    def __init__(self, train):
        super().__init__()
        self.train = train
        self.trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)

    def train_dataloader(self):
        return self.train

    def predict_dataloader(self):
        return DataLoader(Numbers())


def test_make_exact_wraps_whatever_a_datamodule_returns():
    one, two = DataLoader(Numbers(), 4, shuffle=True), DataLoader(Numbers(), 4, shuffle=True)
    for made in (one, [one, two], dict(a=one, b=[two]), CombinedLoader([one, two], "max_size_cycle")):
        data = Data(made)
        make_exact(data, seed=0)
        make_exact(data, seed=0)  # once more changes nothing
        loaders = data.train_dataloader()
        flat = (loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)).flattened
        assert all(isinstance(loader, ExactLoader) for loader in flat)
        assert isinstance(data.predict_dataloader(), DataLoader)
    data = Data([one, two])
    make_exact(data, seed=0)
    first, second = data.train_dataloader()
    assert not torch.equal(next(iter(first))[:, 0], next(iter(second))[:, 0])


@pytest.mark.parametrize("place", ["data", "model", "step", "nowhere"])
def test_generators_are_seeded_when_a_batch_is_handed_over_to_something_that_may_draw(place):
    """Where nothing draws before the step, which seeds them again, it would be most of what a small batch costs."""
    data, model, of_model = Data(DataLoader(Numbers(), 4)), LightningModule(), random.Random(0)
    data.trainer.datamodule, data.trainer.strategy._lightning_module = data, model
    if place == "data":
        data.on_before_batch_transfer = lambda batch, dataloader_idx: batch
    if place == "model":
        model.on_after_batch_transfer = lambda batch, dataloader_idx: batch
    if place == "step":
        model.training_step = lambda dataloader_iter: None
    make_exact(data, seed=0, also=[of_model])

    draws = []
    for _ in range(2):
        next(iter(data.train_dataloader()))
        draws.append(of_model.random())
    assert (draws[0] == draws[1]) is (place != "nowhere")


def test_seek_reaches_every_loader_of_a_collection():
    loaders = dict(a=ExactLoader(DataLoader(Numbers(), 4), 0), b=[ExactLoader(DataLoader(Numbers(), 4), 0)])
    seek(loaders, 3, 2)
    assert (loaders["a"].epoch, loaders["b"][0].epoch) == (3, 3)
    seek(None, 0)


def test_generators_are_found_where_transforms_keep_them():
    class Transform:
        def __init__(self):
            self.rng = np.random.default_rng()

    class Compose:
        def __init__(self):
            self.transforms = [Transform(), Transform()]

    dataset = Numbers()
    dataset.transform = Compose()
    assert len(own_generators(dataset)) == 5
    generators = own_generators(dataset)
    draws = []
    for _ in range(2):
        reseed("somewhere", also=generators)
        draws.append([dataset.transform.transforms[0].rng.random(), dataset.own["python"].random(), random.random()])
    assert draws[0] == draws[1]


def test_nothing_is_loaded_before_the_first_batch_is_asked_for():
    class Touchy(Numbers):
        def __getitem__(self, index):
            raise AssertionError("loaded")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iter(ExactLoader(DataLoader(Touchy(), 4), seed=0))
