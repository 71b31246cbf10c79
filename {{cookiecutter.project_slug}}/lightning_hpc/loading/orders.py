"""The order of an epoch, drawn from the user's sampler batch by batch.

Nothing is listed: an endless sampler is fine, and what torch's own samplers draw is kept as one int64 tensor, where
torch makes a list of Python integers of it.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from .generators import own_generators
from .randomness import reseed

CHUNK = 4096  # indices that are made Python integers at a time

# They draw once, before their first index; RandomSampler in most cases.
DRAW_ONCE = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


def set_epoch(epoch: int, *samplers: Any) -> None:
    """Tell samplers, and those inside them, which epoch begins, if they ask for it."""
    pending, known = list(samplers), set()
    while pending:
        sampler = pending.pop()
        if sampler is None or id(sampler) in known:
            continue
        known.add(id(sampler))

        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)
        pending.append(getattr(sampler, "sampler", None))


def drawn(
    sampler: Any, place: tuple[Any, ...], size: int = 1, epoch: int = 0, with_epochs: Iterable[Any] = ()
) -> Iterator[Any]:
    """The items of one pass over a sampler or batch sampler, with all draws counted.

    A sampler may draw at any moment, and what it draws must not depend on what else draws in between. So it is seeded
    again and again, except torch's own, which draw at their beginning. Nothing is drawn before the first item is asked
    for.

    Args:
        sampler: the sampler or batch sampler.
        place: what the draws depend on.
        size: items that are taken at once, after the generators have been seeded.
        epoch: what those in `with_epochs` are told.
        with_epochs: samplers that may ask for the epoch.
    """
    return itertools.chain.from_iterable(_drawn_parts(sampler, place, size, epoch, with_epochs))


def _drawn_parts(
    sampler: Any, place: tuple[Any, ...], size: int, epoch: int, with_epochs: Iterable[Any]
) -> Iterator[Iterable[Any]]:
    """The same, many items at a time: a generator that is asked for each of them would take as long as the rest."""
    reseed(*place, "epoch")
    set_epoch(epoch, *with_epochs)

    if draws_once(sampler):
        generator = getattr(sampler, "generator", None)
        reseed(*place, "order", also=[generator] if generator is not None else [])
        yield from _index_parts(sampler)
        return

    generators = own_generators(sampler)
    reseed(*place, "order", also=generators)
    items = iter(sampler)

    for number in itertools.count():
        reseed(*place, "order", number, also=generators)
        taken = list(itertools.islice(items, size))
        yield taken
        if len(taken) < size:
            return


def draws_once(sampler: Any) -> bool:
    """True if nothing is drawn after the first item; only known of torch's own samplers."""
    if type(sampler) is RandomSampler:
        return sampler.generator is None or _is_one_permutation(sampler)
    return type(sampler) in DRAW_ONCE


def _is_one_permutation(sampler: RandomSampler) -> bool:
    return not sampler.replacement and sampler.num_samples == len(sampler.data_source)


def _index_parts(sampler: Any) -> Iterator[Iterable[Any]]:
    """The indices of one of torch's own samplers, many at a time, with the same draws as in its __iter__."""
    if type(sampler) is RandomSampler and _is_one_permutation(sampler):
        generator = sampler.generator
        if generator is None:
            seed = int(torch.empty((), dtype=torch.int64).random_().item())
            generator = torch.Generator().manual_seed(seed)
        return _in_chunks(torch.randperm(sampler.num_samples, generator=generator))

    if type(sampler) is SubsetRandomSampler:
        order = torch.randperm(len(sampler.indices), generator=sampler.generator)
        return ([sampler.indices[index] for index in chunk] for chunk in _in_chunks(order))

    if type(sampler) is WeightedRandomSampler:
        order = torch.multinomial(
            sampler.weights, sampler.num_samples, sampler.replacement, generator=sampler.generator
        )
        return _in_chunks(order)

    if type(sampler) is DistributedSampler:
        return _in_chunks(_of_one_rank(sampler))

    return iter([sampler])


def _of_one_rank(sampler: DistributedSampler) -> torch.Tensor:
    """The indices that torch's own sampler for ranks gives its rank: every so many, from the start again at the end."""
    length = len(sampler.dataset)
    places = torch.arange(sampler.rank, max(sampler.rank, sampler.total_size), sampler.num_replicas)
    places.remainder_(length)
    if not sampler.shuffle:
        return places

    generator = torch.Generator().manual_seed(sampler.seed + sampler.epoch)
    return torch.randperm(length, generator=generator)[places]


def _in_chunks(order: torch.Tensor) -> Iterator[list[int]]:
    """The items of a tensor as Python integers, in lists that are made one after the other."""
    for start in range(0, len(order), CHUNK):
        yield order[start : start + CHUNK].tolist()
