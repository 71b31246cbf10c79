"""DataLoaders that can start at any batch of any epoch, with the same order and the same augmentation.

`exact_loader` puts an ExactLoader around a DataLoader. Its samples are loaded by a second, inner DataLoader with the
same options, which hands each batch of indices to CountedDataset (workers.py) together with its place in the run.
Without a restart, order and values are those of the loader that the user wrote, up to how random numbers are drawn.

How the loaders of a DataModule become exact: sources.py. Streams: streams.py. The order of an epoch: orders.py. Which
rank gets which samples: ranks.py.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from .orders import drawn
from .randomness import reseed
from .ranks import Share, knows_ranks
from .workers import CountedDataset, Tasks, WorkerStart, as_it_is

# Options of the given DataLoader that the inner one gets too. Not in_order: what was loaded out of order when a run was
# killed would be lost, or loaded twice.
COPIED_OPTIONS = (
    "num_workers", "pin_memory", "timeout", "multiprocessing_context", "prefetch_factor", "persistent_workers",
    "generator",
)  # fmt: skip


def tasks(items: Iterable[Any], place: tuple[Any, ...], first: int, done: int) -> Iterator[Any]:
    """Each batch of indices with its place.

    It holds no ExactLoader: in a circle of references, workers would outlive it.

    Args:
        items: all batches of a pass.
        place: of the pass on this rank.
        first: batches that are passed over.
        done: samples of the first batch after them that are left out.
    """
    for number, item in itertools.islice(enumerate(items), first, None):
        if done and number == first:
            item = item[done:]
        yield (*place, number), item


class ExactLoader:
    """A DataLoader that can start at any batch of any epoch, with the same order and the same augmentation.

    It asks the given loader's sampler for the epoch's order with all generators seeded from (seed, epoch), shares it
    out among the ranks as DistributedSampler does, unless the sampler does so itself, and skips the batches already
    done without loading them. In evaluation no sample is repeated for that. Any sampler or batch sampler is fine that
    takes its order from generators, or from set_epoch; one that remembers anything else from epoch to epoch is not.

    If the loader is of a class with an __iter__ of its own, that is what makes the batches. The batches already done
    are then loaded again, since only it knows what it makes of them.

    It is not a DataLoader, so Lightning leaves it alone, and nothing is fetched before the first batch is asked for: by
    then a checkpoint's counters are loaded (Lightning #20550, #21938). Whatever else it is asked for, it asks the given
    loader: dataset, sampler, batch_sampler, num_workers, collate_fn.

    Args:
        loader: any DataLoader over a dataset with __getitem__.
        seed: the run's seed for training.
        stage: keeps the draws of train, val and test loaders apart.
        rank: this process, 0 … world_size − 1.
        world_size: processes that share the data.
        also: further generators, which are seeded when a batch is handed over: those of the model, for what it does
            with a batch before the training step.
        at_handover: whether generators are seeded when a batch is handed over; False if nothing is done with it between
            that and the training step, which seeds them again. See sources.draws_at_handover.
    """

    # Whether it begins anew when it ends before the epoch does, because another loader is longer.
    cycled = True

    def __init__(
        self,
        loader: DataLoader,
        seed: int,
        stage: str = "train",
        rank: int = 0,
        world_size: int = 1,
        also: Iterable[Any] = (),
        at_handover: bool = True,
    ) -> None:
        self.loader, self.seed, self.stage, self.rank, self.world_size = loader, seed, stage, rank, world_size
        self.also, self.at_handover = also, at_handover
        self._saved: dict[str, Any] = {}  # sizes, when the checkpoint was written
        self._done_of_batch = 0  # samples of the next pass's first batch that are done already
        self._tasks = Tasks()
        self._read_order()

        options = {name: getattr(loader, name) for name in COPIED_OPTIONS}
        self._inner = DataLoader(
            self._counted_dataset(),
            batch_size=None,  # it returns whole batches
            sampler=self._tasks,
            collate_fn=as_it_is,
            worker_init_fn=WorkerStart(loader.worker_init_fn),
            **options,
        )
        self._own_iter = type(loader).__iter__ is not DataLoader.__iter__
        self.seek(0)

    def _read_order(self) -> None:
        """Find out where the order comes from, and who shares it out among the ranks."""
        loader = self.loader
        self._sampler = loader.batch_sampler
        self._batch_of, drop_last = None, False
        if loader.batch_sampler is None:
            self._sampler = loader.sampler

        # Torch's own batch sampler is redone here, because ranks share samples, not batches. A batch sampler of the
        # user's, or a dataset that makes batches itself, is asked for whole batches.
        elif type(loader.batch_sampler) is BatchSampler:
            self._sampler = loader.batch_sampler.sampler
            self._batch_of, drop_last = loader.batch_sampler.batch_size, loader.batch_sampler.drop_last

        self._size = self._batch_of or getattr(self._sampler, "batch_size", None)
        shared = self.world_size > 1 and not knows_ranks(self._sampler)
        self._share = Share(self.rank, self.world_size if shared else 1, self._batch_of, drop_last)
        self.equal_on_ranks = self.world_size == 1 or shared or isinstance(self._sampler, DistributedSampler)
        if not self.equal_on_ranks:
            rank_zero_warn(
                f"The samples of {self.stage} are not shared out among the ranks here: {type(self._sampler).__name__} "
                "knows the number of ranks, and does so itself."
            )

        if not self.stage.startswith("train"):
            self._take_each_once()

    def _take_each_once(self) -> None:
        """Let no sample of an evaluation count twice; say so where that can't be."""
        total = sized_len(self._sampler)
        repeated = self._share.take_each_once(total)
        if repeated:
            items = "batches" if self._batch_of is None else "samples"
            rank_zero_warn(
                f"The {total} {items} of {self.stage} can't be shared out evenly among {self.world_size} ranks: "
                f"{repeated} of them count twice in the metrics. One process counts each once: --trainer.devices 1."
            )

    def _counted_dataset(self) -> Any:
        return CountedDataset(
            self.loader.dataset, batched=self.loader.batch_sampler is not None, collate_fn=self.loader.collate_fn
        )

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)  # while it is being made or copied
        return getattr(self.loader, name)

    def __len__(self) -> int:
        """Batches per epoch on this rank.

        Raises:
            TypeError: the sampler has no length.
        """
        if type(self.loader).__len__ is not DataLoader.__len__:
            batches = len(self.loader)
            return -(-batches // self._share.world_size)
        return self._share.batches(len(self._sampler))

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass start at this batch of this epoch.

        Args:
            epoch: number of the epoch.
            batch: batches done in it. If the loader is passed several times in an epoch, because another one is longer,
                they are those of all passes.
        """
        self.epoch = epoch
        self._turn, self._first = 0, batch

        length = sized_len(self)
        if self.cycled and length:
            self._turn, self._first = divmod(batch, length)

    def __iter__(self) -> Iterator[Any]:
        place = (self.seed, self.stage, self.epoch, self._turn)
        first = self._first

        # The pass after this one, if there is one in the same epoch, has an order of its own and starts at 0.
        self._turn += 1
        self._first = 0

        batches = self._from_user(place, first) if self._own_iter else self._from(place, first)
        if not self.at_handover:
            yield from batches
            return

        number = first
        for batch in batches:
            # What is done with the batch next, such as augmentation on the GPU, comes before any hook of the step.
            reseed(*place, self.rank, number, "batch", also=self.also)
            yield batch
            number += 1

        # Of a loader without a length Lightning asks for the next batch before it hands over this one: the last batch,
        # too, must find generators that were seeded here, and not what the step before it has left of them.
        reseed(*place, self.rank, number, "batch", also=self.also)

    def _from(self, place: tuple[Any, ...], first: int) -> Iterator[Any]:
        """The batches of one pass from the number `first` on."""
        return self._answers(self._placed(place, first))

    def _answers(self, items: Iterable[Any]) -> Iterator[Any]:
        """What the inner loader makes of one task after the other."""
        # All that it does here, without its own time per batch, which is about that of seeding the generators.
        if not self._inner.num_workers and not self._inner.pin_memory:
            return map(self._inner.dataset.__getitem__, items)

        self._tasks.items = items
        return iter(self._inner)

    def _from_user(self, place: tuple[Any, ...], first: int) -> Iterator[Any]:
        """The same, by the __iter__ of the user's own class: torch's part of it gets the inner loader's batches."""
        loader = self.loader
        self._tasks.items = self._placed(place, 0)
        self._tasks.asked = False
        iterator = iter(loader)

        for number in itertools.count():
            reseed(*place, self.rank, number, "loader", also=self.also)
            try:
                vars(loader)["_get_iterator"] = lambda: iter(self._inner)
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                del vars(loader)["_get_iterator"]

            if number == 0 and not self._tasks.asked:
                rank_zero_warn(
                    f"The {self.stage} data can't be resumed exactly: {type(loader).__name__} doesn't get its batches "
                    "from DataLoader.__iter__. After a restart in the middle of an epoch, its order is another one."
                )
            if number >= first:
                yield batch

    def _placed(self, place: tuple[Any, ...], first: int) -> Iterator[Any]:
        """The tasks of one pass on this rank: (place, indices), or (place, whatever a sampler of the user's yields)."""
        done, self._done_of_batch = self._done_of_batch, 0

        with_epochs = (self.loader.batch_sampler, self.loader.sampler)
        at_once = (self._batch_of or 1) * self._share.world_size
        items = drawn(self._sampler, place, at_once, self.epoch, with_epochs)
        batches = self._share.of(items, sized_len(self._sampler))
        return tasks(batches, (*place, self.rank), first, done)

    # The position follows from the run's counters. Lightning looks for these two to know that a loader can start in
    # the middle of an epoch, and keeps what the first returns.

    def state_dict(self) -> dict[str, Any]:
        return dict(batch_size=self._size, ranks=self.world_size)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state

    @property
    def sizes_changed(self) -> bool:
        """True if batches had another size, or another number of ranks had shared them, at the checkpoint."""
        return bool(self._saved.get("batch_size")) and self._saved != self.state_dict()

    @property
    def counts_samples(self) -> bool:
        """True if this loader can continue after so many samples; one that makes batches in its own way can't."""
        return self._batch_of is not None and not self._own_iter

    def batches_done(self, batches: int) -> int:
        """Batches of today's size that are done, if so many were done when the checkpoint was written.

        The epoch continues after the samples that were done: a batch of which a part is done is cut.
        """
        samples = batches * self._saved["batch_size"] * self._saved["ranks"] // self.world_size
        done, self._done_of_batch = divmod(samples, self._batch_of)
        return done

    # Persistent workers, under the name by which Lightning finds and ends them when a run ends in any way.

    @property
    def _iterator(self) -> Any:
        return self._inner._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._inner._iterator = iterator
        self.loader._iterator = iterator
