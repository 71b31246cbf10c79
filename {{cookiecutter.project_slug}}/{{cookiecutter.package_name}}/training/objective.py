"""What a search optimizes: the best value so far of the metric that decides which checkpoint is the best."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ..runs.request import request
from ..runs.settings import SettingsError
from .checkpoints import Checkpoints


class BestSoFar(Callback):
    """Logs the best value so far of the monitored metric as METRIC_best, such as val/loss_best, after each validation.

    A search compares runs by one number. The last value would punish a run for going on after its best checkpoint,
    which is the one that is kept; and W&B's own "best" of a metric is no number to its Bayesian search.

    Args:
        checkpoints: knows the metric, whether small or large is good, and the best value over all attempts.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = self.checkpoints.best_value
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and best is not None:
            for logger in trainer.loggers:
                logger.log_metrics({f"{self.checkpoints.monitor}_best": best}, step=trainer.global_step)


def logged_metrics(arguments: Sequence[str], root: Path) -> list[str]:
    """Names of the metrics that a run logs, found by training and validating on one batch on the CPU.

    Args:
        arguments: what would follow `Train.py fit`.
        root: the project's folder.

    Raises:
        SettingsError: a setting is wrong, or the run does not get through one batch.
    """
    from .run import run  # it imports this module

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.devices=1", "--cka=null"]
        quick += ["--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.logger=false", f"--runs_dir={folder}"]
        logging.disable(logging.WARNING)  # what Lightning says of a run that nobody asked for
        try:
            with contextlib.redirect_stderr(said):
                code = run(request("fit", [*arguments, *quick], root))
        finally:
            logging.disable(logging.NOTSET)
        if code != 0:
            errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
            raise SettingsError(f"a run does not get through one batch: {errors[0][7:] if errors else f'code {code}'}")
        (file,) = Path(folder).glob("*/*/metrics.csv")
        with file.open(encoding="utf-8") as rows:
            return next(rows).strip().split(",")
