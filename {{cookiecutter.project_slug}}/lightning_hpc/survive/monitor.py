"""Which checkpoint is the best: the monitored metric, whether a small or a large value is good, and the best so far."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
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
QUALIFIERS = frozenset(
    "macro micro weighted mean avg average epoch total rate score top1 top3 top5 ema swa "
    "val valid validation eval dev train test".split()
)

# Words that turn its meaning around.
REVERSED = frozenset({"neg", "negative", "inverse", "minus"})

# What others call a validation, and words that change nothing about which metric is meant.
SAME_WORDS = dict(valid="val", validation="val", eval="val", evaluation="val", dev="val")
NO_WORDS = frozenset({"epoch"})

DEFAULT_MONITOR = "val/loss"
LOADER = "/dataloader_idx_"  # what Lightning adds to a metric's name where there are several loaders


class Best:
    """The best value so far of the monitored metric, over all attempts, and whether it is in a checkpoint.

    What is scored is what is saved: best.ckpt has the weights that were validated. If they could not be written, the
    best stays what it was, since by the next save the weights are others.

    Args:
        monitor: the metric's name; None: no checkpoint is the best.
        mode: `min` or `max`; None: it follows from the metric.

    Attributes:
        monitor: the metric's name; from the first validation on, as it is logged.
        value: the best value so far; None before the first validation.
        due: True if it is not in a checkpoint yet.
        direction: `min` or `max`, once a validation has logged the metric.
    """

    def __init__(self, monitor: str | None, mode: Mode | None) -> None:
        self.asked, self.monitor, self.mode = monitor, monitor, mode
        self.value: float | None = None
        self.due = False
        self.direction: Mode | None = None
        self.callbacks: Sequence[Callback] = ()  # the Trainer's
        self._renamed: dict[str, str] = {}  # what other callbacks monitor: as asked for → as it is logged
        self._saved: float | None = None  # the value of best.ckpt

    def validated(self, trainer: Trainer) -> None:
        """Note whether the weights that were validated are the best so far.

        Raises:
            CheckpointError: nothing logs the metric, or nothing says which values are good.
        """
        self._renamed |= rename_monitors(trainer)
        if self.monitor is None:
            return
        name = logged_name(trainer, self.monitor)
        if name is None:
            self.monitor = None
            return
        self.monitor = name
        if name not in trainer.callback_metrics:
            return  # it comes at the end of the training epoch only
        value = float(trainer.callback_metrics[name])

        if self.direction is None:
            self.direction = direction(trainer, self.monitor, self.mode)
        if is_better(value, self.value, self.direction):
            self.value, self.due = value, True

    def settle(self, saved: bool) -> None:
        """Note whether a save has succeeded, the first one since the validation."""
        if saved and self.due:
            self._saved = self.value
        self.value, self.due = self._saved, False

    def lose(self, saved: float | None) -> None:
        """Note that the save that was to hold the best has failed after all.

        Args:
            saved: the value of best.ckpt before it.
        """
        self.value, self.due, self._saved = saved, False, saved

    @property
    def saved(self) -> float | None:
        """The value of best.ckpt."""
        return self._saved

    def entry(self) -> dict[str, Any]:
        """What meta.json says about it."""
        return dict(monitor=self.monitor, mode=self.direction, value=self.value)

    def state_dict(self) -> dict[str, Any]:
        found = dict(asked=self.asked, monitor=self.monitor, direction=self.direction, renamed=self._renamed)
        return dict(best_value=self.value, best_due=self.due, best_saved=self._saved, found=found)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Due again if a kill may have come between writing the file and naming it best.ckpt.
        self.value, self.due = state_dict["best_value"], state_dict["best_due"]
        self._saved = state_dict.get("best_saved", None if self.due else self.value)

        # It may be named in a save before the next validation tells again which metric it is.
        found = state_dict.get("found") or {}
        if found.get("asked") == self.asked and self.asked is not None and found["monitor"] is not None:
            self.monitor, self.direction = found["monitor"], found["direction"]

        # Before Lightning looks for their states, which it keeps by the metric's name.
        self._renamed = dict(found.get("renamed", {}))
        for callback in self.callbacks:
            name = getattr(callback, "monitor", None)
            if name in self._renamed:
                callback.monitor = self._renamed[name]  # type: ignore[attr-defined]


def logged_name(trainer: Trainer, monitor: str) -> str | None:
    """The monitored metric's name as it is logged, where it is logged under an equivalent one; says so.

    Args:
        trainer: the Trainer, after a validation.
        monitor: the name that was asked for.

    Returns:
        the name; None if no checkpoint can be the best, since the model logs nothing when it validates.

    Raises:
        CheckpointError: nothing logs it. A name that is misspelt must not be noticed when all is trained.
    """
    metrics = trainer.callback_metrics
    in_training = {result.meta.name for result in trainer.fit_loop.epoch_loop._results.values()}
    if monitor in metrics or monitor in in_training:
        return monitor

    equal = equivalent(monitor, metrics)
    if equal is not None:
        rank_zero_info(f"checkpoints.monitor: the model logs {equal}, which is taken for {monitor}")
        return equal

    in_validation = {result.meta.name for result in trainer.fit_loop.epoch_loop.val_loop._results.values()}
    if monitor == DEFAULT_MONITOR and not in_validation:
        rank_zero_warn(
            f"{type(trainer.lightning_module).__name__} logs nothing when it validates, so no checkpoint is the best; "
            "`test` takes the last one"
        )
        return None

    near = difflib.get_close_matches(monitor, metrics, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    logged = ", ".join(sorted(metrics)) or "none"
    raise CheckpointError(
        f"checkpoints.monitor is {monitor}, which nothing logs{hint}; there are {logged}. "
        "Set --checkpoints.monitor to one of them, or to null for a run without a best checkpoint"
    )


def rename_monitors(trainer: Trainer) -> dict[str, str]:
    """Let callbacks such as EarlyStopping find their metric where it is logged under an equivalent name; says so.

    Returns:
        the names as asked for, each with the one that is taken.
    """
    metrics, renamed = trainer.callback_metrics, {}
    for callback in trainer.callbacks:
        name = getattr(callback, "monitor", None)
        if not isinstance(name, str) or name in metrics:
            continue
        equal = equivalent(name, metrics)
        if equal is not None:
            rank_zero_info(f"{type(callback).__name__}: the model logs {equal}, which is taken for {name}")
            callback.monitor = renamed[name] = equal
    return renamed


def equivalent(monitor: str, names: Iterable[str]) -> str | None:
    """The one of these names that means the same as another: val_loss, valid/loss or loss/val for val/loss.

    Of several loaders it is the first one's. None if there is no such name, or several.
    """
    found = [name for name in names if words_of(name) == words_of(monitor)]
    first_loader = [name for name in found if name.endswith(f"{LOADER}0")]
    if len(found) > 1 and len({name.partition(LOADER)[0] for name in found}) == 1:
        found = first_loader
    return found[0] if len(found) == 1 else None


def words_of(name: str) -> list[str]:
    """The words of a metric's name, in alphabetical order, with one word for what others call a validation."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", name.partition(LOADER)[0])
    same = [SAME_WORDS.get(word.lower(), word.lower()) for word in words]
    return sorted(word for word in same if word not in NO_WORDS)


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
            logged = result.meta.name == monitor.partition(LOADER)[0]
            if not logged or not isinstance(result.value, Metric) or result.value.higher_is_better is None:
                continue
            return "max" if result.value.higher_is_better else "min"
    return direction_of_name(monitor)


def direction_of_name(name: str) -> Mode | None:
    """Whether small or large is good for a metric of this name; None if the name does not say it."""
    words = re.findall(r"[a-z][a-z0-9]*", name.partition(LOADER)[0].lower())
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
