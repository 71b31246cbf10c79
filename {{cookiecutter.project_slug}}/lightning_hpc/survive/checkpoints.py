"""When to save, what to keep, and how to end a run: the callback Checkpoints.

    checkpoints = Checkpoints(every_n_steps=500, every_n_minutes=15)
    checkpoints.on_save.append(listener)        # on rank 0, after each save: dict(step=…, epoch=…, metrics=…, size=…)
    trainer = Trainer(callbacks=[ExactResume(seed), checkpoints], enable_checkpointing=False, default_root_dir=folder)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=found and found.path, weights_only=True)
    except Stopped as stopped:                  # by a signal (signals.py); its checkpoint is saved
        ...

What the files are called, and how they are found again: checkpoint_files.py. How one is written: checkpoint_io.py.
What is in it: exact_resume.py.
"""

import math
import time
from collections.abc import Callable
from datetime import datetime
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
from ..files import sync_folder
from ..loading.loaders import ExactLoader
from ..signals import Stopped
from ..values.ranks import agree, share_buffers, together
from .checkpoint_files import (
    CheckpointError,
    give_name,
    read_meta,
    remove_checkpoint,
    remove_parts,
    step_files,
    whole_one,
    write_meta,
)
from .checkpoint_io import AtomicCheckpointIO
from .exact_resume import check_place
from .metrics_file import MetricsFile
from .monitor import Best
from .whole import finish_folder, is_complete


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
        config: what meta.json says the run's settings are: a path or an identity.

    Attributes:
        on_save: called on rank 0 after each save, in this order, with what meta.json says about the checkpoint.
        best: best value of the monitored metric so far.
    """

    def __init__(
        self,
        every_n_steps: int | None = 500,
        every_n_minutes: float | None = 15,
        monitor: str | None = "val/loss",
        mode: Literal["min", "max"] | None = None,
        keep: int = 2,
        full_disk: Literal["go on", "stop"] = "go on",
        config: str | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: at least 1 checkpoint must be kept")
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.keep, self.full_disk, self.config = keep, full_disk, config
        self.on_save: list[Callable[[dict[str, Any]], Any]] = []
        self.best = Best(monitor, mode)

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

        due = self._is_due(trainer)
        reason = signals.received()
        if trainer.world_size > 1:
            due, reason = agree(trainer, due, reason)

        if due or reason:
            self.save(trainer)
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
            self.save(trainer)
        raise Stopped(reason)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether these weights are the best so far; they are saved at the next batch start, still unchanged."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.best.validated(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, last=True)

    # How to save

    def save(self, trainer: Trainer, last: bool = False) -> None:
        """Write a checkpoint, on all ranks together.

        Args:
            trainer: the Trainer.
            last: True at the end of training. A run that can't save its result is not done, whatever `full_disk` says.

        Raises:
            CheckpointError: it could not be read again; or it can't be written, and `full_disk` is `stop` or it is the
                last one.
        """
        started, step = time.monotonic(), trainer.global_step
        path = self.folder / f"step-{step:08d}.ckpt"
        # Of what is the same on all ranks, a strategy that writes a folder may take any rank's.
        share_buffers(trainer, trainer.lightning_module)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

        # Ranks wait for each other while they write parts of it, so each action is for all of them or for none.
        for action in (
            partial(self._prepare, trainer, checkpoint, path),
            partial(trainer.strategy.save_checkpoint, checkpoint, path),
            partial(self._publish, trainer, path, started),
        ):
            with signals.undisturbed():
                problem, stop = together(trainer, action)
            if problem is not None:
                break

        # A failed save is not tried again at once but when the next one is due.
        self._saved_step, self._saved_time = step, time.monotonic()
        self.best.settle(saved=problem is None)
        if problem is None:
            return

        problem = f"checkpoint of step {step} could not be written: {problem} ({path}); {whole_one(self.folder)}"
        if stop or last or self.full_disk == "stop":
            raise CheckpointError(problem)
        rank_zero_warn(f"{problem}; the run continues")

    def _prepare(self, trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
        """Before a checkpoint is written, by the strategy or by its CheckpointIO."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.sync()  # the rows that a checkpoint counts must be on disk before it is

        # A strategy that writes a folder writes most of it by itself, so it gets what is plain.
        writer = trainer.strategy.checkpoint_io
        if isinstance(writer, AtomicCheckpointIO):
            plain = writer.make_plain(checkpoint)
            checkpoint.clear()
            checkpoint.update(plain)

        if path.is_dir() and trainer.is_global_zero:
            remove_checkpoint(path)  # of an attempt that was killed, or of a future that was left

    def _meta_entry(self, trainer: Trainer, path: Path, started: float) -> dict[str, Any]:
        """What meta.json says about a checkpoint."""
        if path.is_dir():
            written = dict(size=finish_folder(path))
        else:
            written = getattr(trainer.strategy.checkpoint_io, "written", {})

        metrics: dict[str, float | None] = {}
        for name, tensor in sorted(trainer.callback_metrics.items()):
            value = float(tensor)
            metrics[name] = value if math.isfinite(value) else None  # JSON has no word for NaN and infinity

        return dict(
            file=path.name,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            metrics=metrics,
            **written,
            saved=datetime.now().astimezone().isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            config=self.config,
        )

    def _publish(self, trainer: Trainer, path: Path, started: float) -> None:
        """On rank 0: point last and best to the new file, bring meta.json up to date, and drop old files.

        In this order, so that a kill in between leaves names that point to whole files.
        """
        if not trainer.is_global_zero:
            return
        entry = self._meta_entry(trainer, path, started)
        meta = read_meta(self.folder)
        best = self.folder / "best.ckpt"
        give_name(path, self.folder / "last.ckpt")
        if self.best.due:
            give_name(path, best)
            meta["best"] = entry | self.best.entry()

        # What lies ahead of this step is damaged, or of a future that was left by resuming from an older checkpoint.
        files = step_files(self.folder)
        kept = [step for step, file in files.items() if step <= entry["step"] and is_complete(file)][-self.keep :]

        entries = [old for old in meta.get("kept", []) if old["step"] in kept and old["step"] != entry["step"]]
        write_meta(self.folder, dict(last=entry, best=meta.get("best"), kept=[*entries, entry]))

        for step in set(files) - set(kept):
            if files[step].is_dir() and best.is_symlink() and files[step].samefile(best):
                continue  # a folder has no second name that would keep it
            remove_checkpoint(files[step])
        sync_folder(self.folder)

        for listener in self.on_save:
            try:
                listener(entry)
            except OSError as error:
                rank_zero_warn(f"the checkpoint of step {entry['step']} is written but could not be noted: {error}")
