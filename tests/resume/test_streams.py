"""Streams: in the order of the user's loader, and the same from any batch on, with any number of workers."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lightning_hpc.loading.sources import exact_loader
from lightning_hpc.loading.streams import STATE_EVERY, ExactStream

LENGTH = 103


class Stream(IterableDataset):
    """Numbers with noise; a worker reads every so many of them. It has no state."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length
        self.start = 0
        self.read = 0  # samples read in this process

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        # Worker 0 has more to read than the others.
        for number in range(worker, self.length + (40 if worker == 0 else 0), workers):
            if number < self.start:
                continue
            self.read += 1
            self.place = number + 1
            yield torch.tensor([number, random.random()], dtype=torch.float64)


class WithState(Stream):
    """It can start where it was."""

    def state_dict(self) -> dict:
        return dict(place=getattr(self, "place", 0))

    def load_state_dict(self, state: dict) -> None:
        self.start = state["place"]


class OddState(WithState):
    """Its state is no plain data."""

    def state_dict(self) -> dict:
        return dict(place={getattr(self, "place", 0)})

    def load_state_dict(self, state: dict) -> None:
        (self.start,) = state["place"]


def epoch(loader: ExactStream, number: int, first: int = 0) -> list:
    loader.seek(number, first)
    return list(loader)


def as_lists(batches: list) -> list:
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(
    "options", [dict(), dict(drop_last=True), dict(num_workers=3), dict(num_workers=2, drop_last=True)]
)
@pytest.mark.parametrize("size", [4, None])
def test_the_order_is_that_of_the_users_loader(options, size):
    if size is None:
        options = {name: value for name, value in options.items() if name != "drop_last"}
    stock = [batch[..., 0].tolist() for batch in DataLoader(Stream(), size, **options)]
    exact = exact_loader(DataLoader(Stream(), size, **options), 0, "train")
    assert isinstance(exact, ExactStream)
    for number in (0, 1):
        assert [batch[..., 0].tolist() for batch in epoch(exact, number)] == stock


@pytest.mark.filterwarnings("ignore:The stream of")
@pytest.mark.parametrize("kind", [Stream, WithState])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_continues_where_each_worker_was(kind, workers):
    def loader() -> ExactStream:
        persistent = workers == 1
        return exact_loader(DataLoader(kind(), 2, num_workers=workers, persistent_workers=persistent), 0, "train")

    first = loader()
    whole = as_lists(epoch(first, 2))

    for batches in (1, 5, 23, len(whole) - 1):
        first.seek(2)
        reading = iter(first)
        for _ in range(batches + 1):  # Lightning has fetched one more when it saves
            batch = next(reading)
        position = json.loads(json.dumps(first.position(batches)))
        reading.close()

        second = loader()
        second.start_at(position)
        assert as_lists(epoch(second, 2, batches)) == whole[batches:]

        # The next epoch begins at its beginning again.
        if workers == 0:
            assert as_lists(epoch(second, 2)) == whole
    assert batch is not None


@pytest.mark.parametrize("kind", [Stream, WithState])
def test_a_state_saves_reading(kind):
    first = exact_loader(DataLoader(kind(), 2), 0, "train")
    first.seek(0)
    reading = iter(first)
    for _ in range(3 * STATE_EVERY + 3):
        next(reading)

    second = exact_loader(DataLoader(kind(), 2), 0, "train")
    second.start_at(first.position(3 * STATE_EVERY + 2))
    second.seek(0, 3 * STATE_EVERY + 2)
    expected = 2 if kind is WithState else 3 * STATE_EVERY + 2
    with pytest.warns(UserWarning, match=f"middle of an epoch: {expected} batches are read again"):
        next(iter(second))
    assert second.dataset.read == 2 * (expected + 1)


