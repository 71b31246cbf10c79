"""Counted randomness: every random draw is a function of (seed, where in the run), so there is no state to save.

Storing the states of the random number generators is not enough to resume exactly: DataLoader workers have their own,
have fetched ahead when a run is killed, and start anew with each epoch. Instead all generators are seeded from a hash
of the place before each batch is loaded (here, in whichever process loads it) and before each step (resume.py). Any
number of workers, and any number of restarts, then sees the same draws.

Nothing to wire: the callback ExactResume wraps the loaders of the DataModule or LightningModule with `make_exact`.
"""

import functools
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities import apply_to_collection
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset

from . import signals


def reseed(*place: Any, also: Iterable[Any] = ()) -> None:
    """Seed random, NumPy, torch and the GPU of this process from a hash of the place; 7 µs on a CPU.

    Args:
        place: anything with a stable repr: numbers and strings.
        also: further generator objects, see `own_generators`.
    """
    digest = blake2b(repr(place).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed does this too, but takes 1 ms
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    for generator in also:
        if isinstance(generator, random.Random):
            generator.seed(seed)
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(seed).state


def own_generators(thing: Any, depth: int = 4) -> list[Any]:
    """The generator objects that a dataset, its transforms, or a sampler holds: seeding the global ones misses them.

    Looks into attributes, short lists and dicts, `depth` levels down.
    """
    found: dict[int, Any] = {}

    def look(value: Any, levels: int) -> None:
        if isinstance(value, random.Random | np.random.Generator | torch.Generator):
            found[id(value)] = value
        elif levels == 0 or isinstance(value, torch.Tensor | np.ndarray | str | bytes | int | float | type | None):
            return
        elif isinstance(value, list | tuple):
            for item in value[:100]:
                look(item, levels - 1)
        else:
            for item in list((value if isinstance(value, dict) else getattr(value, "__dict__", {})).values())[:100]:
                look(item, levels - 1)

    look(thing, depth)
    return list(found.values())


class CountedDataset(Dataset):
    """Loads the samples of a (place, indices) pair, with all generators seeded from the place first.

    A batch is always loaded by one process, so seeding once per batch makes transforms and collate_fn reproducible.

    Args:
        dataset: the dataset, with __getitem__ or __getitems__.
        batched: whether a pair holds the indices of a batch, or one index of a dataset that makes batches itself.
    """

    def __init__(self, dataset: Dataset, batched: bool) -> None:
        self.dataset, self.batched = dataset, batched
        self._generators: list[Any] | None = None  # found in the process that uses them

    def __getitem__(self, item: tuple[tuple[Any, ...], Any]) -> Any:
        place, indices = item
        if self._generators is None:
            self._generators = own_generators(self.dataset)
        reseed(*place, also=self._generators)
        if not self.batched:
            return self.dataset[indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]


class Plan:
    """What the inner DataLoader is to load: a sampler whose list is exchanged before each pass over the data."""

    def __init__(self) -> None:
        self.todo: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.todo)


