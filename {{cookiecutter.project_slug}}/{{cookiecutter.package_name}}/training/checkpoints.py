"""When to save, what to keep, and how to end: the callback Checkpoints, and the plugin that writes whole files or none.

    checkpoints = Checkpoints(every_n_steps=500, every_n_minutes=15)
    checkpoints.on_save = lambda entry: ...     # on rank 0, after each save: dict(step=…, epoch=…, metrics=…, size=…)
    trainer = Trainer(callbacks=[ExactResume(seed), checkpoints], enable_checkpointing=False, default_root_dir=folder)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=found and found.path, weights_only=True)
    except Stopped as stopped:                  # by a signal (signals.py); its checkpoint is saved
        ...

What the files are called, and how they are found again: checkpoint_files.py.
"""

import hashlib
import math
import pickle
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn

from . import signals
from .checkpoint_files import CheckpointError, atomic_write, give_name, read_meta, step_files, sync_folder, write_meta
from .metrics_file import MetricsFile
from .randomness import ExactLoader
from .resume import ExactResume
from .signals import Stopped


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target and renames it when it is on disk; reads plain data only.

    `written` has the size and SHA-256 of the file written last.
    """

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}
        self._read_back = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file; OSError if the disk is full, and what was there before is still there."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            stream = HashedStream(file)
            torch.save(checkpoint, stream)
            if stream.error is not None:
                raise stream.error
        self.written = dict(size=stream.size, sha256=stream.hash.hexdigest())
        if not self._read_back:  # once: a checkpoint that can't be read must be noticed now, not at the restart
            self.load_checkpoint(path, mmap=True)
            self._read_back = True

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True, mmap: bool = False
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU: tensors, numbers, strings, lists, dicts; a pickle of more can run any code."""
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except (pickle.UnpicklingError, RuntimeError) as error:
            strange = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
            why = f"it holds a {strange[1]}, which is no plain data" if strange else str(error).splitlines()[0]
            raise CheckpointError(f"can't read checkpoint {path}: {why}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class HashedStream:
    """A file for torch.save that hashes what is written and keeps errors: torch would hide that the disk is full."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.hash.update(data)
                self.size += len(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass


class Checkpoints(Callback):
    """Saves every so many steps or minutes, whichever is first, after the best validation, on a signal, and at the end.

    Args:
        every_n_steps: optimizer steps between two saves; None: only minutes count.
        every_n_minutes: minutes between two saves; None: only steps count. Work that a SIGKILL can cost at most.
        monitor: metric that decides which checkpoint is the best.
        mode: whether the best value of it is the smallest or the largest. A NaN is never the best.
        keep: how many of the newest checkpoints to keep; with only 1 there is none to go back to when it is damaged.
        full_disk: what to do when a checkpoint can't be written: `go on` without it, or `stop` with the error.
        config: what meta.json says the run's settings are: a path or an identity.
    """

    def __init__(
        self,
        every_n_steps: int | None = 500,
        every_n_minutes: float | None = 15,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        keep: int = 2,
        full_disk: Literal["go on", "stop"] = "go on",
        config: str | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: at least 1 checkpoint must be kept")
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.monitor, self.mode, self.keep = monitor, mode, keep
        self.full_disk, self.config = full_disk, config
        self.on_save: Callable[[dict[str, Any]], Any] | None = None
        self.best_value: float | None = None
        self._best_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(trainer.callbacks[0], ExactResume):
            raise CheckpointError("Checkpoints needs ExactResume before it in the list of callbacks")
        trainer.callbacks.remove(self)
        trainer.callbacks.insert(1, self)  # a checkpoint is cut before any other hook of a batch has run
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        signals.keep()
        if signals.installed():  # Lightning's own handlers save or raise in the middle of a step
            trainer._signal_connector.register_signal_handlers = lambda: None
        self.folder = Path(trainer.default_root_dir) / "checkpoints"

    def state_dict(self) -> dict[str, Any]:
        return dict(best_value=self.best_value, best_due=self._best_due)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out what `save_hyperparameters` has put in and could not be read again safely, such as classes."""
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            values = checkpoint.get(key, {})
            if strange := [name for name, value in values.items() if not is_plain(value)]:
                rank_zero_warn(f"checkpoints leave out {key} that are no plain data: {', '.join(strange)}")
                checkpoint[key] = {name: value for name, value in values.items() if name not in strange}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Due again if a kill may have come between writing the file and naming it best.ckpt.
        self.best_value, self._best_due = state_dict["best_value"], state_dict["best_due"]

    # When to save, and when to stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.keep()
        self._step, self._time = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx < 2 or batch_idx % 50 == 0:  # it takes 5 µs; most libraries are loaded by the first batch
            signals.keep()
        steps, seconds = trainer.global_step - self._step, time.monotonic() - self._time
        due = (
            self._best_due
            or (self.every_n_steps is not None and steps >= self.every_n_steps)
            or (self.every_n_minutes is not None and seconds >= 60 * self.every_n_minutes)
        )
        reason = signals.received()
        if trainer.world_size > 1:
            due, reason = agree(trainer, due, reason)
        if due or reason:
            self.save(trainer)
        if reason:
            raise Stopped(reason)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop in the middle of a validation too, which can be long; it is repeated after the restart."""
        reason = signals.received()
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and trainer.world_size > 1:
            loaders = CombinedLoader(trainer.val_dataloaders).flattened
            if not all(isinstance(loader, ExactLoader) for loader in loaders):
                return  # ranks may have different numbers of batches here, so they can't agree
            _, reason = agree(trainer, False, reason)
        if not reason:
            return
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            for callback in trainer.callbacks:
                if isinstance(callback, WeightAveraging):  # validates with the averaged weights in place of the model's
                    callback.on_validation_epoch_end(trainer, pl_module)
            self.save(trainer)
        raise Stopped(reason)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether these weights are the best so far; they are saved at the next batch start, still unchanged."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            rank_zero_warn(f"No best checkpoint: nothing logs {self.monitor}, only {sorted(trainer.callback_metrics)}.")
            return
        value, best = float(trainer.callback_metrics[self.monitor]), self.best_value
        if not math.isnan(value) and (best is None or (value < best if self.mode == "min" else value > best)):
            self.best_value, self._best_due = value, True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    # How to save

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint, on all ranks together.

        Raises:
            CheckpointError: it could not be read again; or it can't be written and `full_disk` is `stop`.
        """
        started, step = time.monotonic(), trainer.global_step
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        path, problem, stop = self.folder / f"step-{step:08d}.ckpt", None, self.full_disk == "stop"
        try:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.sync()  # the rows that a checkpoint counts must be on disk before it is
            trainer.strategy.save_checkpoint(checkpoint, path)
            if trainer.is_global_zero:
                self._name(path, self._entry(trainer, path, started))
        except OSError as error:
            problem = f"checkpoint of step {step} could not be written: {error.strerror or error} ({path})"
        except CheckpointError as error:
            problem, stop = str(error), True
        problem, stop = trainer.strategy.broadcast((problem, stop))  # from rank 0, which writes; waits for it too
        self._step, self._time, self._best_due = step, time.monotonic(), self._best_due and problem is not None
        if problem and stop:
            raise CheckpointError(problem)
        if problem:
            rank_zero_warn(f"{problem}; the one before it is still there, and the run goes on")

    def _entry(self, trainer: Trainer, path: Path, started: float) -> dict[str, Any]:
        """What meta.json says about a checkpoint; metrics that are not finite are null: JSON has no word for them."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return dict(
            file=path.name,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            metrics={name: value if math.isfinite(value) else None for name, value in sorted(values.items())},
            **getattr(trainer.strategy.checkpoint_io, "written", {}),
            saved=datetime.now().astimezone().isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            config=self.config,
        )

    def _name(self, path: Path, entry: dict[str, Any]) -> None:
        """Rank 0: point last and best to the new file, drop old files, and bring meta.json up to date."""
        meta = read_meta(self.folder)
        give_name(path, self.folder / "last.ckpt")
        if self._best_due:
            give_name(path, self.folder / "best.ckpt")
            meta["best"] = entry | dict(monitor=self.monitor, mode=self.mode, value=self.best_value)
        # What lies ahead of this step is damaged, or of a future that was left by going back to an older checkpoint.
        files = step_files(self.folder)
        kept = [step for step in files if step <= entry["step"]][-self.keep :]
        entries = [
            *(old for old in meta.get("kept", []) if old["step"] in kept and old["step"] != entry["step"]),
            entry,
        ]
        write_meta(self.folder, dict(last=entry, best=meta.get("best"), kept=entries))
        for step in set(files) - set(kept):
            files[step].unlink()
        sync_folder(self.folder)
        if self.on_save is not None:
            self.on_save(entry)


def agree(trainer: Trainer, due: bool, reason: str | None) -> tuple[bool, str | None]:
    """The same answer on all ranks: a save is due when rank 0 finds so, a signal to any rank stops all."""
    reasons = [None, *signals.REASONS.values()]
    wish = torch.tensor([due and trainer.is_global_zero, reasons.index(reason)], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
    return bool(wish[0]), reasons[int(wish[1])]


def is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, strings, tensors, lists and dicts alone, which torch.load reads safely."""
    if type(value) is dict:
        return all(is_plain(part) for part in (*value.keys(), *value.values()))
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in (str, int, float, bool, type(None), torch.Tensor, torch.Size, torch.dtype)


def load_weights(model: LightningModule, path: str | Path, strict: bool = True) -> str:
    """Start a run from the weights of another (warm start); its optimizer, schedules and counters are not taken over.

    For the first attempt only: a restart goes on from the run's own checkpoint.

    Args:
        model: the model, already built.
        path: a checkpoint, or a file of weights alone (name → tensor).
        strict: whether all names and shapes must match; otherwise what matches is loaded.

    Returns:
        one line that says what was loaded and what was not.

    Raises:
        CheckpointError: the file can't be read, doesn't match (strict), or has nothing that matches.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint to start from: {path} is not a file")
    saved = AtomicCheckpointIO().load_checkpoint(path)
    saved, own = saved.get("state_dict", saved), model.state_dict()
    fits = {name: value for name, value in saved.items() if name in own and own[name].shape == value.shape}
    left_out = [*(f"{name} (not in the file)" for name in own if name not in saved)]
    left_out += [f"{name} (not in the model)" for name in saved if name not in own]
    left_out += [f"{name} (other shape)" for name in saved if name in own and name not in fits]
    if left_out and (strict or not fits):
        raise CheckpointError(
            f"{path} does not fit the model: {', '.join(left_out[:5])}; --init_strict false loads what fits"
        )
    model.load_state_dict(fits, strict=False)
    return f"weights from {path}: {len(fits)} of {len(own)} tensors" + (
        f", without {', '.join(left_out)}" if left_out else ""
    )
