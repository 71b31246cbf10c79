"""Averages of the weights along the run, which often generalise better than the last weights: EMA and SWA.

    trainer = Trainer(callbacks=[EMA(decay=0.999, evaluate="both"), ...])

A checkpoint holds both: the averaged weights as the model's own (`state_dict`), and the last ones, to go on from.
"""

import inspect
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch.optim.swa_utils import get_swa_avg_fn


class _Evaluated(WeightAveraging):
    """What is evaluated: the averaged weights in place of the model's, or both in one validation.

    For `both`, each batch is given to the model and then to the averaged copy of it, which logs `val/…` as `val_ema/…`
    (`val_swa/…`); metric objects don't mix, as the copy has its own.
    """

    evaluate: Literal["averaged", "both"]
    suffix: str

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate == "averaged":
            super().on_validation_epoch_start(trainer, pl_module)
        elif self._average_model is not None:
            copy: Any = self._average_model.module
            copy.trainer, copy.log = trainer, self._log
            copy.eval()
            self._call(trainer, "on_validation_epoch_start")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:
        if self.evaluate == "both":
            takes = len(inspect.signature(pl_module.validation_step).parameters)
            self._call(trainer, "validation_step", *batch[:takes])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate == "averaged":
            super().on_validation_epoch_end(trainer, pl_module)
        else:
            self._call(trainer, "on_validation_epoch_end")

    def _call(self, trainer: Trainer, hook: str, *arguments: Any) -> None:
        """Call a hook of the averaged copy as Lightning calls it on the model."""
        if self._average_model is not None:  # there is none outside fit
            self._average_model.module._current_fx_name = hook  # what self.log asks where it was called
            with trainer.precision_plugin.val_step_context():
                getattr(self._average_model.module, hook)(*arguments)

    def _log(self, name: str, *arguments: Any, **keywords: Any) -> None:
        """`self.log` of the averaged copy: val/loss → val_ema/loss."""
        name = f"val_{self.suffix}{name[3:]}" if name.startswith("val") else f"{name}_{self.suffix}"
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

    Batch norm statistics are averaged with the weights (Izmailov et al. 2018 compute them anew, arXiv:1803.05407).

    Args:
        start_epoch: first epoch, counted from 0, whose weights are averaged.
        evaluate: as for EMA; the copy logs val_swa/….
    """

    suffix = "swa"

    def __init__(self, start_epoch: int, evaluate: Literal["averaged", "both"] = "averaged") -> None:
        super().__init__(avg_fn=get_swa_avg_fn())  # torch's default for GPUs can't average buffers of integers
        self.start_epoch, self.evaluate = start_epoch, evaluate

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self.start_epoch
