"""Averages of the weights along the run, which often generalise better than the last weights: EMA and SWA.

    trainer = Trainer(callbacks=[EMA(decay=0.999, evaluate="both"), ...])

A checkpoint holds both: the averaged weights as the model's own (`state_dict`), and the last ones, to resume from.
"""

import inspect
import re
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch.optim.swa_utils import get_swa_avg_fn

# How a metric of a validation begins.
VALIDATION = re.compile(r"(val|valid|validation|eval|dev)(?![A-Za-z])")


class _Evaluated(WeightAveraging):
    """What is evaluated: the averaged weights in place of the model's, or both in one validation.

    For `both`, each batch is given to the model and then to the averaged copy of it, which logs `val/…` as `val_ema/…`
    (`val_swa/…`); metric objects don't mix, as the copy has its own.
    """

    evaluate: Literal["averaged", "both"]
    suffix: str

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        try:
            super().setup(trainer, pl_module, stage)
        except Exception as error:  # a part of the model may refuse to be copied in any way
            name = type(self).__name__
            raise TypeError(
                f"{name} can't copy {type(pl_module).__name__}, whose weights it is to average: {error}. Change what "
                f"can't be copied, or train without {name}"
            ) from error

    def _follow(self, pl_module: LightningModule) -> None:
        """Until there is something to average, the average is the weights as they are, not those at the start."""
        average = self._average_model
        if average is not None and average.n_averaged == 0:
            average.module.load_state_dict(pl_module.state_dict())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._follow(pl_module)
        if self.evaluate == "averaged":
            super().on_validation_epoch_start(trainer, pl_module)
            return
        if self._average_model is None:  # there is none outside fit
            return

        # The copy is to log what it measures, beside what the model does.
        copy: Any = self._average_model.module
        copy.trainer, copy.log = trainer, self._log
        copy.eval()
        self._call(trainer, "on_validation_epoch_start")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:
        if self.evaluate != "both":
            return
        # A validation_step takes the batch and its index, and with several data loaders the loader's index too.
        takes = len(inspect.signature(pl_module.validation_step).parameters)
        self._call(trainer, "validation_step", *batch[:takes])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate == "averaged":
            super().on_validation_epoch_end(trainer, pl_module)
        else:
            self._call(trainer, "on_validation_epoch_end")

    def _call(self, trainer: Trainer, hook: str, *arguments: Any) -> None:
        """Call a hook of the averaged copy as Lightning calls it on the model."""
        if self._average_model is None:
            return
        copy: Any = self._average_model.module
        copy._current_fx_name = hook  # self.log asks it where it was called
        with trainer.precision_plugin.val_step_context():
            getattr(copy, hook)(*arguments)

    def _log(self, name: str, *arguments: Any, **keywords: Any) -> None:
        """`self.log` of the averaged copy: val/loss → val_ema/loss, and valid_loss → valid_ema_loss."""
        validation = VALIDATION.match(name)
        end = len(name) if validation is None else validation.end()
        name = f"{name[:end]}_{self.suffix}{name[end:]}"
        LightningModule.log(self._average_model.module, name, *arguments, **keywords)


class EMA(_Evaluated, EMAWeightAveraging):
    """Exponential moving average of the weights and buffers: average ← decay · average + (1 − decay) · weights.

    Args:
        decay: in [0, 1); 1 / (1 − decay) steps are remembered.
        evaluate: `averaged` validates with the averaged weights only; `both` with the last ones, and adds val_ema/….
        update_every_n_steps: optimizer steps between two updates.
        update_starting_at_step: optimizer steps before the first update.
    """

    suffix = "ema"

    def __init__(
        self,
        decay: float = 0.999,
        evaluate: Literal["averaged", "both"] = "averaged",
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
    ) -> None:
        super().__init__(
            decay=decay, update_every_n_steps=update_every_n_steps, update_starting_at_step=update_starting_at_step
        )
        self.evaluate = evaluate


class SWA(_Evaluated, WeightAveraging):
    """Stochastic weight averaging: the plain mean of the weights after each epoch from some epoch on.

    An epoch's weights are in the mean before its validation, so that what is scored is what is saved. Batch norm
    statistics are averaged with the weights (Izmailov et al. 2018 compute them anew, arXiv:1803.05407).

    Args:
        start_epoch: first epoch, counted from 0, whose weights are averaged.
        evaluate: as for EMA; the copy logs val_swa/….
    """

    suffix = "swa"

    def __init__(self, start_epoch: int, evaluate: Literal["averaged", "both"] = "averaged") -> None:
        super().__init__(avg_fn=get_swa_avg_fn())  # torch's default for GPUs can't average buffers of integers
        self.start_epoch, self.evaluate = start_epoch, evaluate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning would do it when the epoch has ended, after the validation.
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: its last batch has done it."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self.start_epoch
