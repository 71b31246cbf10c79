"""Learning rate schedules, and how an optimizer and its schedule are handed to Lightning."""

import math
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR


class WarmupCosine(LambdaLR):
    """Linear warm-up to the optimizer's learning rate, then half a cosine down to `final` times it; step by step.

    At optimizer step t of T, with W warm-up steps, the factor is (t + 1) / W while t < W, then
    final + (1 - final) · (1 + cos(π · (t - W) / (T - W))) / 2.  Source: Loshchilov & Hutter 2017, arXiv:1608.03983.

    Args:
        optimizer: the optimizer.
        warmup: length of the warm-up: a share of the run in [0, 1), or a number of steps from 1 on.
        final: last learning rate as a share in [0, 1] of the highest.
        total_steps: length T in optimizer steps; filled in with the length of the run.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.1, final: float = 0.0, total_steps: int = 0) -> None:
        if warmup < 0 or not 0 <= final <= 1:
            raise ValueError(f"warmup must be at least 0 and final between 0 and 1, got warmup={warmup}, final={final}")
        self.warmup, self.final, self.total_steps = warmup, final, total_steps
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """The share of the highest learning rate at an optimizer step counted from 0."""
        warmup = round(self.warmup * self.total_steps) if self.warmup < 1 else int(self.warmup)
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


# Schedules that count optimizer steps; all others of torch count epochs, as its documentation has it.
STEPWISE = (WarmupCosine, OneCycleLR, CyclicLR)


def configure_optimizers(
    module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerCallable | None = None
) -> dict[str, Any]:
    """What LightningModule.configure_optimizers returns, for one optimizer and any schedule of torch or Lightning.

    Stepwise schedules step after every optimizer step, the others after every epoch; Lightning's ReduceLROnPlateau
    looks at the metric named by its `monitor`; WarmupCosine learns the length of the run.
    """
    if lr_scheduler is None:
        return dict(optimizer=optimizer)
    scheduler = lr_scheduler(optimizer)
    if isinstance(scheduler, WarmupCosine) and not scheduler.total_steps:
        total = module.trainer.estimated_stepping_batches
        if math.isinf(total):
            raise ValueError(
                "WarmupCosine needs a length: set --trainer.max_epochs, --trainer.max_steps or --max_samples"
            )
        scheduler.total_steps = int(total)
        for group, base_lr in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = base_lr * scheduler.factor(0)  # the constructor did not know the length yet
    config = dict(scheduler=scheduler, interval="step" if isinstance(scheduler, STEPWISE) else "epoch")
    if hasattr(scheduler, "monitor"):
        config["monitor"] = scheduler.monitor
    return dict(optimizer=optimizer, lr_scheduler=config)
