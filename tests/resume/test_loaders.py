"""Without a restart, order and values are those of the loader that the user wrote; and the same from any batch on."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lightning_hpc.loading.loaders import ExactLoader
from lightning_hpc.loading.randomness import reseed
from lightning_hpc.loading.sources import exact_loader, in_order

SAMPLES = 23


class Squares(Dataset):
    """index and its square, as a dict."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return dict(index=index, square=torch.tensor([index**2]))


class Whole(Squares):
    """Loads a whole batch at once."""

    def __getitems__(self, indices: list) -> list:
        return [dict(index=index, square=torch.tensor([index**2])) for index in indices]


class ByName(Squares):
    """Its indices are names."""

    def __getitem__(self, index: str) -> str:
        return index.upper()


class Opened(Squares):
    """As one reads HDF5: each worker opens the file for itself."""

    file = None

    def __getitem__(self, index: int) -> tuple:
        return index, self.file


def open_file(worker: int) -> None:
    get_worker_info().dataset.file = f"opened by {worker >= 0}"


class EveryOther(Sampler):
    """A sampler of the user's, in an order of its own."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        yield from range(0, self.length, 2)
        yield from range(1, self.length, 2)

    def __len__(self) -> int:
        return self.length


class ByEpoch(EveryOther):
    """A sampler whose order depends on the epoch alone."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from random.Random(self.epoch).sample(range(self.length), self.length)


