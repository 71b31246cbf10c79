"""How long a start takes: with it one can say how short a job may be."""

import os
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..runs.folder import RunFolder


class StartUp(Callback):
    """Notes in status.json how long it took from the beginning of the job to the end of the first batch.

    That holds what a batch file sets up, what Python loads, the data, the checkpoint, and what is compiled. A run that
    was not started by a batch file notes nothing.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.noted = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        began = os.environ.get("JOB_BEGAN", "")
        if self.noted or not began.isdigit():
            return
        self.noted = True
        self.folder.update(start_seconds=round(time.time() - int(began), 1))
