"""The callbacks that every run has, and StopOnDivergence, which a configuration may choose. Their order: trainer.py."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, RichProgressBar, TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from .. import signals
from ..logs import say
from ..runs.folder import RunFolder
from ..survive.checkpoints import Checkpoints
from ..values.predictions import Batch, as_record, on_cpu, target_of, write
from .usage import Usage, batch_size, peak_memory

logger = logging.getLogger(__name__)


class RecordSettings(Callback):
    """Sends the settings to every tracker, and keeps the model's in checkpoints, for `Model.load_from_checkpoint`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for tracker in trainer.loggers:
            tracker.log_hyperparams(self.settings)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # By this name Lightning finds what makes objects of class paths. What a model has saved itself stays.
        arguments = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
        arguments.update(self.settings["model"].get("init_args") or {})
        checkpoint.setdefault(pl_module.CHECKPOINT_HYPER_PARAMS_KEY, arguments)


class BestSoFar(Callback):
    """Logs the best value so far of the monitored metric as METRIC_best, such as val/loss_best, after each validation.

    A search compares runs by one number. The last value would punish a run for training on after its best checkpoint,
    which is the one that is kept; and W&B's own "best" of a metric is no number to its Bayesian search.

    Args:
        checkpoints: knows the metric, whether small or large is good, and the best value over all attempts.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        best = self.checkpoints.best
        if best.value is None:  # there is no such metric, or all its values were NaN
            return

        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        values = {f"{best.monitor}_best": best.value, "epoch": trainer.current_epoch}
        for tracker in trainer.loggers:
            tracker.log_metrics(dict(values), step=step)


class Canary(Callback):
    """Stops the run after its first validation; started without it, the same run resumes from there.

    Args:
        folder: the run's folder, whose status.json says then that the canary has passed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.is_global_zero:
            self.folder.update(canary="passed")
        say("the canary is through its first validation; the run continues when it is started without --canary")
        signals.stop("interrupted")  # saved at the next batch, if there is one


class FolderIsThere(Callback):
    """Ends the run when another may have begun: its folder was deleted or replaced, or its mirror says so.

    Args:
        folder: the run's folder, which this process has locked.
        every: seconds between two looks.
    """

    def __init__(self, folder: RunFolder, every: float = 10.0) -> None:
        self.folder, self.every = folder, every
        self._looked_at = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.look()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.look()  # a validation can be long

    def look(self) -> None:
        """Check, if the last look was some time ago."""
        if time.monotonic() - self._looked_at >= self.every:
            self._looked_at = time.monotonic()
            self.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check()  # writing it would make the folder again

    def check(self) -> None:
        """Raises FolderIsLost if the folder or the run is no longer this process's."""
        if self.folder.is_lost() or self.folder.taken:
            deleted = f"{self.folder.path} has been deleted or replaced while the run was in it"
            raise FolderIsLost(self.folder.taken or deleted)


