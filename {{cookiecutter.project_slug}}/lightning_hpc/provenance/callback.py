"""The callback that keeps what a run was made with, and fingerprints of its weights and of the data of its first epoch.

It reads weights and batches, and changes nothing: neither results nor the identity of a run depend on it. A fingerprint
of the weights takes about as long as a step of the optimizer, since both read the weights once. One that takes longer
than FREE waits until it costs less than SHARE of the time.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..runs.identity import counting
from ..settings.flat import flatten
from ..survive.checkpoint_files import is_own
from .checksums import checksum_of_batch, checksums_of
from .environment import keep_environment, of_machine, of_training
from .fingerprints import FingerprintsFile, fingerprint_of

logger = logging.getLogger(__name__)

SHARE = 0.01  # of a run's time that fingerprints may take
FREE = 0.05  # seconds; what takes less is not counted, so that runs of small models have one after every epoch

MOST_BATCHES = 10_000  # of the first epoch


class KeepProvenance(Callback):
    """Writes environment.json and fingerprints.jsonl into the run's folder, on rank 0.

    Args:
        settings: the run's settings, resolved. Those that count for its identity are kept, to notice it if config.yaml
            is edited later.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = counting(flatten(settings))
        self.batches: list[torch.Tensor | int] = []  # checksums of the first epoch's batches
        self.reads_batches = True
        self.cost = 0.0  # seconds that this thread was busy with the last fingerprint: other programs don't count
        self.file: FingerprintsFile | None = None  # on rank 0, as long as it can be written

    # In a checkpoint: the batches of an epoch that is not done yet

    def state_dict(self) -> dict[str, Any]:
        if not self.batches:
            return {}
        return dict(batches=as_numbers(self.batches))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = list(state_dict.get("batches", []))

    # When

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        self.file = FingerprintsFile(folder)
        continues = is_own(trainer.ckpt_path, folder)
        record = of_machine() | of_training(trainer.strategy.root_device, trainer.world_size)
        record |= dict(settings=self.settings, from_step=trainer.global_step)
        try:
            keep_environment(folder, record, continues)
            self.file.begin(epochs=trainer.current_epoch if continues else -1)
        except OSError as error:
            self.give_up(error)
        if not continues:
            self.add(trainer, pl_module, epoch=trainer.current_epoch)
        self.written = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        is_first_epoch = trainer.current_epoch == 0 and len(self.batches) < MOST_BATCHES
        if self.file is None or not is_first_epoch or not self.reads_batches:
            return
        value = checksum_of_batch(batch)
        if value is None:
            self.reads_batches = False  # of a kind that is not looked into
            return
        self.batches.append(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_dear = self.cost > FREE and self.cost > SHARE * (time.monotonic() - self.written)
        if self.file is not None and not is_dear:
            self.add(trainer, pl_module, epoch=trainer.current_epoch + 1)
        self.batches = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last weights have a fingerprint, whatever it costs."""
        if self.file is not None and self.file.last_step < trainer.global_step:
            self.add(trainer, pl_module, epoch=trainer.current_epoch)
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    # How

    def add(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Add a fingerprint of the weights as they are.

        Args:
            trainer: the Trainer.
            pl_module: the model.
            epoch: how many epochs are done.
        """
        if self.file is None:
            return
        begin = time.thread_time()
        try:
            sums = checksums_of(pl_module)
            self.file.add(fingerprint_of(epoch, trainer.global_step, sums, as_numbers(self.batches)))
        except (OSError, RuntimeError) as error:  # the disk is full, or the GPU's memory
            self.give_up(error)
        self.written = time.monotonic()
        self.cost = time.thread_time() - begin

    def give_up(self, error: Exception) -> None:
        """Go without: a run is worth more than its fingerprints."""
        logger.warning("the run continues without fingerprints, so it can't be reproduced by a command: %s", error)
        self.close()

    def close(self) -> None:
        """Write no more."""
        if self.file is not None:
            self.file.close()
        self.file = None


def as_numbers(batches: list[torch.Tensor | int]) -> list[int]:
    """Checksums as numbers; those of tensors wait for the device once."""
    tensors = [value for value in batches if isinstance(value, torch.Tensor)]
    numbers = [value for value in batches if not isinstance(value, torch.Tensor)]
    if tensors:
        numbers += torch.stack(tensors).tolist()  # those from a checkpoint come first
    return numbers
