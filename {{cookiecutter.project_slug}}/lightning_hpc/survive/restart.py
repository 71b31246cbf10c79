"""A restart: what Lightning's loops are told after a checkpoint is loaded, because they would guess otherwise.

All of it is called by exact_resume.py. Much is private to Lightning; private_names.py lists it.
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import RestartStage as EvaluationRestartStage
from lightning.pytorch.loops.fit_loop import RestartStage

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
