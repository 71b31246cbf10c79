"""Makes the loaders of a DataModule exact, whatever it returns: one, lists, dicts, or a CombinedLoader of them."""

import contextlib
import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities import apply_to_collection
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, IterDataPipe, SequentialSampler

from .loaders import ExactLoader
from .randomness import reseed
from .streams import ExactStream

# What may be done with a batch between its hand-over and the training step.
TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")

STEPS = ("training_step", "validation_step", "test_step")


def exact_loader(
    loader: Any,
    seed: int,
    stage: str,
    rank: int = 0,
    world_size: int = 1,
    also: Iterable[Any] = (),
    at_handover: bool = True,
) -> Any:
    """The loader as an ExactLoader, or as it is, with a warning, if it can't start in the middle of an epoch.

    Args:
        loader: whatever a *_dataloader method returns for one loader.
        seed: the run's seed for training.
        stage: keeps the draws of several loaders apart.
        rank: this process.
        world_size: processes that share the data.
        also: generators of the model.
        at_handover: whether generators are seeded when a batch is handed over too.
    """
    if not isinstance(loader, DataLoader):
        return loader

    kind = type(loader)
    is_stream = isinstance(loader.dataset, IterableDataset)
    own_iter = kind.__iter__ is not DataLoader.__iter__
    reason = None
    if kind._get_iterator is not DataLoader._get_iterator:
        reason = f"{kind.__name__} makes its batches in a way of its own"
    elif isinstance(loader.dataset, IterDataPipe):
        reason = "it is an IterDataPipe"
    elif is_stream and own_iter:
        reason = f"it is a stream, and {kind.__name__} has an __iter__ of its own"

    if reason is not None:
        rank_zero_warn(
            f"The {stage} data can't be resumed exactly: {reason}. After a restart in the middle of an epoch, its "
            "order starts from the beginning."
        )
        return loader

    if is_stream:
        return ExactStream(loader, seed, stage, rank, world_size, also, at_handover)
    return ExactLoader(loader, seed, stage, rank, world_size, also, at_handover)


def draws_at_handover(trainer: Trainer) -> bool:
    """True if random numbers may be drawn between the hand-over of a batch and the step, before which all is seeded.

    That is so where the DataModule or the model has a hook for batches that are transferred, or a step that takes
    batches itself. Otherwise seeding twice would only cost time: 8 µs, where a batch of small tensors takes 30.
    """
    model, data = trainer.lightning_module, trainer.datamodule
    if any(is_overridden(hook, source) for source in (data, model) for hook in TRANSFER_HOOKS):
        return True

    steps = [getattr(model, name) for name in STEPS if hasattr(model, name)]
    return any("dataloader_iter" in inspect.signature(step).parameters for step in steps)


def make_exact(source: Any, seed: int, also: Iterable[Any] = ()) -> None:
    """Make the train, val and test loaders of a LightningDataModule or LightningModule exact, in place.

    Predict loaders are left alone: Lightning tracks their indices in a way of its own.

    Args:
        source: the DataModule or model.
        seed: the run's seed for training.
        also: generators that are seeded when a batch is handed over.
    """
    for stage in ("train", "val", "test"):
        name = f"{stage}_dataloader"
        method = getattr(source, name)
        already_exact = hasattr(method, "__wrapped__")
        if is_overridden(name, source) and not already_exact:
            setattr(source, name, _exact_method(method, source, seed, stage, also))


def _exact_method(
    method: Callable[[], Any], source: Any, seed: int, stage: str, also: Iterable[Any]
) -> Callable[[], Any]:
    """A *_dataloader method whose loaders are exact."""

    @functools.wraps(method)
    def exact_loaders() -> Any:
        trainer = source.trainer
        at_handover = draws_at_handover(trainer)
        number = itertools.count()  # two train loaders of one length must not have the same order

        def exact(loader: Any) -> Any:
            if trainer.overfit_batches and stage != "test" and isinstance(loader, DataLoader):
                loader = in_order(loader)
            name = f"{stage} {next(number)}"
            return exact_loader(loader, seed, name, trainer.global_rank, trainer.world_size, also, at_handover)

        with as_at_first(trainer) as epoch:
            reseed(seed, stage, "loaders", epoch)
            loaders = method()

        if not isinstance(loaders, CombinedLoader):
            loaders = apply_to_collection(loaders, DataLoader, exact)
            flattened, mode = CombinedLoader(loaders).flattened, "max_size_cycle"
        else:
            loaders.flattened = [exact(loader) for loader in loaders.flattened]
            flattened, mode = loaders.flattened, loaders._mode

        for loader in flattened:
            if isinstance(loader, ExactLoader):
                loader.cycled = mode == "max_size_cycle" and len(flattened) > 1
        return loaders

    return exact_loaders


