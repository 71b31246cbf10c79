"""What a run tells: plain progress lines where there is no terminal, times and memory, the summary at its end."""

import logging
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..runs.request import Request
from .checkpoint_files import read_meta
from .trackers import WandB

logger = logging.getLogger(__package__)


@rank_zero_only
def say(line: str) -> None:
    """One line for the person at the terminal and for the log file."""
    logger.info(line)


def summary(wanted: Request, trackers: Sequence[Logger] = ()) -> str:
    """Where everything of a finished run is and what to type next, one thing a line."""
    folder, status = wanted.folder.path, wanted.folder.status()
    meta = read_meta(folder / "checkpoints")
    lines = [("run folder", f"{folder}")]
    for name in ("best", "last"):
        if entry := meta.get(name):
            value = f", {entry['monitor']} {entry['value']:.4g}" if entry.get("monitor") else ""
            lines.append((f"{name} checkpoint", f"{folder}/checkpoints/{name}.ckpt (step {entry['step']}{value})"))
    lines.append(("metrics", f"{main_metrics(status.get('metrics') or {})}; all in {folder}/metrics.csv"))
    lines.append(("time", f"{status.get('seconds', 0):.0f} s in {status.get('attempt', 1)} attempt(s)"))
    if pictures := sorted((folder / "cka").glob("*.png")):
        lines.append(("CKA", f"{pictures[-1]}"))
    lines.append(("test it", f"python Train.py test --run {folder}"))
    for tracker in trackers:
        if isinstance(tracker, WandB) and (where := tracker.where()):
            lines.append(("see it in W&B", where))
    return "\n".join(f"{name:<16} {text}" for name, text in lines)


def main_metrics(metrics: Mapping[str, Any]) -> str:
    """Metrics such as val/acc with their values; not those with a further level, such as the CKA of each layer."""
    return " ".join(f"{name} {float(value):.4g}" for name, value in sorted(metrics.items()) if name.count("/") < 2)


class Bar(RichProgressBar):
    """Lightning's progress bar, drawn every ten batches, as drawing takes longer than a small step."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics to show: not the version number of the logger, which says nothing here."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class Report(Callback):
    """Reports each epoch: a plain line with its metrics, and its time, throughput and memory to the trackers.

    The line goes to the log file, and to the output too if that is no terminal, where Lightning shows a progress bar.
    Logged are seconds, training samples per second on all ranks, and the peak memory of the process and the GPU in GiB.
    """

    def __init__(self) -> None:
        self.file_only = sys.stderr.isatty()
        self.ended: str | None = None  # the epoch to report, once its metrics are complete

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report(trainer)
        self.start, self.samples = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.samples += batch_size(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        self.ended = f"epoch {trainer.current_epoch + 1}/{total} step {trainer.global_step}"
        seconds = time.monotonic() - self.start
        unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts the peak in bytes, Linux in KiB
        values = {
            "epoch": trainer.current_epoch,
            "time/epoch_s": seconds,
            "time/samples_per_s": self.samples * trainer.world_size / seconds,
            "memory/peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        }
        if pl_module.device.type == "cuda":
            values["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        for tracker in trainer.loggers:
            tracker.log_metrics(
                values, step=trainer.global_step - 1
            )  # the step that Lightning gives an epoch's metrics

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report(trainer)

    @rank_zero_only
    def report(self, trainer: Trainer) -> None:
        """Say the line of the epoch that has ended, if there is one."""
        if self.ended:
            logger.info(f"{self.ended} {main_metrics(trainer.callback_metrics)}", extra=dict(file_only=self.file_only))
        self.ended = None


def batch_size(batch: Any) -> int:
    """Samples in a batch: the first dimension of the first tensor in it; 1 if there is none."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 1
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((batch_size(item) for item in items), 1)
