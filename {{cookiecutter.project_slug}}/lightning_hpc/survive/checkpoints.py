"""When to save, what to keep, and how to end a run: the callback Checkpoints.

    checkpoints = Checkpoints(every_n_steps=500, every_n_minutes=15)
    checkpoints.on_save.append(listener)        # on rank 0, for each whole checkpoint: dict(step=…, epoch=…, size=…)
    trainer = Trainer(callbacks=[ExactResume(seed), checkpoints], enable_checkpointing=False, default_root_dir=folder)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=found and found.path, weights_only=True)
    except Stopped as stopped:                  # by a signal (signals.py); its checkpoint is saved
        ...

A save copies in memory what it holds. A thread writes the copy while training goes on, and the checkpoint counts when
it is whole on disk. There is one thread at most: the next save, a signal, and the end of training wait for it. With
several ranks, or a strategy that writes by itself, training waits for each save (saving/).

What the files are called, and how they are found again: checkpoint_files.py. How one is written: checkpoint_io.py.
What is in it: exact_resume.py.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins import DoublePrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn

from .. import signals
from ..loading.loaders import ExactLoader
from ..signals import Stopped
from ..values.ranks import agree, share_buffers, together
from .checkpoint_files import CheckpointError, remove_parts, whole_one
from .checkpoint_io import AtomicCheckpointIO
from .exact_resume import check_place
from .monitor import Best
from .saving.one_save import Save, copy_for_thread, too_late
from .saving.publish import Publisher


class Checkpoints(Callback):
    """Saves every N steps or minutes, whichever is first, after the best validation, on a signal, and at the end.

    It must be the second of the Trainer's callbacks, after ExactResume.

    Args:
        every_n_steps: optimizer steps between two saves; None: only minutes count.
        every_n_minutes: minutes between two saves; None: only steps count. Work that a SIGKILL can cost at most.
        monitor: metric that decides which checkpoint is the best; null: none is.
        mode: `min` if the best value of it is the smallest, `max` if it is the largest; default: what torchmetrics or
            the metric's name says. A NaN is never the best.
        keep: how many of the newest checkpoints to keep; with only 1 there is none to go back to when it is damaged.
        full_disk: what to do when a checkpoint can't be written: `go on` without it, or `stop` with the error. Without
            the last one, a run has failed either way.
        background: whether training goes on while a checkpoint is written, from a copy that takes as much memory as the
            checkpoint has bytes until then. Where there is no room for it, training waits.
        config: what meta.json says the run's settings are: a path or an identity.

    Attributes:
        on_save: called in this order on rank 0, when a checkpoint is whole and has its names, with what meta.json says
            about it; by the thread that has written it, and never twice at once.
        best: best value of the monitored metric so far.
        loaded: step and epoch of the checkpoint that was loaded; {} if none was.
    """

    def __init__(
        self,
        every_n_steps: int | None = 500,
        every_n_minutes: float | None = 15,
        monitor: str | None = "val/loss",
        mode: Literal["min", "max"] | None = None,
        keep: int = 2,
        full_disk: Literal["go on", "stop"] = "go on",
        background: bool = True,
        config: str | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: at least 1 checkpoint must be kept")
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.keep, self.full_disk, self.config = keep, full_disk, config
        self.background = background
        self.on_save: list[Callable[[dict[str, Any]], Any]] = []
        self.best = Best(monitor, mode)
        self.loaded: dict[str, int] = {}
        self._pending: Save | None = None  # the save that is being written
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Right after ExactResume: a checkpoint is cut before any other hook of a batch has run.
        check_place(self, 1, trainer)

        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

        # Lightning loads a checkpoint first and makes the model double then: digits of its weights would be lost.
        if isinstance(trainer.precision_plugin, DoublePrecision):
            pl_module.double()

        signals.keep()
        if signals.installed():  # Lightning's own handlers save or raise in the middle of a step
            trainer._signal_connector.register_signal_handlers = lambda: None

        self.best.callbacks = trainer.callbacks
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        self._publisher = Publisher(self.folder, self.keep)
        for callback in trainer.callbacks:
            # Its default is a folder named after the first logger, or the one of the run's own checkpoints.
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.folder.with_name("added_checkpoints"))
        if stage == TrainerFn.FITTING and trainer.is_global_zero:
            remove_parts(self.folder)

    def state_dict(self) -> dict[str, Any]:
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.load_state_dict(state_dict)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = dict(step=checkpoint["global_step"], epoch=checkpoint["epoch"])

    def forget_best(self) -> None:
        """Let the next validation be the best so far: the one that was belongs to another run's checkpoint."""
        self.best.load_state_dict(dict(best_value=None, best_due=False, best_saved=None))

    # When to save, and when to stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.keep()
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx < 2 or batch_idx % 50 == 0:  # it takes 5 µs; most libraries are loaded by the first batch
            signals.keep()

        self.settle(wait=False)
        due = self._is_due(trainer)
        reason = signals.received()
        if trainer.world_size > 1:
            due, reason = agree(trainer, due, reason)

        if due or reason:
            self.save(trainer, wait=reason is not None)
        if reason:
            raise Stopped(reason)

    def _is_due(self, trainer: Trainer) -> bool:
        """True if it is time for a save, by steps or by minutes, or if the newest weights are the best."""
        if self.best.due:
            return True
        if self.every_n_steps is not None and trainer.global_step - self._saved_step >= self.every_n_steps:
            return True
        if self.every_n_minutes is None:
            return False
        return time.monotonic() - self._saved_time >= 60 * self.every_n_minutes

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop in the middle of a validation too, which can be long; it is repeated after the restart."""
        reason = signals.received()
        in_training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

        if in_training and trainer.world_size > 1:
            loaders = CombinedLoader(trainer.val_dataloaders).flattened
            if not all(isinstance(loader, ExactLoader) and loader.equal_on_ranks for loader in loaders):
                return  # ranks may have different numbers of batches here, so they can't agree
            _, reason = agree(trainer, False, reason)

        if not reason:
            return
        if in_training:
            # It validates with the averaged weights in place of the model's; at the end of a validation it swaps back.
            for callback in trainer.callbacks:
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)
            self.save(trainer, wait=True)
        raise Stopped(reason)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether these weights are the best so far; they are saved at the next batch start, still unchanged."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            # The next weights are held against a best that is on disk, not against one that may fail to get there.
            if self._pending is not None and self._pending.is_best:
                self.settle(wait=True)
            self.best.validated(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, wait=True, last=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Whatever ends the run, what is being written is worth waiting for."""
        try:
            self.settle(wait=True)
        except Exception as error:  # the first cause counts
            rank_zero_warn(str(error))

    # How to save

    def save(self, trainer: Trainer, wait: bool = False, last: bool = False) -> None:
        """Write a checkpoint, on all ranks together.

        Args:
            trainer: the Trainer.
            wait: whether it must be on disk when this returns.
            last: True at the end of training. A run that can't save its result is not done, whatever `full_disk` says.

        Raises:
            CheckpointError: it, or the one before, could not be read again; or it can't be written, and `full_disk` is
                `stop` or it is the last one.
        """
        self.settle(wait=True)
        # Of what is the same on all ranks, a strategy that writes a folder may take any rank's.
        share_buffers(trainer, trainer.lightning_module)
        save = Save(trainer, self.best, self._publisher, self.config, self.on_save)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

        with signals.undisturbed():
            problem, stop = together(trainer, partial(save.prepare, checkpoint))
            in_background = problem is None and self.background and not wait and self._begin(save, checkpoint)
            if problem is None and not in_background:
                problem, stop = save.write(checkpoint)

        # A failed save is not tried again at once but when the next one is due.
        self._saved_step, self._saved_time = save.step, time.monotonic()
        self.best.settle(saved=problem is None)
        self._conclude(save, problem, stop or last)

    def _begin(self, save: Save, checkpoint: dict[str, Any]) -> bool:
        """Let a thread write a copy of a checkpoint, where that can be; True if it does."""
        copy, reason = copy_for_thread(save.trainer, checkpoint)
        if copy is not None:
            try:
                save.begin(copy)
                self._pending = save
                return True
            except RuntimeError as error:
                reason = str(error)

        if reason is not None:
            self._warn_once("waits", f"training waits while a checkpoint is written: {reason}")
        return False

    def settle(self, wait: bool) -> None:
        """Learn how the save that a thread writes has ended, if there is one.

        Args:
            wait: whether to wait for its end.

        Raises:
            CheckpointError: as `save`.
        """
        save = self._pending
        if save is None or not (wait or save.done):
            return

        self._pending = None
        problem, stop = save.wait()
        if problem is not None and save.is_best:
            self.best.lose(save.best_before)
        self._conclude(save, problem, stop)

    def _conclude(self, save: Save, problem: str | None, stop: bool) -> None:
        """Warn of a save that has failed, or end the run."""
        if problem is None:
            late = too_late(save.entry.get("seconds", 0))
            if late is not None:
                self._warn_once("late", late)
            return

        self._publisher.forget()
        problem = (
            f"checkpoint of step {save.step} could not be written: {problem} ({save.path}); {whole_one(self.folder)}"
        )
        if stop or self.full_disk == "stop":
            raise CheckpointError(problem)
        rank_zero_warn(f"{problem}; the run continues")

    def _warn_once(self, what: str, line: str) -> None:
        if what not in self._warned:
            rank_zero_warn(line)
        self._warned.add(what)
