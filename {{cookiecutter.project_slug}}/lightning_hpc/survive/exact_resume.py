"""Exact resume: a run killed at any moment and started again ends bit-identical to one that was never interrupted.

    signals.install()                                   # first thing in the program: signals.py
    found = checkpoint_files.find_checkpoint(folder / "checkpoints")
    trainer = Trainer(
        callbacks=[ExactResume(seed=0), Checkpoints(every_n_steps=500), ...],
        enable_checkpointing=False, default_root_dir=folder, ...
    )
    trainer.fit(model, datamodule=data, ckpt_path=found and found.path, weights_only=True)

It rests on three things:

1. Randomness is counted. All generators are seeded from (seed, epoch, batch) before each step, and before each batch is
   loaded (loading/). There is no state of theirs to save.
2. A checkpoint is a clean cut. It is written at the START of a batch, when the last one is done with everything that
   follows it: optimizer, schedulers, validation, log rows. So nothing is lost and nothing is done twice. The only other
   place is in a validation, which can be long; it is then repeated from its first batch.
3. What Lightning forgets is kept (lightning_state.py): metrics in the middle of an epoch, running averages of logged
   values, what schedulers and early stopping look at, gradients in the middle of an accumulation.

The order of a restart: Lightning loads the weights, the optimizers and its counters. `on_train_start` corrects what it
then believes about the epoch. The rest is put back at the first batch or validation, when the hooks that begin the
epoch have run.

The version of Lightning is pinned because parts of it that are not public are used here. private_names.py lists them.
"""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from ..loading import sources
from ..loading.generators import own_generators
from ..loading.randomness import reseed
from ..values import attributes
from ..values.metric_states import attributes_now
from ..values.plain_data import is_plain
from ..values.ranks import gather_on_rank_0, share_buffers
from . import lightning_state
from .checkpoint_files import CheckpointError, is_own, step_files
from .metrics_file import MetricsFile
from .restart import (
    begin_epoch_again,
    count_batches,
    count_reloads,
    decide_on_validation,
    fetch_again,
    found_by_finders,
    next_logged_step,
    skip_finders,
    skip_finetuning,
    warn_of_inexact,
)

KEY = "exact_resume"  # our part of a checkpoint


