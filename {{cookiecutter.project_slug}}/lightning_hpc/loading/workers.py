"""What runs where samples are loaded: in a DataLoader's workers, or in the main process if there are none."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from .. import signals
from .generators import own_generators
from .randomness import reseed


class CountedDataset(Dataset):
    """Loads the batch of a (place, indices) pair, with all generators seeded from the place first.

    A batch is always loaded by one process, so seeding once per batch makes transforms and collate_fn reproducible.

    Args:
        dataset: the dataset, with __getitem__ or __getitems__.
        batched: True if a pair holds the indices of a batch; False if it holds one index of a dataset that makes
            batches itself.
        collate_fn: makes a batch of what the dataset returns.
    """

    def __init__(self, dataset: Dataset, batched: bool, collate_fn: Callable[[Any], Any]) -> None:
        self.dataset, self.batched, self.collate_fn = dataset, batched, collate_fn
        self._generators: list[Any] | None = None  # looked for in the process that uses them

    def __getitem__(self, item: tuple[tuple[Any, ...], Any]) -> Any:
        place, indices = item
        if self._generators is not None:
            return self._load(place, indices)

        self._generators = own_generators(self.dataset, self.collate_fn)
        batch = self._load(place, indices)

        # Some datasets make their generators when the first sample is loaded. They have drawn unseeded numbers then.
        before = self._generators
        self._generators = own_generators(self.dataset, self.collate_fn)
        if {id(generator) for generator in self._generators} - {id(generator) for generator in before}:
            batch = self._load(place, indices)
        return batch

    def _load(self, place: tuple[Any, ...], indices: Any) -> Any:
        """The samples of one batch, collated."""
        reseed(*place, also=self._generators or ())
        dataset = self.dataset

        if not self.batched:
            samples = dataset[indices]
        elif getattr(dataset, "__getitems__", None):
            samples = dataset.__getitems__(indices)
        else:
            samples = [dataset[index] for index in indices]
        return self.collate_fn(samples)


def as_it_is(batch: Any) -> Any:
    """The collate_fn of a loader whose dataset returns whole batches."""
    return batch


class Tasks:
    """A sampler whose items are exchanged before each pass over the data.

    A DataLoader keeps its sampler, and with persistent workers itself, from epoch to epoch.
    """

    def __init__(self) -> None:
        self.items: Iterable[Any] = ()
        self.asked = False  # whether this pass has been asked for them

    def __iter__(self) -> Iterator[Any]:
        self.asked = True
        return iter(self.items)


class WorkerStart:
    """worker_init_fn: lets spawned workers survive the batch system's signals, as forked ones do, then calls yours.

    Yours finds its own dataset in get_worker_info(), and not what is wrapped around it.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        signals.put_in_place()

        info = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.dataset)  # the class is frozen, for users

        if self.then is not None:
            self.then(worker)