def test_without_a_position_a_stream_is_read_again():
    loader = exact_loader(DataLoader(Stream(), 2, num_workers=2), 0, "train")
    whole = as_lists(epoch(loader, 1))
    with pytest.warns(UserWarning, match="7 batches are read again"):
        assert as_lists(epoch(loader, 1, 7)) == whole[7:]


def test_another_number_of_workers_is_said():
    loader = exact_loader(DataLoader(Stream(), 2, num_workers=2), 0, "train")
    with pytest.warns(UserWarning, match="had 1 workers, and has 2 now"):
        loader.start_at(dict(turn=0, batch=3, next=0, workers=[dict(batches=3)]))


@pytest.mark.filterwarnings("ignore:The stream of")
def test_a_state_that_is_no_plain_data_is_left_out():
    from lightning_hpc.survive.exact_resume import plain_positions

    loader = exact_loader(DataLoader(OddState(), 2), 0, "train")
    whole = as_lists(epoch(loader, 0))
    reading = iter(loader)
    loader.seek(0)
    for _ in range(2 * STATE_EVERY):
        next(reading)
    with pytest.warns(UserWarning, match="no plain data, so a restart reads the stream again"):
        (position,) = plain_positions([loader.position(2 * STATE_EVERY)])
    assert position["workers"] == [dict(batches=2 * STATE_EVERY)]
    loader.start_at(position)
    assert as_lists(epoch(loader, 0, 2 * STATE_EVERY)) == whole[2 * STATE_EVERY :]


@pytest.mark.slow  # importing it takes seconds
@pytest.mark.filterwarnings("ignore:The stream of")
@pytest.mark.parametrize("shuffled", [False, True])
def test_streams_of_hugging_face(shuffled):
    datasets = pytest.importorskip("datasets")

    def made() -> Any:
        def numbers(shards: list) -> Iterator[dict]:
            for shard in shards:
                for number in range(20):
                    yield dict(number=100 * shard + number)

        stream = datasets.IterableDataset.from_generator(numbers, gen_kwargs=dict(shards=[0, 1, 2]))
        stream = stream.map(lambda row: dict(number=row["number"] + 1))
        return stream.shuffle(seed=0, buffer_size=10) if shuffled else stream

    def loader() -> ExactStream:
        return exact_loader(DataLoader(made(), 2), 0, "train")

    def texts(batches: list) -> list:
        return [batch["number"].tolist() for batch in batches]

    first = loader()
    assert isinstance(first, ExactStream)
    whole = texts(epoch(first, 0))
    if not shuffled:
        assert whole == texts(list(DataLoader(made(), 2)))

    first.seek(0)
    reading = iter(first)
    for _ in range(21):
        next(reading)
    second = loader()
    second.start_at(json.loads(json.dumps(first.position(20))))
    assert texts(epoch(second, 0, 20)) == whole[20:]
    assert texts(epoch(second, 0)) == whole


def test_a_stream_with_an_iter_of_its_loaders_own_is_said_to_be_inexact():
    class Own(DataLoader):
        def __iter__(self):
            yield from super().__iter__()

    loader = Own(Stream())
    with pytest.warns(UserWarning, match="can't be resumed exactly: it is a stream, and Own has an __iter__"):
        assert exact_loader(loader, 0, "train") is loader


@pytest.mark.parametrize("first", [1, 10, 11])
def test_the_last_batch_finds_the_generators_that_it_would_have_found(first):
    """Lightning asks a loader without a length for the next batch before it hands over this one."""

    def drawn_before_each_step(first):
        loader = exact_loader(DataLoader(Stream(8), 4, num_workers=1), 0, "train")
        loader.seek(0, first)
        batches, drawn = iter(loader), []
        following = next(batches)
        while following is not None:
            following = next(batches, None)
            drawn.append(random.random())
            random.seed(first)  # whatever the step leaves behind
        return drawn

    whole = drawn_before_each_step(0)
    assert len(whole) == 12 and drawn_before_each_step(first) == whole[first:]
