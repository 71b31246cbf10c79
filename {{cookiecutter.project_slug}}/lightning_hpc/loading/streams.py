"""Streams, that is IterableDatasets, that can be resumed in the middle of an epoch.

A stream has no order to be asked for: what comes next is known only where it is read, in each worker. So each worker is
given one task per batch, as for any other dataset, and reads its next batch then. Together with every few batches it
sends the state of its dataset (`state_dict`), so that the main process knows, for the batch at which a run is cut, how
far each worker was. After a restart each worker loads its state (`load_state_dict`) and reads what is missing up to the
cut. A stream without a state is read again from the epoch's beginning, without collating what is passed over.

A pass must begin at the stream's own beginning, and be the same again if the generators are: what a stream remembers
from one epoch to the next is not known here.
"""

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .generators import own_generators, reachable
from .loaders import ExactLoader
from .randomness import reseed

STATE_EVERY = 8  # batches of a worker; so many are read again at most
KEPT_POSITIONS = 4  # the newest ones: Lightning fetches one batch ahead


class CountedStream(Dataset):
    """Reads the next batch of a stream for each task, with all generators seeded from its place first.

    Args:
        dataset: the stream.
        batch_size: samples per batch; None if the stream makes batches itself.
        drop_last: whether a shorter batch at the end is dropped.
        collate_fn: makes a batch of samples.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        batch_size: int | None,
        drop_last: bool,
        collate_fn: Callable[[Any], Any],
    ) -> None:
        self.dataset, self.batch_size, self.drop_last, self.collate_fn = dataset, batch_size, drop_last, collate_fn
        self._pass: int | None = None
        self._own_start: Any = None  # the state that a stream had before another one was loaded

    def __getitem__(self, task: tuple[int, tuple[Any, ...], dict[str, Any] | None] | None) -> tuple[Any, ...]:
        """One answer to one task.

        Args:
            task: number of the pass, its place, and, with a worker's first task in it, where this worker starts; None:
                nothing is to be read, because another worker is the next.

        Returns:
            (worker, batches it has read in this pass, pickled state or None, batch), or (worker,) at the stream's end,
            or ().
        """
        if task is None:
            return ()

        number, place, start = task
        if number != self._pass:
            self._pass = number
            self._begin(place, start or {})

        samples = self._read()
        if samples is None:
            return (self._worker,)

        state = None
        if self._batches % STATE_EVERY == 0 and not self._ended:
            state = self._state()
        return self._worker, self._batches, state, self.collate_fn(samples)

    def _begin(self, place: tuple[Any, ...], start: dict[str, Any]) -> None:
        """Begin a pass, and read up to where this worker was."""
        info = get_worker_info()
        self._worker = 0 if info is None else info.id
        self._place = (*place, self._worker)
        self._batches = 0
        self._ended = start.get("ended", False)

        # A stream that has once been told where to start would start there in each pass.
        if self._own_start is not None:
            self.dataset.load_state_dict(self._own_start)
            self._own_start = None

        self._has_state = has_state(self.dataset)
        self._generators = own_generators(self.dataset, self.collate_fn)
        reseed(*self._place, "begin", also=self._generators)

        if start.get("state") is not None:
            self._own_start = pickle.loads(pickle.dumps(self.dataset.state_dict()))
            self.dataset.load_state_dict(start["state"])
            self._batches = start["state_batches"]

        self._samples = iter(self.dataset)
        while self._batches < start.get("batches", 0) and not self._ended:
            self._read()

    def _read(self) -> Any:
        """The samples of this worker's next batch; None at the end."""
        if self._ended:
            return None
        reseed(*self._place, self._batches, also=self._generators)

        samples: Any = []
        try:
            if self.batch_size is None:
                samples = next(self._samples)
            else:
                while len(samples) < self.batch_size:
                    samples.append(next(self._samples))
        except StopIteration:
            self._ended = True
            too_few = self.drop_last or not samples
            if too_few:
                return None

        self._batches += 1
        return samples

    def _state(self) -> bytes | None:
        """The state of the stream after the batches that it has read, pickled; None if it has none that is whole."""
        if not self._has_state:
            return None
        return pickle.dumps(self.dataset.state_dict())  # a copy, which pinning memory leaves as it is


def has_state(dataset: Any) -> bool:
    """True if a dataset can say where it is, and start there without a loss."""
    if not hasattr(dataset, "state_dict") or not hasattr(dataset, "load_state_dict"):
        return False

    # The state of Hugging Face's streams leaves out what is in a shuffle buffer.
    module = sys.modules.get("datasets.iterable_dataset")
    buffers = getattr(module, "BufferShuffledExamplesIterable", None)
    return buffers is None or not reachable([dataset], (buffers,))


