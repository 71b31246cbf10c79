"""A restart: what Lightning's loops are told after a checkpoint is loaded, because they would guess otherwise.

All of it is called by exact_resume.py. Much is private to Lightning; private_names.py lists it.
"""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, BatchSizeFinder, LearningRateFinder, ModelPruning, Timer
from lightning.pytorch.loops.evaluation_loop import RestartStage as EvaluationRestartStage
from lightning.pytorch.loops.fit_loop import RestartStage
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.parsing import lightning_setattr

from ..loading import sources


def count_reloads(trainer: Trainer, validation_epoch: float | None) -> None:
    """Let reload_dataloaders_every_n_epochs count on from where it was.

    Args:
        trainer: the Trainer, which has just made its loaders.
        validation_epoch: when the last ones for validation were made before the checkpoint; None if that is not known.
    """
    trainer.fit_loop._last_train_dl_reload_epoch = sources.epoch_of_loaders(trainer)
    if validation_epoch is not None:
        trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = validation_epoch


def count_batches(trainer: Trainer) -> None:
    """Count the batches that are done in today's batch size."""
    counts = trainer.fit_loop.epoch_loop.batch_progress.current
    counts.completed = sources.batches_done(trainer.train_dataloader, counts.completed)
    counts.ready = counts.started = counts.processed = counts.completed


def fetch_again(trainer: Trainer) -> None:
    """Let go of what was fetched ahead before the loaders knew where to start.

    Lightning does so when it sets the loaders up, if they have no length, and keeps it for the first epoch and after a
    restart.
    """
    fit_loop = trainer.fit_loop
    fetcher = fit_loop._data_fetcher
    is_kept = trainer.current_epoch == 0 or fit_loop.is_resuming or fit_loop.epoch_loop.restarting
    if is_kept and fetcher.length is None:
        iter(fetcher)


def begin_epoch_again(trainer: Trainer) -> None:
    """Let the epoch begin again for all hooks: on_train_epoch_start may set what depends on it.

    Only the hooks: the epoch loop has its own counters, which tell it how many batches are done.
    """
    fit_loop = trainer.fit_loop
    for counts in (fit_loop.epoch_progress.total, fit_loop.epoch_progress.current):
        counts.ready = counts.started = counts.processed = counts.completed

    fit_loop._restart_stage = RestartStage.NONE
    fit_loop._restarting = False  # otherwise schedulers miss their step at the end of this epoch


def next_logged_step(trainer: Trainer) -> int:
    """The step of the next row that Lightning logs, after a checkpoint that was written at any place of a batch.

    Lightning counts rows by itself, one behind the optimizer's steps where the checkpoint was written after a step.
    """
    return min(trainer.global_step, trainer.fit_loop.epoch_loop._batches_that_stepped + 1)


def skip_finetuning(trainer: Trainer) -> None:
    """Let the callbacks that thaw a backbone pass over the beginning of an epoch that begins again.

    They have acted in it already: they add parameters to an optimizer, and raise a learning rate from its last value.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, BaseFinetuning):
            _pass_over(callback, "on_train_epoch_start")


# Callbacks of Lightning's that do not resume exactly, and why.
INEXACT: dict[type[Callback], str] = {
    ModelPruning: "Lightning's checkpoints have no masks, so after a restart weights that were pruned can come back",
    Timer: "it counts the time of earlier attempts, too, so a run that it has stopped stops again at once",
}


def warn_of_inexact(trainer: Trainer) -> None:
    """Name the callbacks that do not resume exactly, before a restart shows it."""
    for callback in trainer.callbacks:
        for kind, reason in INEXACT.items():
            if isinstance(callback, kind):
                rank_zero_warn(f"{type(callback).__name__} does not resume exactly: {reason}.")


def found_by_finders(trainer: Trainer) -> dict[str, Any]:
    """The batch size that a BatchSizeFinder has found, by the name of its setting."""
    found = {}
    for callback in trainer.callbacks:
        if isinstance(callback, BatchSizeFinder) and callback.optimal_batch_size is not None:
            found[callback._batch_arg_name] = callback.optimal_batch_size
    return found


def skip_finders(trainer: Trainer, found: dict[str, Any]) -> None:
    """Let the finders of batch size and learning rate, which have done their work, not do it again.

    The learning rate is in the checkpoint, with the optimizer.

    Args:
        trainer: the Trainer, before on_fit_start.
        found: what `found_by_finders` has returned.
    """
    for name, value in found.items():
        lightning_setattr(trainer.lightning_module, name, value)
    for callback in trainer.callbacks:
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            _pass_over(callback, "on_fit_start")


def _pass_over(callback: Callback, hook: str) -> None:
    """Let a callback's hook do nothing when it is called next."""

    def nothing(*_: Any) -> None:
        delattr(callback, hook)  # from now on the method of the class

    setattr(callback, hook, nothing)


def decide_on_validation(trainer: Trainer, repeat: bool) -> None:
    """Answer in Lightning's place, before the first batch of a restarted epoch, whether a validation was missed.

    Lightning guesses, and can be wrong. None was missed, because a checkpoint is cut after the validation, unless it
    was cut in one.

    Args:
        trainer: the Trainer, before its epoch loop runs.
        repeat: True if the run was cut in a validation. Lightning then asks twice: whether to validate in place of the
            next batch, and, as after any batch, whether to validate now.
    """
    epoch_loop = trainer.fit_loop.epoch_loop
    answers = [False]
    if repeat:
        answers = [True, True]
        epoch_loop.val_loop._restart_stage = EvaluationRestartStage.RESTARTED_MID_EVALUATION
        epoch_loop.val_loop._restarting = False

    def should_check_val(fetcher: Any) -> bool:
        answer = answers.pop(0)
        if not answers:
            del epoch_loop._should_check_val_fx  # from now on the method of the class
        return answer

    epoch_loop._should_check_val_fx = should_check_val