class Endless(EveryOther):
    """It has a length and no end."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from super().__iter__()


class Growing(Sampler):
    """A batch sampler without a length, whose batches grow."""

    def __iter__(self) -> Iterator[list]:
        for size in range(1, 7):
            yield list(range(size))


class Twice(DataLoader):
    """A subclass whose own __iter__ makes two batches of each, with a number that it draws."""

    def __iter__(self) -> Iterator[tuple]:
        for batch in super().__iter__():
            yield batch, random.random()
            yield batch, np.random.rand()

    def __len__(self) -> int:
        return 2 * super().__len__()


def names(samples: list) -> str:
    return ",".join(samples)


# Loaders in whose order nothing is drawn but from the epoch.
KINDS = {
    "in order": lambda: DataLoader(Squares(), 4),
    "drop_last": lambda: DataLoader(Squares(), 4, drop_last=True),
    "one sample": lambda: DataLoader(Squares(), 1),
    "more than there are": lambda: DataLoader(Squares(), 100),
    "no batches": lambda: DataLoader(Squares(), None),
    "a sampler of their own": lambda: DataLoader(Squares(), 4, sampler=EveryOther()),
    "a sampler with epochs": lambda: DataLoader(Squares(), 4, sampler=ByEpoch()),
    "a batch sampler": lambda: DataLoader(Squares(), batch_sampler=BatchSampler(EveryOther(), 5, True)),
    "epochs inside a batch sampler": lambda: DataLoader(Squares(), batch_sampler=BatchSampler(ByEpoch(), 5, False)),
    "no length": lambda: DataLoader(Squares(), batch_sampler=Growing()),
    "a list as sampler": lambda: DataLoader(Squares(), 4, sampler=[3, 1, 2]),
    "names as indices": lambda: DataLoader(ByName(), 2, sampler=["a", "b", "c"], collate_fn=names),
    "a sampler for ranks": lambda: DataLoader(Squares(), 4, sampler=DistributedSampler(Squares(), 2, 1)),
    "whole batches": lambda: DataLoader(Whole(), 4),
    "a part": lambda: DataLoader(Subset(Squares(), [5, 3, 1]), 2),
    "several": lambda: DataLoader(ConcatDataset([Squares(3), Squares(4)]), 2),
    "tensors": lambda: DataLoader(TensorDataset(torch.arange(9), torch.arange(9.0)), 2),
    "a list as dataset": lambda: DataLoader([1.0, 2.0, 3.0], 2),
    "opened by a worker": lambda: DataLoader(Opened(), 4, num_workers=1, worker_init_fn=open_file),
    "workers": lambda: DataLoader(Squares(), 4, num_workers=2, prefetch_factor=3),
    "persistent workers": lambda: DataLoader(Squares(), 4, num_workers=1, persistent_workers=True),
}


def as_text(batches) -> list:
    return [repr(batch) for batch in batches]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_users_loader(kind):
    stock, exact = KINDS[kind](), ExactLoader(KINDS[kind](), seed=0)
    for epoch in (0, 3):
        for sampler in (stock.sampler, getattr(stock.batch_sampler, "sampler", None)):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        whole = as_text(stock)
        exact.seek(epoch)
        assert as_text(exact) == whole

    exact.cycled = False
    exact.seek(3, 2)
    assert as_text(exact) == whole[2:]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: RandomSampler(Squares()),
        lambda: RandomSampler(Squares(), generator=torch.Generator()),
        lambda: RandomSampler(Squares(), replacement=True),
        lambda: RandomSampler(Squares(), num_samples=50),
        lambda: SubsetRandomSampler([4, 8, 15, 16, 23, 42]),
        lambda: WeightedRandomSampler([0.1] * 10, 30),
    ],
)
def test_drawn_orders_are_torchs_own(sampler):
    """With the same seeds, what is drawn batch by batch here is what torch draws."""
    expected_of = sampler()
    generator = expected_of.generator
    reseed(0, "train", 2, 0, "order", also=[generator] if generator else [])
    expected = list(BatchSampler(expected_of, 4, False))

    exact = ExactLoader(DataLoader(range(100), 4, sampler=sampler(), collate_fn=list), seed=0)
    exact.seek(2)
    assert list(exact) == expected


def test_an_endless_sampler_is_asked_for_no_more_than_is_used():
    exact = ExactLoader(DataLoader(Squares(), 4, sampler=Endless()), seed=0)
    batches = iter(exact)
    assert [len(next(batches)["index"]) for _ in range(20)] == [4] * 20
    assert len(exact) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_with_its_own_iter_keeps_it(workers):
    def loader() -> Twice:
        return Twice(Squares(), 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    exact = ExactLoader(loader(), seed=0)
    assert len(exact) == 12
    whole = [as_text(exact), as_text(exact)]
    assert [len(epoch) for epoch in whole] == [12, 12] and whole[0] != whole[1]

    again = ExactLoader(loader(), seed=0)
    again.seek(0, 12 + 5)
    assert as_text(again) == whole[1][5:]


def test_a_class_that_makes_its_batches_elsewhere_is_named():
    class Prefetched(DataLoader):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            self.iterator = super().__iter__()

        def __iter__(self):
            for _ in range(len(self)):
                yield next(self.iterator)

    class Own(DataLoader):
        def _get_iterator(self):
            return iter([1, 2])

    with pytest.warns(UserWarning, match="Prefetched doesn't get its batches from DataLoader.__iter__"):
        assert len(list(ExactLoader(Prefetched(Squares(), 4), seed=0))) == 6
    with pytest.warns(UserWarning, match="can't be resumed exactly: Own makes its batches in a way of its own"):
        assert list(exact_loader(Own(Squares()), 0, "train")) == [1, 2]


def test_whatever_else_it_is_asked_the_users_loader_answers():
    loader = Twice(Squares(), 4, num_workers=2, collate_fn=list)
    loader.curriculum = "easy"
    exact = ExactLoader(loader, seed=0)
    for name in ("dataset", "sampler", "batch_sampler", "num_workers", "collate_fn", "batch_size", "curriculum"):
        assert getattr(exact, name) is getattr(loader, name)
    with pytest.raises(AttributeError):
        exact.nothing  # noqa: B018


# Ranks


class OfOneRank(Sampler):
    """Shares samples out by itself, and is no DistributedSampler."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, 20, self.world_size))

    def __len__(self) -> int:
        return 20 // self.world_size


class AsksTorch(Sampler):
    def __iter__(self) -> Iterator[int]:
        rank, ranks = self.where()
        return iter(range(rank, 20, ranks))

    def where(self) -> tuple:
        if not torch.distributed.is_initialized():
            return 0, 2
        return torch.distributed.get_rank(), torch.distributed.get_world_size()

    def __len__(self) -> int:
        return 10


@pytest.mark.filterwarnings("ignore:The samples of")
@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(range(20), 5, sampler=OfOneRank(0, 2)),
        lambda: DataLoader(range(20), batch_sampler=BatchSampler(OfOneRank(0, 2), 5, False)),
        lambda: DataLoader(
            range(20), batch_sampler=BatchSampler(DistributedSampler(range(20), 2, 0, shuffle=False), 5, False)
        ),
        lambda: DataLoader(range(20), 5, sampler=AsksTorch()),
    ],
)
def test_what_is_shared_out_already_is_not_shared_out_again(loader):
    exact = ExactLoader(loader(), seed=0, rank=0, world_size=2)
    assert torch.cat(list(exact)).tolist() == list(range(0, 20, 2))
    assert len(exact) == 2