class WorkerStart:
    """worker_init_fn: lets spawned workers survive the batch system's signals, as forked ones do, then calls yours."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        signals.put_in_place()
        if self.then is not None:
            self.then(worker)


class ExactLoader:
    """A DataLoader that can start at any batch of any epoch, with the same order and the same augmentation.

    It asks the given loader's sampler for the epoch's order with all generators seeded from (seed, epoch), shares it
    out among the ranks as DistributedSampler does, and skips the batches already done without loading them. Any sampler
    or batch sampler is fine that takes its order from torch's, NumPy's or Python's generators, from generators it
    holds, or from set_epoch; one that remembers anything else from epoch to epoch is not.

    It is not a DataLoader, so Lightning leaves it alone, and nothing is fetched before the first batch is asked for: by
    then a checkpoint's counters are loaded (Lightning #20550, #21938).

    Args:
        loader: any DataLoader over a dataset with __getitem__.
        seed: the run's seed for training.
        stage: keeps the draws of train, val and test loaders apart.
        rank: this process, 0 … world_size − 1.
        world_size: processes that share the data.
    """

    def __init__(self, loader: DataLoader, seed: int, stage: str = "train", rank: int = 0, world_size: int = 1) -> None:
        self.seed, self.stage, self.rank, self.world_size = seed, stage, rank, world_size
        self.dataset, self.batch_size = loader.dataset, loader.batch_size
        # Torch's own batch sampler is redone here, because ranks share samples; another one makes the batches itself.
        self._chunk = loader.batch_size if type(loader.batch_sampler) is BatchSampler else None
        self._drop_last = loader.drop_last
        self._sampler = loader.sampler if self._chunk or loader.batch_sampler is None else loader.batch_sampler
        self._shared = world_size > 1 and not isinstance(self._sampler, DistributedSampler)
        self._generators = own_generators(self._sampler, depth=1)
        self._plan = Plan()
        options = "num_workers collate_fn pin_memory timeout multiprocessing_context prefetch_factor"
        options += " persistent_workers in_order"
        self._inner = DataLoader(
            CountedDataset(loader.dataset, batched=loader.batch_sampler is not None),
            batch_size=None,  # CountedDataset returns a whole batch of samples
            sampler=self._plan,
            worker_init_fn=WorkerStart(loader.worker_init_fn),
            **{name: getattr(loader, name) for name in options.split() if hasattr(loader, name)},
        )
        self.seek(0)

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        items = -(-len(self._sampler) // self.world_size) if self._shared else len(self._sampler)
        if self._chunk is None:
            return items
        return items // self._chunk if self._drop_last else -(-items // self._chunk)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass start at this batch of this epoch. The one after it starts at 0, as its next turn."""
        self.epoch = epoch
        self._turn, self._first = divmod(batch, max(len(self), 1))

    def __iter__(self) -> Iterator[Any]:
        place, first = (self.seed, self.stage, self.epoch, self._turn), self._first
        self._turn, self._first = self._turn + 1, 0
        batches = enumerate(self._batches(place))
        self._plan.todo = [((*place, self.rank, number), batch) for number, batch in batches if number >= first]
        yield from self._inner

    def _batches(self, place: tuple[Any, ...]) -> list[Any]:
        """All batches of one pass on this rank: lists of indices, or whatever a sampler of the user's yields."""
        reseed(*place, "order", also=self._generators)
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(self.epoch)
        order = list(self._sampler)
        if self._shared:  # filled up from the start, so that all ranks have the same number
            total = -(-len(order) // self.world_size) * self.world_size
            while len(order) < total:
                order += order[: total - len(order)]
            order = order[self.rank :: self.world_size]
        if self._chunk is None:
            return order
        chunks = [order[start : start + self._chunk] for start in range(0, len(order), self._chunk)]
        return chunks[: len(self)]  # without the last, ragged one if it is to be dropped

    # The position follows from the run's counters. Lightning asks for these to know that a loader can go on mid-epoch.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    @property
    def _iterator(self) -> Any:
        """Persistent workers, under the name by which Lightning finds and ends them when a run ends in any way."""
        return self._inner._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._inner._iterator = iterator


def exact_loader(loader: Any, seed: int, stage: str, rank: int = 0, world_size: int = 1) -> Any:
    """The loader as an ExactLoader, or as it is, with a warning, if it gives no random access to its samples."""
    if not isinstance(loader, DataLoader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.batch_sampler or loader.sampler, "__len__"):
        rank_zero_warn(
            f"The {stage} data can't be resumed exactly: {type(loader.dataset).__name__} is a stream, or its sampler "
            "has no length. After a restart in the middle of an epoch, its order starts from the beginning."
        )
        return loader
    return ExactLoader(loader, seed, stage, rank, world_size)


def make_exact(source: Any, seed: int) -> None:
    """Make the train, val and test loaders of a LightningDataModule or LightningModule exact, in place.

    Its *_dataloader methods may return a DataLoader, or lists, dicts or a CombinedLoader of them. Predict loaders are
    left alone: Lightning tracks their indices in a way of its own.
    """
    for stage in ("train", "val", "test"):
        name = f"{stage}_dataloader"
        method = getattr(source, name)
        if is_overridden(name, source) and not hasattr(method, "__wrapped__"):
            setattr(source, name, _wrapped(method, source, seed, stage))


def _wrapped(method: Callable[[], Any], source: Any, seed: int, stage: str) -> Callable[[], Any]:
    @functools.wraps(method)
    def loaders() -> Any:
        number = itertools.count()  # two train loaders of one length must not have the same order

        def exact(loader: Any) -> Any:
            return exact_loader(
                loader, seed, f"{stage} {next(number)}", source.trainer.global_rank, source.trainer.world_size
            )

        made = method()
        if isinstance(made, CombinedLoader):
            made.flattened = [exact(loader) for loader in made.flattened]
            return made
        return apply_to_collection(made, DataLoader, exact)

    return loaders


def seek(loaders: Any, epoch: int, batch: int = 0) -> None:
    """Let the exact loaders in a collection, such as Trainer.train_dataloader, go on at this batch of this epoch."""
    if loaders is not None:
        for loader in CombinedLoader(loaders).flattened:
            if isinstance(loader, ExactLoader):
                loader.seek(epoch, batch)
