"""Ends a run that can't come to anything, and keeps one that has no validation from waiting for it.

For a metric that stops improving: experiments/early_stopping.yaml.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class Diverged(RuntimeError):
    """The loss is no longer a number."""


def train_without_validation(trainer: Trainer) -> None:
    """Switch the validation off, and with it early stopping: in mode `final` all that could validate is trained on."""
    trainer.limit_val_batches = 0
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, EarlyStopping)]


class StopOnDivergence(Callback):
    """Ends the run as failed when the training loss is NaN or infinite: no later step can repair the weights.

    Args:
        every_n_steps: look at the loss every so many batches; each look waits for the GPU.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every_n_steps and not trainer.is_last_batch:
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and not torch.isfinite(loss).all():
            raise Diverged(
                f"the training loss is {float(loss.mean())} at step {trainer.global_step}: try a lower "
                "--model.optimizer.lr or --trainer.gradient_clip_val, or a longer --model.lr_scheduler.warmup"
            )