class Bar(RichProgressBar):
    """Lightning's progress bar, drawn every ten batches, as drawing takes longer than a small step."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def _get_train_description(self, current_epoch: int) -> str:
        return epoch_in_words(self.trainer)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics to show: not the version number of the logger, which says nothing here."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochReport(Callback):
    """Reports each epoch: a plain line with its metrics, and its time, throughput and memory to the trackers.

    The line goes to the log file and to the terminal, where it stays above the progress bar.
    Logged are seconds, training samples per second on all ranks, the peak memory of the process and the GPU in GiB, and
    how busy the cores and the GPU were in per cent.
    """

    def __init__(self) -> None:
        self.ended: str | None = None  # the epoch to report, once its metrics are complete
        self.usage = Usage()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint of Lightning's own, from the middle of an epoch, resumes without the hook below.
        self.begin()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report(trainer)
        self.begin()

    def begin(self) -> None:
        """Measure from now on."""
        self.start, self.samples = time.monotonic(), 0
        self.usage.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.samples += batch_size(batch)
        self.usage.look(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The line waits: what the model logs at the end of the epoch is not among the metrics yet.
        self.ended = f"{epoch_in_words(trainer)} step {trainer.global_step}"

        seconds = time.monotonic() - self.start
        values = {
            "epoch": trainer.current_epoch,
            "time/epoch_s": seconds,
            "time/samples_per_s": self.samples * trainer.world_size / seconds,
            "memory/peak_gib": peak_memory(),
            **self.usage.values(),
        }
        if pl_module.device.type == "cuda":
            values["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30

        # The step that Lightning gives an epoch's metrics. Two optimizers make two steps of a batch; this counts one.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        for tracker in trainer.loggers:
            tracker.log_metrics(values, step=step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report(trainer)

    @rank_zero_only
    def report(self, trainer: Trainer) -> None:
        """Say the line of the epoch that has ended, if there is one."""
        if self.ended is None:
            return
        line = f"{self.ended} {main_metrics(trainer.callback_metrics)}"
        self.ended = None

        # Rich's bar makes room for all that is written to stderr; tqdm's has to be asked.
        bar = trainer.progress_bar_callback
        by_bar = isinstance(bar, TQDMProgressBar) and bar.is_enabled
        logger.info(line, extra=dict(file_only=by_bar))
        if by_bar:
            bar.print(line)


def epoch_in_words(trainer: Trainer) -> str:
    """`epoch 1/10` in the first of ten: for a person, epochs are counted from 1, in all places."""
    total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
    return f"epoch {trainer.current_epoch + 1}/{total}"


def main_metrics(metrics: Mapping[str, Any]) -> str:
    """Metrics such as val/acc with their values, without those of single layers."""
    texts = []
    for name, value in sorted(metrics.items()):
        number = math.nan if value is None else float(value)  # JSON has no other word for NaN
        if not is_of_one_layer(name):
            texts.append(f"{name} {number:.4g}")
    return " ".join(texts)


def is_of_one_layer(name: str) -> bool:
    """True for a metric such as cka/init/head: there are as many as layers, and metrics.csv has them all."""
    return name.startswith("cka/") and name.count("/") >= 2


class FolderIsLost(RuntimeError):
    """The run's folder is no longer the one it began in."""


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class StopOnDivergence(Callback):
    """Ends the run as failed when the training loss is NaN or infinite: no later step can repair the weights.

    Args:
        every_n_steps: look at the loss every N batches; each look waits for the GPU.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = (batch_idx + 1) % self.every_n_steps == 0
        if not due and not trainer.is_last_batch:
            return
        # A step may return nothing, to leave a batch out, or, with manual optimization, whatever it likes.
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, torch.Tensor) or torch.isfinite(loss).all():
            return
        raise Diverged(
            f"the training loss is {float(loss.mean())} at step {trainer.global_step}: try a lower "
            "--model.optimizer.lr or --trainer.gradient_clip_val, or a longer --model.lr_scheduler.warmup"
        )


class KeepPredictions(BasePredictionWriter):
    """Collects what `predict_step` returns, on the CPU, and writes it at the end: values/predictions.py.

    Args:
        path: of the files, without their endings. With several loaders, each has files of its own: PATH-0, PATH-1, …
    """

    def __init__(self, path: Path) -> None:
        super().__init__("batch")
        self.path = path
        self.batches: dict[int, list[Batch]] = {}

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        positions = list(batch_indices) if batch_indices else None
        row = (on_cpu(prediction), on_cpu(target_of(batch)), positions)
        self.batches.setdefault(dataloader_idx, []).append(row)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = CombinedLoader(trainer.predict_dataloaders).flattened
        for number, batches in self.batches.items():
            dataset = getattr(loaders[number], "dataset", None)
            path = self.path.with_name(f"{self.path.name}-{number}") if len(loaders) > 1 else self.path
            for file in write(as_record(batches, trainer.datamodule, dataset), path):
                say(f"predictions: {file}")
