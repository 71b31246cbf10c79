"""Learning rate schedules, and how they are handed to Lightning and to a run that continues another one."""

import copy
import math
import warnings
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
)

from ..logs import say
from ..survive.checkpoint_files import is_own
from ..survive.checkpoints import Checkpoints


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
        if self.warmup < 1:  # a share of the run
            warmup = round(self.warmup * self.total_steps)
        else:
            warmup = int(self.warmup)
        if step < warmup:
            return (step + 1) / warmup

        # Past the end of the run the learning rate stays at the last one.
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.final + (1 - self.final) * cosine


# Schedules that count optimizer steps; all others of torch count epochs, as its documentation has it.
STEPWISE = (WarmupCosine, OneCycleLR, CyclicLR)


def configure_optimizers(
    module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerCallable | None = None
) -> dict[str, Any]:
    """What LightningModule.configure_optimizers returns, for one optimizer and any schedule of torch or Lightning.

    Args:
        module: the LightningModule, whose Trainer knows how long the run is.
        optimizer: the optimizer.
        lr_scheduler: makes the schedule from the optimizer; None keeps the learning rate constant.

    Returns:
        Lightning's own format: {"optimizer": …, "lr_scheduler": {"scheduler": …, "interval": "step" or "epoch"}}.
        Stepwise schedules step after every optimizer step, the others after every epoch. Lightning's ReduceLROnPlateau
        has its `monitor` there too, the metric that it looks at.

    Raises:
        ValueError: WarmupCosine or OneCycleLR has to know the length of a run that has none.
    """
    if lr_scheduler is None:
        return {"optimizer": optimizer}

    if wants_length(lr_scheduler):
        steps = whole_length("OneCycleLR", module.trainer.estimated_stepping_batches)
        scheduler = lr_scheduler(optimizer, total_steps=steps)
    else:
        scheduler = lr_scheduler(optimizer)
    if isinstance(scheduler, WarmupCosine) and not scheduler.total_steps:
        set_total_steps(scheduler, module.trainer.estimated_stepping_batches)

    interval = "step" if isinstance(scheduler, STEPWISE) else "epoch"
    config = {"scheduler": scheduler, "interval": interval}
    if hasattr(scheduler, "monitor"):
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def wants_length(lr_scheduler: Any) -> bool:
    """True if the settings choose OneCycleLR and leave its length open, without which it can't be made."""
    if not isinstance(lr_scheduler, partial) or OneCycleLR not in lr_scheduler.args:
        return False
    return all(lr_scheduler.keywords.get(name) is None for name in ("total_steps", "epochs", "steps_per_epoch"))


def whole_length(name: str, total_steps: float) -> int:
    """The length of the run in optimizer steps, which the schedule of this name needs.

    Raises:
        ValueError: it has none, or nobody knows it.
    """
    if math.isinf(total_steps):
        raise ValueError(f"{name} needs a length: set --trainer.max_epochs, --trainer.max_steps or --max_samples")
    if total_steps < 1:  # how Lightning says that it does not know
        raise ValueError(
            f"{name} needs a length in steps, and the training data don't say how many batches they have: set "
            "--trainer.max_steps, --max_samples or --model.lr_scheduler.total_steps"
        )
    return int(total_steps)


def set_total_steps(scheduler: WarmupCosine, total_steps: float) -> None:
    """Tell a schedule how long the run is, and give the first step the learning rate that follows from it."""
    scheduler.total_steps = whole_length("WarmupCosine", total_steps)

    first = scheduler.factor(0)
    for group, base_lr in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = base_lr * first


# Their learning rate follows from the step alone, so they can be put at any step of another length.
OF_THE_STEP = (
    ConstantLR, CosineAnnealingLR, CyclicLR, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, OneCycleLR, PolynomialLR,
    StepLR,
)  # fmt: skip


class ContinueAnother(Callback):
    """Lets a run that begins with another run's checkpoint train by its own settings, where that one has got to.

    Lightning restores the other run's learning rates and schedules, with their length: trained for longer, they stay at
    the last learning rate, which often is 0. Weights, the optimizers' averages and all counters are as restored.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The optimizers and schedules are new here; the checkpoint's are restored after this hook.
        self.groups = [[without_parameters(group) for group in of.param_groups] for of in trainer.optimizers]
        self.schedules = [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None or is_own(trainer.ckpt_path, trainer.default_root_dir):
            return

        for optimizer, groups in zip(trainer.optimizers, self.groups, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=False):
                group.update(settings)
        for config, state in zip(trainer.lr_scheduler_configs, self.schedules, strict=True):
            say(put_at_step(config.scheduler, state))

        for callback in trainer.callbacks:
            if isinstance(callback, Checkpoints):
                callback.forget_best()


def without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group of an optimizer."""
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}


def put_at_step(schedule: Any, settings: dict[str, Any]) -> str:
    """Put a restored schedule where its own settings would have it at the step that it has reached.

    Args:
        schedule: with the state of another run's.
        settings: its state when it was new.

    Returns:
        a line that says at which learning rate it continues.
    """
    name = type(schedule).__name__
    if not isinstance(schedule, OF_THE_STEP):
        for group, rate in zip(schedule.optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        return f"{name} continues as the other run had it, at learning rate {schedule.get_last_lr()[0]:.4g}"

    step = schedule.last_epoch
    schedule.load_state_dict(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a step by its number is the only way to go to one, and no longer recommended
        LRScheduler.step(schedule, step)
    rate = schedule.get_last_lr()[0]
    line = f"{name} has the length of this run: at step {step} the learning rate is {rate:.4g}"
    return line if rate else f"warning: {line}, and nothing will be learnt"