def test_a_sampler_that_knows_no_ranks_is_shared_out():
    batches = [
        list(ExactLoader(DataLoader(range(22), 5, sampler=EveryOther(22)), 0, rank=r, world_size=2)) for r in (0, 1)
    ]
    assert sorted(torch.cat([*batches[0], *batches[1]]).tolist()) == list(range(22))


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_an_evaluation_on_several_ranks_takes_each_sample_once(ranks, size):
    for samples in range(ranks, 40):
        loaders = [ExactLoader(DataLoader(range(samples), size), 0, "val 0", rank, ranks) for rank in range(ranks)]
        batches = [list(loader) for loader in loaders]

        # Strategies exchange data in each batch: a rank that has one less would leave the others waiting.
        assert {len(of_rank) for of_rank in batches} == {len(loaders[0])}
        assert sorted(torch.cat(sum(batches, [])).tolist()) == list(range(samples))
        assert {len(batch) for of_rank in batches for batch in of_rank} <= set(range(1, size + 1))


@pytest.mark.parametrize("samples", range(8, 20))
def test_an_evaluation_that_drops_its_last_batch_takes_no_sample_twice(samples):
    batches = [
        list(ExactLoader(DataLoader(range(samples), 4, drop_last=True), 0, "test 0", rank, 2)) for rank in (0, 1)
    ]
    taken = torch.cat(sum(batches, [])).tolist()
    assert len(batches[0]) == len(batches[1]) == samples // 8
    assert len(taken) == len(set(taken)) == samples // 8 * 8


@pytest.mark.parametrize(
    "loader, said",
    [
        (lambda: DataLoader(range(5), 1), "The 5 samples of val 0 .* among 2 ranks: 1 of them"),
        (lambda: DataLoader(range(1), 4), "The 1 samples of val 0 .* among 2 ranks: 1 of them"),
        (lambda: DataLoader(range(9), batch_sampler=[[0, 1, 2], [3, 4, 5], [6, 7, 8]]), "The 3 batches of val 0"),
    ],
)
def test_an_evaluation_that_has_to_count_something_twice_says_so(loader, said):
    with pytest.warns(UserWarning, match=said):
        loaders = [ExactLoader(loader(), 0, "val 0", rank, 2) for rank in (0, 1)]
    assert len(list(loaders[0])) == len(list(loaders[1])) == len(loaders[0])


def test_training_on_several_ranks_repeats_samples_as_distributed_sampler_does():
    for rank in (0, 1):
        ours = ExactLoader(DataLoader(range(9), 2), 0, "train 0", rank, 2)
        theirs = DataLoader(range(9), 2, sampler=DistributedSampler(range(9), 2, rank, shuffle=False))
        assert [batch.tolist() for batch in ours] == [batch.tolist() for batch in theirs]


# Another batch size in the middle of an epoch


@pytest.mark.parametrize("before, now", [((4, 1), (8, 1)), ((8, 1), (3, 1)), ((2, 2), (5, 1)), ((6, 1), (2, 2))])
def test_another_batch_size_continues_after_the_samples_that_are_done(before, now):
    def loader(size: int, ranks: int, rank: int = 0) -> ExactLoader:
        return ExactLoader(DataLoader(range(48), size, shuffle=True), seed=0, rank=rank, world_size=ranks)

    first = [loader(*before, rank) for rank in range(before[1])]
    done = [int(index) for one in first for batch in list(one)[:3] for index in batch]

    rest = []
    for rank in range(now[1]):
        second = loader(*now, rank)
        second.load_state_dict(first[0].state_dict())
        assert second.sizes_changed
        second.seek(0, second.batches_done(3))
        batches = list(second)
        rest += torch.cat(batches).tolist()
        assert len(batches) == len(second) - second.batches_done(3)
    assert sorted(done + rest) == list(range(48))


def test_overfitting_takes_samples_in_order():
    for loader in (
        DataLoader(range(9), 4, shuffle=True),
        DataLoader(range(9), batch_sampler=BatchSampler(RandomSampler(range(9)), 4, False)),
    ):
        ordered = in_order(loader)
        assert isinstance(ordered.sampler, SequentialSampler)
        assert torch.cat(list(ordered)).tolist() == list(range(9))