def stream_tasks(number: int, place: tuple[Any, ...], start: dict[str, Any]) -> Iterator[Any]:
    """Tasks without an end: they go to the workers in turn, and the pass ends when all streams have.

    Args:
        number: of the pass.
        place: its place in the run.
        start: the worker that is the next, and where each one starts.
    """
    # The workers before the next one have had their turn.
    for worker, state in enumerate(start["workers"]):
        yield None if worker < start["next"] else (number, place, state)
    for worker, state in enumerate(start["workers"]):
        yield number, place, state if worker < start["next"] else None

    while True:
        yield number, place, None


class ExactStream(ExactLoader):
    """A DataLoader over an IterableDataset that can start in the middle of an epoch.

    Batches come in the order of the given loader: the workers take turns, without those that have come to their end.
    Streams are not shared out among the ranks here, as DataLoader doesn't either: each rank reads what its own stream
    gives it.
    """

    def _read_order(self) -> None:
        self._size = self.loader.batch_size
        self._shared = False
        self.equal_on_ranks = self.world_size == 1
        self._workers = max(self.loader.num_workers, 1)
        self._passes = 0
        self._start: dict[str, Any] | None = None

    def _counted_dataset(self) -> CountedStream:
        loader = self.loader
        return CountedStream(loader.dataset, loader.batch_size, loader.drop_last, loader.collate_fn)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def counts_samples(self) -> bool:
        return self._size is not None

    def batches_done(self, batches: int) -> int:
        return batches * self._saved["batch_size"] // self._size

    def seek(self, epoch: int, batch: int = 0) -> None:
        super().seek(epoch, batch)
        self._yielded = batch
        self._positions: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT_POSITIONS)

        start, self._start, self._next_start = self._start, None, None
        if start is not None and batch:
            self._turn, self._first, self._next_start = start["turn"], start["batch"], start

    # The position in a checkpoint

    def position(self, batches: int) -> dict[str, Any] | None:
        """Where each worker was when so many batches of the epoch had been handed over; None if that is not known.

        Returns:
            the turn, the batches handed over in it, the worker that is the next, and for each worker: batches read, its
            newest state, the batches read before that state, and whether it has ended.
        """
        position = dict(self._positions).get(batches)
        if position is None:
            return None

        workers = [dict(state) for state in position["workers"]]
        for worker in workers:
            if "state" in worker:
                worker["state"] = pickle.loads(worker["state"])
        return position | dict(workers=workers)

    def start_at(self, position: dict[str, Any] | None) -> None:
        """Let the next `seek` to the middle of an epoch start at a position of an earlier attempt."""
        if position is not None and len(position["workers"]) != self._workers:
            rank_zero_warn(
                f"The stream of {self.stage} had {max(len(position['workers']), 1)} workers, and has {self._workers} "
                "now, which read it in another order: the run continues, but not to the bit as without a restart."
            )
            position = None
        self._start = None if self.sizes_changed else position

    # One pass

    def _from(self, place: tuple[Any, ...], first: int) -> Iterator[Any]:
        start, self._next_start = self._next_start, None
        passed_over = 0
        if start is None:
            # Without a position, what was done is read again, by whichever workers there are.
            start = dict(next=0, workers=[dict() for _ in range(self._workers)])
            passed_over = first
        if first:
            rank_zero_warn(self._what_is_read_again(start, passed_over))

        self._passes += 1
        answers = self._answers(stream_tasks(self._passes, (*place, self.rank), start))
        workers = [dict(state) for state in start["workers"]]
        for worker in workers:
            if "state" in worker:
                worker["state"] = pickle.dumps(worker["state"])
        handed_over = first - passed_over

        for answer in answers:
            if not answer:
                continue
            worker = answer[0]
            if len(answer) == 1:
                workers[worker]["ended"] = True
                if all(state.get("ended") for state in workers):
                    return
                continue

            _, batches, state, batch = answer
            workers[worker]["batches"] = batches
            if state is not None:
                workers[worker] |= dict(state=state, state_batches=batches)

            handed_over += 1
            if passed_over:
                passed_over -= 1
                continue

            self._yielded += 1
            position = dict(
                turn=place[3],
                batch=handed_over,
                next=(worker + 1) % self._workers,
                workers=[dict(state) for state in workers],
            )
            self._positions.append((self._yielded, position))
            yield batch

    def _what_is_read_again(self, start: dict[str, Any], passed_over: int) -> str:
        """The line that says what a restart in the middle of an epoch costs."""
        name = type(self.loader.dataset).__name__
        workers = start["workers"]
        again = sum(state.get("batches", 0) - state.get("state_batches", 0) for state in workers) + passed_over
        return (
            f"The stream of {self.stage} ({name}) continues in the middle of an epoch: {again} batches are read again, "
            "without training on them."
        )