def epoch_of_loaders(trainer: Trainer) -> int:
    """The epoch at which a run that was never interrupted would have asked for the loaders that it has now."""
    if trainer.state.fn != TrainerFn.FITTING or not trainer.reload_dataloaders_every_n_epochs:
        return 0
    return trainer.current_epoch - trainer.current_epoch % trainer.reload_dataloaders_every_n_epochs


@contextlib.contextmanager
def as_at_first(trainer: Trainer) -> Iterator[int]:
    """Let `trainer.current_epoch` say what it has said when these loaders were first made, before a restart."""
    epoch = epoch_of_loaders(trainer)
    progress = trainer.fit_loop.epoch_progress.current
    now = progress.completed
    if trainer.state.fn == TrainerFn.FITTING:
        progress.completed = epoch
    try:
        yield epoch
    finally:
        progress.completed = now


def in_order(loader: DataLoader) -> DataLoader:
    """The same loader without shuffling, as Lightning makes it for overfit_batches."""
    if isinstance(loader.dataset, IterableDataset):
        return loader

    # DataLoader refuses new samplers after it has been made.
    changed = copy.copy(loader)
    sampler = SequentialSampler(loader.dataset)
    vars(changed)["sampler"] = sampler
    if type(loader.batch_sampler) is BatchSampler:
        old = loader.batch_sampler
        vars(changed)["batch_sampler"] = BatchSampler(sampler, old.batch_size, old.drop_last)
    elif hasattr(loader.batch_sampler, "sampler"):
        vars(changed)["batch_sampler"] = copy.copy(loader.batch_sampler)
        changed.batch_sampler.sampler = sampler
    return changed


def flat(loaders: Any) -> list[Any]:
    """The loaders in a collection, such as Trainer.train_dataloader."""
    if loaders is None:
        return []
    return CombinedLoader(loaders).flattened


def seek(loaders: Any, epoch: int, batch: int = 0) -> None:
    """Let the exact loaders in a collection start at this batch of this epoch."""
    for loader in flat(loaders):
        if isinstance(loader, ExactLoader):
            loader.seek(epoch, batch)


def positions(loaders: Any, batches: int) -> list[dict[str, Any] | None]:
    """Where the streams in a collection were when so many batches had been handed over."""
    return [loader.position(batches) for loader in flat(loaders) if isinstance(loader, ExactStream)]


def start_at(loaders: Any, saved: list[dict[str, Any] | None]) -> None:
    """Tell the streams in a collection where they were; before `seek`."""
    streams = [loader for loader in flat(loaders) if isinstance(loader, ExactStream)]
    if len(streams) == len(saved):
        for stream, position in zip(streams, saved, strict=True):
            stream.start_at(position)


def batches_done(loaders: Any, batches: int) -> int:
    """Batches that are done, in today's batch size, if so many were done when the checkpoint was written.

    Says so if that changes: samples count, not batches. With several loaders batches count, since each may have
    another size.
    """
    exact = [loader for loader in flat(loaders) if isinstance(loader, ExactLoader)]
    changed = [loader for loader in exact if loader.sizes_changed]
    if not changed or not batches:
        return batches

    if len(exact) > 1 or not exact[0].counts_samples:
        rank_zero_warn(
            "The batch size or the number of ranks has changed in the middle of an epoch. With several loaders, or "
            f"batches made in a way of your own, the epoch continues after the {batches} batches that are done, in the "
            "new size: in this epoch samples may be seen twice, or not at all."
        )
        return batches

    done = exact[0].batches_done(batches)
    rank_zero_warn(
        "The batch size or the number of ranks has changed in the middle of an epoch, which continues after the "
        f"samples that are done: at batch {done} of the new size, not {batches}."
    )
    return done