class ExactResume(Callback):
    """Makes training restartable at every batch. It must be the first of the Trainer's callbacks.

    Args:
        seed: seed of everything random in training: order, augmentation, dropout. Initial weights have their own.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # First, so that generators are seeded, and a checkpoint is cut, before any other hook of a batch has run.
        check_place(self, 0, trainer)

        self._loaded: dict[str, Any] | None = None  # our part of the checkpoint, until it has been put back
        self._before_validation: dict[str, Any] | None = None  # what a validation that runs now has changed
        self._extra_step = 0
        self._generators: list[Any] = []  # those of the model and of the DataModule, which the loaders share
        self._at_start = attributes_now(pl_module)  # of its metrics, before anything is measured
        self._before_epochs: dict[attributes.Place, Any] | None = None  # fingerprints of its own attributes

        for source in (trainer.datamodule, pl_module):
            if source is not None:
                sources.make_exact(source, self.seed, self._generators)

    # Counted randomness

    def _find_generators(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for generators again: hooks may have made new ones."""
        self._generators[:] = own_generators(pl_module, trainer.datamodule)

    def _reseed(self, trainer: Trainer, *place: Any) -> None:
        reseed(self.seed, trainer.global_rank, *place, also=self._generators)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        loop.max_steps -= self._extra_step
        self._extra_step = 0
        self._find_generators(trainer, pl_module)

        # overfit_batches repeats the batches of the first epoch.
        epoch = 0 if trainer.overfit_batches else trainer.current_epoch
        batches_done = loop.batch_progress.current.completed if loop.restarting else 0
        if loop.restarting and self._loaded is not None and self._loaded["made_with"]["ranks"] == trainer.world_size:
            saved = self._loaded["ranks"][trainer.global_rank]
            sources.start_at(trainer.train_dataloader, saved.get("streams", []))
        sources.seek(trainer.train_dataloader, epoch, batches_done)
        fetch_again(trainer)

        # What changes from now on is kept. Between two epochs it is put back here, before any other hook has its turn.
        if self._before_epochs is None:
            self._before_epochs = attributes.fingerprints(pl_module)
        if self._loaded is not None and self._loaded["cut"] == "epoch":
            self._restore_attributes(trainer, pl_module, self._loaded)
        elif self._loaded is not None:
            skip_finetuning(trainer)

        self._reseed(trainer, "epoch", trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._restore_once(trainer, pl_module)

        # Lightning would set it at the first batch after a restart too, and then drop the running averages.
        trainer._logger_connector._first_loop_iter = batch_idx == 0

        self._reseed(trainer, "step", trainer.current_epoch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._find_generators(trainer, pl_module)

        # The same draws in every validation, so that two of them differ by the weights alone.
        sources.seek(trainer.val_dataloaders, 0)

        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._restore_once(trainer, pl_module)
            share_buffers(trainer, pl_module)
            self._before_validation = self._validation_state(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._reseed(trainer, "evaluation", dataloader_idx, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._find_generators(trainer, pl_module)
        sources.seek(trainer.test_dataloaders, 0)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    # A clean cut

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        place = lightning_state.place_to_cut(trainer)
        if place is None:
            return  # somebody else's checkpoint, in the middle of a batch: Lightning resumes from it in its own way

        loops = checkpoint["loops"]["fit_loop"]
        lightning_state.count_whole_batches(loops, place)

        # A validation that is cut is repeated, so the checkpoint gets the values from before it.
        validation = self._before_validation
        if validation is None:
            validation = self._validation_state(trainer, pl_module)
        rank_state = lightning_state.loop_state(trainer, pl_module) | validation

        batches = loops["epoch_loop.batch_progress"]["current"]["completed"]
        rank_state["streams"] = plain_positions(sources.positions(trainer.train_dataloader, batches))

        # Lightning steps the optimizer after every so many batches, and after the last one of an epoch. Between two
        # steps there are gradients that wait. With manual optimization only the model knows when it steps.
        mid_accumulation = batches % trainer.accumulate_grad_batches and batches < trainer.num_training_batches
        if mid_accumulation or not pl_module.automatic_optimization:
            rank_state["gradients"] = lightning_state.gradients(pl_module)

        checkpoint[KEY] = dict(
            cut=place,
            step=trainer.global_step,
            should_stop=trainer.should_stop,
            made_with=lightning_state.conditions(trainer),
            validation_loaders_of=trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch,
            finders=found_by_finders(trainer),
            ranks=gather_on_rank_0(rank_state, trainer),
        )

    def _validation_state(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        before = self._before_epochs
        if before is None:  # nothing has begun, so nothing has changed
            before = attributes.fingerprints(pl_module)
        return lightning_state.validation_state(trainer, pl_module, self._at_start, before)

    # A restart

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.ckpt_path is None:
            return  # a finder of Lightning's puts back what it has changed; the run itself has not begun
        self._loaded = checkpoint.get(KEY)
        if self._loaded is not None and is_own(trainer.ckpt_path, trainer.default_root_dir):
            skip_finders(trainer, self._loaded.get("finders", {}))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warn_of_inexact(trainer)
        if self._loaded is None:
            return

        # All steps are done but the validation after the last one is not. Lightning would leave before the epoch
        # starts. One step more keeps it here; on_train_epoch_start takes the step back.
        if self._loaded["cut"] == "validation" and self._loaded["step"] == trainer.max_steps:
            self._extra_step = 1
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell Lightning's loops, and metrics.csv, to continue as if nothing had happened."""
        own = is_own(trainer.ckpt_path, trainer.default_root_dir)
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                continue
            if self._loaded is not None and own:
                # After a kill the run may go on from a later checkpoint again, which counts on the rows up to it.
                steps = step_files(Path(trainer.ckpt_path).resolve().parent)
                logger.rewind(self._loaded["ranks"][0]["rows"], keep=max(steps, default=0) > trainer.global_step)
                # The hooks that begin the epoch run again; their rows are among those that are there.
                logger.repeats = self._loaded["cut"] != "epoch"
            elif trainer.ckpt_path is not None:
                logger.cut(next_logged_step(trainer))
            else:  # rows that are there are of an attempt that was killed before its first checkpoint
                logger.rewind(0)

        if self._loaded is None:
            return
        if not own:
            self._loaded["should_stop"] = False  # what has stopped another run need not stop this one

        lightning_state.warn_of_differences(self._loaded["made_with"], trainer)
        count_reloads(trainer, self._loaded.get("validation_loaders_of"))
        begin_epoch_again(trainer)
        if trainer.fit_loop.epoch_loop.restarting:
            count_batches(trainer)
            decide_on_validation(trainer, repeat=self._loaded["cut"] == "validation")

    def _restore_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the hooks that begin the epoch, and before anything that uses them: put the saved values back."""
        loaded = self._loaded
        self._loaded = None
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.repeats = False

        # With another number of ranks, the values of a rank belong to nobody; there was a warning.
        if loaded is None or loaded["made_with"]["ranks"] != trainer.world_size:
            return

        trainer.should_stop = loaded["should_stop"]
        lightning_state.restore(trainer, pl_module, loaded["ranks"][trainer.global_rank])
        if loaded["cut"] != "epoch":
            self._restore_attributes(trainer, pl_module, loaded)

    def _restore_attributes(self, trainer: Trainer, pl_module: LightningModule, loaded: dict[str, Any]) -> None:
        """Put back what the model has kept in attributes of its own."""
        ranks = loaded["ranks"]
        if len(ranks) == trainer.world_size and "model" in ranks[trainer.global_rank]:
            attributes.restore(pl_module, ranks[trainer.global_rank]["model"])


def check_place(callback: Callback, place: int, trainer: Trainer) -> None:
    """Check that a callback has its place in the Trainer's list, counted from 0.

    Lightning puts the finders of batch size and learning rate before all others. They act before training only, and
    are not counted.

    Raises:
        CheckpointError: another callback is there.
    """
    counted = [other for other in trainer.callbacks if not isinstance(other, BatchSizeFinder | LearningRateFinder)]
    if len(counted) > place and counted[place] is callback:
        return

    names = ", ".join(type(other).__name__ for other in counted)
    raise CheckpointError(
        f"ExactResume must be the first and Checkpoints the second of the Trainer's callbacks, which are: {names}"
    )


def plain_positions(positions: list[Any]) -> list[Any]:
    """Positions of streams, without those states that a checkpoint can't hold; such a stream is read again."""
    for position in positions:
        for worker in position["workers"] if position else ():
            if not is_plain(worker.get("state")):
                rank_zero_warn("The state of a stream is no plain data, so a restart reads the stream again instead.")
                del worker["state"], worker["state_batches"]
    return positions
