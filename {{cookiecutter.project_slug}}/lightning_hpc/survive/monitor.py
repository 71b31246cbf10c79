"""Which checkpoint is the best: the monitored metric, whether a small or a large value is good, and the best so far."""

import difflib
import math
import re
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torchmetrics import Metric

from .checkpoint_files import CheckpointError

Mode = Literal["min", "max"]

# The last word of a metric's name that says something: val/acc, val_f1_macro, val/top5_accuracy.
SMALL_IS_GOOD = frozenset(
    "loss error err mse rmse mae mape nll bce ce kl divergence perplexity ppl wer cer fid ece brier".split()
)
LARGE_IS_GOOD = frozenset(
    "acc accuracy f1 fbeta auc auroc auprc ap map precision recall sensitivity specificity iou miou jaccard dice kappa "
    "mcc r2 psnr ssim bleu rouge pearson spearman ndcg mrr".split()
)

# Words that may follow it and say nothing.
QUALIFIERS = frozenset("macro micro weighted mean avg average epoch total rate score top1 top3 top5 ema swa".split())

# Words that turn its meaning around.
REVERSED = frozenset({"neg", "negative", "inverse", "minus"})


class Best:
    """The best value so far of the monitored metric, over all attempts, and whether it is in a checkpoint.

    What is scored is what is saved: best.ckpt has the weights that were validated. If they could not be written, the
    best stays what it was, since by the next save the weights are others.

    Args:
        monitor: the metric's name; None: no checkpoint is the best.
        mode: `min` or `max`; None: it follows from the metric.

    Attributes:
        value: the best value so far; None before the first validation.
        due: True if it is not in a checkpoint yet.
        direction: `min` or `max`, once a validation has logged the metric.
    """

    def __init__(self, monitor: str | None, mode: Mode | None) -> None:
        self.monitor, self.mode = monitor, mode
        self.value: float | None = None
        self.due = False
        self.direction: Mode | None = None
        self._saved: float | None = None  # the value of best.ckpt

    def validated(self, trainer: Trainer) -> None:
        """Note whether the weights that were validated are the best so far.

        Raises:
            CheckpointError: nothing logs the metric, or nothing says which values are good.
        """
        if self.monitor is None:
            return
        value = monitored_value(trainer, self.monitor)
        if value is None:
            return

        if self.direction is None:
            self.direction = direction(trainer, self.monitor, self.mode)
        if is_better(value, self.value, self.direction):
            self.value, self.due = value, True

    def settle(self, saved: bool) -> None:
        """Note whether a save has succeeded, the first one since the validation."""
        if saved and self.due:
            self._saved = self.value
        self.value, self.due = self._saved, False

    def entry(self) -> dict[str, Any]:
        """What meta.json says about it."""
        return dict(monitor=self.monitor, mode=self.direction, value=self.value)

    def state_dict(self) -> dict[str, Any]:
        return dict(best_value=self.value, best_due=self.due, best_saved=self._saved)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Due again if a kill may have come between writing the file and naming it best.ckpt.
        self.value, self.due = state_dict["best_value"], state_dict["best_due"]
        self._saved = state_dict.get("best_saved", None if self.due else self.value)


def monitored_value(trainer: Trainer, monitor: str) -> float | None:
    """The value of the monitored metric after a validation; None if it comes at the end of the training epoch only.

    Raises:
        CheckpointError: nothing logs it. A name that is misspelt must not be noticed when all is trained.
    """
    metrics = trainer.callback_metrics
    if monitor in metrics:
        return float(metrics[monitor])

    in_training = {result.meta.name for result in trainer.fit_loop.epoch_loop._results.values()}
    if monitor in in_training:
        return None

    near = difflib.get_close_matches(monitor, metrics, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    logged = ", ".join(sorted(metrics)) or "none"
    raise CheckpointError(
        f"checkpoints.monitor is {monitor}, which nothing logs{hint}; there are {logged}. "
        "Set --checkpoints.monitor to one of them, or to null for a run without a best checkpoint"
    )


def direction(trainer: Trainer, monitor: str, mode: Mode | None) -> Mode:
    """Whether the best value of a metric is the smallest or the largest; says so.

    Args:
        trainer: the Trainer, after a validation that has logged the metric.
        monitor: the metric's name.
        mode: what the settings say; None: it follows from the metric.

    Raises:
        CheckpointError: the settings don't say it, and neither does the metric.
    """
    known = _known_direction(trainer, monitor)
    if mode is None and known is None:
        raise CheckpointError(
            f"neither the name of {monitor} nor its torchmetrics object says whether small or large is good: set "
            "--checkpoints.mode min or max"
        )

    chosen = mode or known
    word = "smallest" if chosen == "min" else "largest"
    if known is not None and known != chosen:
        rank_zero_warn(
            f"checkpoints.mode is {chosen}, so best.ckpt gets the {word} {monitor}, which usually is the worst; "
            "without --checkpoints.mode the metric decides"
        )
    else:
        rank_zero_info(f"best.ckpt gets the {word} {monitor}")
    return chosen


def _known_direction(trainer: Trainer, monitor: str) -> Mode | None:
    """What torchmetrics knows of the metric object that was logged under this name, else what the name says."""
    loops = (trainer.fit_loop.epoch_loop.val_loop, trainer.fit_loop.epoch_loop)
    for loop in loops:
        for result in loop._results.values():
            logged = result.meta.name == monitor.partition("/dataloader_idx_")[0]
            if not logged or not isinstance(result.value, Metric) or result.value.higher_is_better is None:
                continue
            return "max" if result.value.higher_is_better else "min"
    return direction_of_name(monitor)


def direction_of_name(name: str) -> Mode | None:
    """Whether small or large is good for a metric of this name; None if the name does not say it."""
    words = re.findall(r"[a-z][a-z0-9]*", name.partition("/dataloader_idx_")[0].lower())
    if REVERSED & set(words):
        return None

    for word in reversed(words):
        if word in SMALL_IS_GOOD:
            return "min"
        if word in LARGE_IS_GOOD:
            return "max"
        if word not in QUALIFIERS:
            return None
    return None


def is_better(value: float, best: float | None, mode: Mode) -> bool:
    """True if a value is better than the best so far; a NaN never is, and of two equal ones the first stays."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value < best if mode == "min" else value > best
