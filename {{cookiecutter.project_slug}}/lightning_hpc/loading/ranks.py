"""Which rank gets which samples, and in which batches.

In training, samples are repeated until all ranks have the same number, as DistributedSampler does. In evaluation that
would count some samples twice, so that the metrics on two processes are not those on one. There each sample comes once,
and still all ranks get the same number of batches, since strategies exchange data in each: if one rank has a batch
less, the last sample of its last batch comes by itself.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, DistributedSampler

from .generators import reachable
from .orders import DRAW_ONCE

# A sampler of the user's that knows how many ranks there are shares the samples out itself.
NAMES_OF_RANKS = {"num_replicas", "world_size", "get_world_size", "num_processes", "num_shards"}


def knows_ranks(sampler: Any) -> bool:
    """True if a sampler, or one inside it, gives each rank samples of its own."""
    if reachable([sampler], (DistributedSampler,)):
        return True

    while sampler is not None:
        of_torch = type(sampler) in (*DRAW_ONCE, BatchSampler)
        if not of_torch and _names(sampler) & NAMES_OF_RANKS:
            return True
        sampler = getattr(sampler, "sampler", None)
    return False


def _names(sampler: Any) -> set[str]:
    """Names of a sampler's attributes, and those that the code of its own classes uses."""
    names = set(getattr(sampler, "__dict__", {}))
    for kind in type(sampler).__mro__:
        names |= set(getattr(kind, "__slots__", ()))
        if kind.__module__.startswith("torch.") or kind is object:
            continue
        for value in vars(kind).values():
            function = getattr(value, "fget", value)  # of a property
            names |= set(getattr(getattr(function, "__code__", None), "co_names", ()))
    return {name.lstrip("_") for name in names}


class Share:
    """The part of one rank.

    Args:
        rank: 0 … world_size − 1.
        world_size: ranks among which items are shared out; 1 if the sampler does so itself.
        size: samples of a batch; None if an item is a whole batch.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(self, rank: int, world_size: int, size: int | None = None, drop_last: bool = False) -> None:
        self.rank, self.world_size, self.size, self.drop_last = rank, world_size, size, drop_last
        self.repeats = world_size > 1  # items, until all ranks have the same number

    def take_each_once(self, total: int | None) -> int:
        """Repeat nothing, where all ranks can get the same number of batches without it.

        Args:
            total: items of all ranks, or None if that is not known.

        Returns:
            Items that are still repeated.
        """
        if not self.repeats or total is None:
            return 0

        left_over = total % self.world_size
        can_be_cut = self.size is not None and self.size > 1 and total >= self.world_size
        if left_over == 0 or self.drop_last or can_be_cut:
            self.repeats = False
            return 0
        return self.world_size - left_over

    def batches(self, total: int) -> int:
        """Batches of each rank, if there are so many items in all."""
        items = -(-total // self.world_size)
        if self.drop_last and not self.repeats:
            items = total // self.world_size

        if self.size is None:
            return items
        if self.drop_last:
            return items // self.size
        return -(-items // self.size)

    def of(self, items: Iterable[Any], total: int | None) -> Iterator[Any]:
        """This rank's batches: lists of indices, or items as they are where an item is a batch.

        Args:
            items: those of all ranks, in order.
            total: how many there are, or None if that is not known.
        """
        if self.world_size > 1:
            items = shared_out(items, self.rank, self.world_size, self.repeats)
        if self.size is None:
            return iter(items)

        batches = in_batches(items, self.size, self.drop_last)
        if self.world_size == 1 or self.repeats or total is None:
            return batches

        number = self.batches(total)
        if self.drop_last:
            return itertools.islice(batches, number)

        own = len(range(self.rank, total, self.world_size))
        has_one_less = -(-own // self.size) < number
        return with_one_more(batches, number) if has_one_less else batches


def shared_out(items: Iterable[Any], rank: int, world_size: int, repeats: bool) -> Iterator[Any]:
    """Every so many of the items; with `repeats`, filled up from the start so that all ranks have the same number."""
    head: list[Any] = []
    count = 0
    for item in items:
        if len(head) < world_size:
            head.append(item)
        if count % world_size == rank:
            yield item
        count += 1

    missing = -count % world_size if repeats else 0
    for number in range(missing):
        if (count + number) % world_size == rank:
            yield head[number % len(head)]


def in_batches(items: Iterable[Any], size: int, drop_last: bool) -> Iterator[list[Any]]:
    """Lists of so many items; the last may be shorter, or is dropped."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        if drop_last and len(batch) < size:
            return
        yield batch


def with_one_more(batches: Iterable[list[Any]], number: int) -> Iterator[list[Any]]:
    """As many batches as `number` says, made of one less: the last sample of the last one comes by itself."""
    for count, batch in enumerate(batches, start=1):
        if count < number - 1:
            yield batch
        else:
            yield batch[:-1]
            yield batch[-1:]
