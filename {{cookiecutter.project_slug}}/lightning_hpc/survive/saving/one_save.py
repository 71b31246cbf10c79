"""One save: from what Lightning has put together to a checkpoint that is whole, has its names, and is told of."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_warn

from ...files import finite
from ...values.ranks import together
from ..checkpoint_files import remove_checkpoint
from ..checkpoint_io import AtomicCheckpointIO
from ..metrics_file import MetricsFile
from ..monitor import Best
from ..whole import finish_folder
from .background import InBackground
from .copies import Copier, NotCopied, bytes_of, has_room
from .publish import Publisher

Listeners = Sequence[Callable[[dict[str, Any]], Any]]


class Save:
    """The save of the step that is done now.

    Args:
        trainer: the Trainer.
        best: the best value so far, and whether this checkpoint is to be the best.
        publisher: gives it its names in the run's checkpoints/.
        config: what meta.json says the run's settings are.
        listeners: called with the entry when the checkpoint is whole, on rank 0.

    Attributes:
        path: of the checkpoint.
        step: optimizer steps done.
        is_best: whether it is the best so far.
        best_before: the value of best.ckpt before it.
        entry: what meta.json says about it.
    """

    def __init__(
        self, trainer: Trainer, best: Best, publisher: Publisher, config: str | None, listeners: Listeners
    ) -> None:
        self.trainer, self.publisher, self.listeners = trainer, publisher, listeners
        self.started, self.step = time.monotonic(), trainer.global_step
        self.path = publisher.folder / f"step-{self.step:08d}.ckpt"
        self.is_best, self.best_before, self._best_entry = best.due, best.saved, best.entry()
        metrics = finite({name: float(value) for name, value in sorted(trainer.callback_metrics.items())})
        self.entry: dict[str, Any] = dict(
            file=self.path.name, step=self.step, epoch=trainer.current_epoch, metrics=metrics, config=config
        )
        self.entry["best_so_far"] = self._best_entry  # as it is now, not as it is when the thread is done
        self._thread: InBackground | None = None

    def prepare(self, checkpoint: dict[str, Any]) -> None:
        """Before a checkpoint is written, by the strategy or by its CheckpointIO."""
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.sync()  # the rows that a checkpoint counts must be on disk before it is

        # A strategy that writes a folder writes most of it by itself, so it gets what is plain.
        writer = self.trainer.strategy.checkpoint_io
        if isinstance(writer, AtomicCheckpointIO):
            plain = writer.make_plain(checkpoint)
            checkpoint.clear()
            checkpoint.update(plain)

        if self.path.is_dir() and self.trainer.is_global_zero:
            remove_checkpoint(self.path)  # of an attempt that was killed, or of a future that was left

    def write(self, checkpoint: dict[str, Any]) -> tuple[str | None, bool]:
        """Write it, on all ranks together; what `together` says of the first thing that fails.

        Args:
            checkpoint: what Lightning has put together, after `prepare`.
        """
        return self._act(partial(self.trainer.strategy.save_checkpoint, checkpoint, self.path))

    def begin(self, copy: dict[str, Any]) -> None:
        """Let a thread write a copy; `wait` has the answer.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        self.entry["stalled"] = self._seconds()
        write = partial(self.trainer.strategy.checkpoint_io.save_checkpoint, copy, self.path)
        self._thread = InBackground(partial(self._act, write))

    @property
    def done(self) -> bool:
        """True if nobody has to wait for the thread."""
        return self._thread is None or self._thread.done

    def wait(self) -> tuple[str | None, bool]:
        """How the thread has ended, as of `write`."""
        return self._thread.wait() if self._thread is not None else (None, False)

    def _act(self, write: Callable[[], Any]) -> tuple[str | None, bool]:
        # Ranks wait for each other while they write parts of it, so each action is for all of them or for none.
        for action in (write, self._publish):
            problem, would_again = together(self.trainer, action)
            if problem is not None:
                return problem, would_again
        return None, False

    def _publish(self) -> None:
        """On rank 0: give the file its names, and tell of it."""
        if not self.trainer.is_global_zero:
            return

        if self.path.is_dir():
            self.entry["size"] = finish_folder(self.path)
        else:
            self.entry |= getattr(self.trainer.strategy.checkpoint_io, "written", {})
        self.entry["saved"] = datetime.now().astimezone().isoformat(timespec="seconds")
        self.entry["seconds"] = self._seconds()
        self.entry.setdefault("stalled", self.entry["seconds"])
        self.publisher.publish(self.entry, self._best_entry if self.is_best else None)

        for listener in self.listeners:
            try:
                listener(self.entry)
            except OSError as error:
                rank_zero_warn(f"the checkpoint of step {self.step} is written but could not be noted: {error}")

    def _seconds(self) -> float:
        """Since it has begun."""
        return round(time.monotonic() - self.started, 3)


def copy_for_thread(trainer: Trainer, checkpoint: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """A copy of a checkpoint that a thread can write.

    Returns:
        the copy, or None: then training has to wait; and why, where that is not clear from the settings.
    """
    strategy = trainer.strategy
    own_way = type(strategy).save_checkpoint is not Strategy.save_checkpoint
    if trainer.world_size > 1 or own_way or type(strategy.checkpoint_io) is not AtomicCheckpointIO:
        return None, None

    size = bytes_of(checkpoint)
    if not has_room(size):
        return None, f"memory has no room for a copy of it ({size / 2**20:.0f} MiB)"
    try:
        return Copier().copied(checkpoint), None
    except (NotCopied, MemoryError, RuntimeError) as error:  # with the last torch says that there is no memory, too
        return None, " ".join(str(error).split()) or "memory has no room for a copy of it"


def too_late(seconds: float) -> str | None:
    """A line about a save that takes longer than the time between the batch system's signal and the end of the job.

    Args:
        seconds: what the last save took.
    """
    notice = os.environ.get("SIGNAL_SECONDS", "")  # the batch file says it
    if not notice.isdigit() or seconds <= int(notice):
        return None
    return (
        f"the last checkpoint took {seconds:.0f} s to write, and the job is told {notice} s before its time limit: the "
        "one that is written then may come too late. Ask for more with resources.signal_seconds"
    )
