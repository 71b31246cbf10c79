"""Exact resume: a run killed at any moment and started again ends bit-identical to one that was never interrupted.

    signals.install()                                   # first thing in the program: signals.py
    found = checkpoint_files.find(folder / "checkpoints")
    trainer = Trainer(
        callbacks=[ExactResume(seed=0), Checkpoints(every_n_steps=500), ...],
        enable_checkpointing=False, default_root_dir=folder, ...
    )
    trainer.fit(model, datamodule=data, ckpt_path=found and found.path, weights_only=True)

It rests on three things:

1. Randomness is counted. All generators are seeded from (seed, epoch, batch) before each step, and before each batch is
   loaded (randomness.py); there is no state of theirs to save.
2. A checkpoint is a clean cut. It is written at the START of a batch, when the last one is done with everything that
   follows it: optimizer, schedulers, validation, log rows. So nothing is lost and nothing is done twice. The only other
   place is in a validation, which can be long; it is then done again.
3. What Lightning forgets is kept (progress.py): metrics in the middle of an epoch, running averages of logged values,
   what schedulers and early stopping look at, gradients in the middle of an accumulation.

This room uses parts of Lightning that are not public, which is why its version is pinned (>=2.6,<2.7):

- fit_loop.epoch_progress, epoch_loop.batch_progress, val_loop.batch_progress: where in the run we are
- fit_loop._restarting, ._restart_stage, epoch_loop._should_check_val_fx: what Lightning guesses on a restart is wrong
- epoch_loop.max_steps: to repeat a validation after the last step
- epoch_loop._results, _ResultMetric, _Metadata, _Sync: running averages of logged values
- val_loop._seen_batches_per_dataloader: the step of rows that are logged in a validation
- trainer._logger_connector._first_loop_iter, ._callback_metrics, ._logged_metrics, ._progress_bar_metrics: its memory
- torchmetrics.Metric._update_count, ._computed: whether a metric has anything to compute
- trainer._checkpoint_connector.dump_checkpoint (checkpoints.py): to write it where errors can be caught
- trainer._signal_connector.register_signal_handlers (checkpoints.py): its handlers act in the middle of a step
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.evaluation_loop import RestartStage as EvaluationRestartStage
from lightning.pytorch.loops.fit_loop import RestartStage
from lightning.pytorch.trainer.states import TrainerFn

from . import progress
from .metrics_file import MetricsFile
from .randomness import make_exact, own_generators, reseed, seek

KEY = "exact_resume"  # our part of a checkpoint


class ExactResume(Callback):
    """Makes training restartable at every batch; takes the first place among the callbacks.

    Args:
        seed: seed of everything random in training: order, augmentation, dropout. Initial weights have their own.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # First, so that generators are seeded, and a checkpoint is cut, before any other hook of a batch has run.
        trainer.callbacks.remove(self)
        trainer.callbacks.insert(0, self)
        self._loaded: dict[str, Any] | None = None  # our part of the checkpoint, until it has been put back
        self._before_validation: dict[str, Any] | None = None
        self._extra_step = 0
        self._generators = own_generators([vars(module) for module in pl_module.modules()], depth=3)
        for source in (trainer.datamodule, pl_module):
            if source is not None:
                make_exact(source, self.seed)

    # Counted randomness

    def _reseed(self, trainer: Trainer, *place: Any) -> None:
        reseed(self.seed, trainer.global_rank, *place, also=self._generators)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        loop.max_steps -= self._extra_step
        self._extra_step = 0
        epoch = 0 if trainer.overfit_batches else trainer.current_epoch  # which repeats the batches of the first epoch
        seek(trainer.train_dataloader, epoch, loop.batch_progress.current.completed if loop.restarting else 0)
        self._reseed(trainer, "epoch", trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._put_back(trainer, pl_module)
        # As in an epoch without a restart; otherwise Lightning drops the running averages at the first batch after it.
        trainer._logger_connector._first_loop_iter = batch_idx == 0
        self._reseed(trainer, "step", trainer.current_epoch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seek(trainer.val_dataloaders, 0)  # the same draws in every validation: two of them differ by the weights alone
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._put_back(trainer, pl_module)
            progress.share_buffers(trainer, pl_module)
            self._before_validation = progress.validation_state(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._reseed(trainer, "evaluation", dataloader_idx, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seek(trainer.test_dataloaders, 0)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    # A clean cut

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (cut := progress.cut(trainer)) is None:
            return  # somebody else's checkpoint, in the middle of a batch: Lightning resumes it in its own way
        loops = checkpoint["loops"]["fit_loop"]
        progress.settle(loops, cut)
        mine = progress.rank_state(trainer) | (self._before_validation or progress.validation_state(trainer, pl_module))
        batches = loops["epoch_loop.batch_progress"]["current"]["completed"]
        mid_accumulation = batches % trainer.accumulate_grad_batches and batches < trainer.num_training_batches
        if mid_accumulation or not pl_module.automatic_optimization:
            mine["gradients"] = progress.gradients(pl_module)
        checkpoint[KEY] = dict(
            cut=cut,
            step=trainer.global_step,
            should_stop=trainer.should_stop,
            made_with=progress.circumstances(trainer),
            ranks=progress.gather(mine, trainer),
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded = checkpoint.get(KEY)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (
            self._loaded is not None
            and self._loaded["cut"] == "validation"
            and self._loaded["step"] == trainer.max_steps
        ):
            # All steps are done but the last validation is not: keep Lightning from leaving before the epoch starts.
            self._extra_step = 1
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell Lightning's loops, and metrics.csv, to go on as if nothing had happened."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                # Without a checkpoint, rows that are there are of an attempt that was killed before its first one.
                logger.rewind(self._loaded["ranks"][0]["rows"] if self._loaded else 0)
        if self._loaded is None:
            return
        progress.warn_of_differences(self._loaded["made_with"], trainer)
        fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
        # The epoch begins again for all hooks, as on_train_epoch_start may set what depends on it.
        for tracker in (fit.epoch_progress.total, fit.epoch_progress.current):
            tracker.ready = tracker.started = tracker.processed = tracker.completed
        fit._restart_stage = RestartStage.NONE
        fit._restarting = False  # otherwise schedulers miss their step at the end of this epoch
        if not epoch.restarting:
            return  # it begins at its first batch, like any other
        # Before the first batch, Lightning asks whether a validation was missed. No; unless the run was cut in one:
        # then it is to be done in place of a batch, and Lightning asks a second time.
        answers = [False]
        if self._loaded["cut"] == "validation":
            answers = [True, True]
            epoch.val_loop._restart_stage = EvaluationRestartStage.RESTARTED_MID_EVALUATION
            epoch.val_loop._restarting = False

        def should_check_val(fetcher: Any) -> bool:
            answer = answers.pop(0)
            if not answers:
                del epoch._should_check_val_fx  # from now on the method of the class
            return answer

        epoch._should_check_val_fx = should_check_val

    def _put_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once, after the hooks that begin the epoch, and before anything that uses these values."""
        loaded, self._loaded = self._loaded, None
        if loaded is None or loaded["made_with"]["ranks"] != trainer.world_size:
            return
        trainer.should_stop = loaded["should_stop"]
        progress.put_back(trainer, pl_module, loaded["ranks"][trainer.global_rank])
