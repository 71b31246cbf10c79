"""How long a run is, how often it validates and how many samples make a step, in the units a person thinks in."""

import math
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer

from ..runs.request import BASE, Request
from ..runs.settings import SettingsError


def replace_default_length(wanted: Request) -> None:
    """Let a length in steps or samples replace the default length in epochs, instead of the shorter of both winning."""
    flat, source = wanted.settings.flat, wanted.settings.source
    asked = any(flat.get(key) not in (None, -1) for key in ("trainer.max_steps", "max_samples"))
    if asked and source.get("trainer.max_epochs") == BASE:
        wanted.files.add({"trainer.max_epochs": -1}, "the length asked for")


def set_length(config: Namespace, trainer: Trainer, data: LightningDataModule) -> None:
    """Turn total_batch_size, max_samples, val_every_steps and val_every_samples into the Trainer's own settings.

    A step is an optimizer step: `accumulation` batches on each of the devices.

    Raises:
        SettingsError: the numbers do not go together; the message has all of them.
    """
    chosen = [config.total_batch_size, config.max_samples, config.val_every_steps, config.val_every_samples]
    if all(value is None for value in chosen):
        return
    if any(value is not None and value < 1 for value in chosen):
        raise SettingsError("total_batch_size, max_samples, val_every_steps and val_every_samples must be at least 1")
    if config.val_every_steps and config.val_every_samples:
        raise SettingsError("val_every_steps and val_every_samples say the same thing twice: give one of them")
    batch_size: Any = getattr(data, "batch_size", None)
    needed = [config.total_batch_size, config.max_samples, config.val_every_samples]
    if batch_size is None and any(value is not None for value in needed):
        raise SettingsError(
            f"{type(data).__name__} has no attribute batch_size, which lengths in samples are counted with"
        )

    if config.total_batch_size is not None:
        at_once = batch_size * trainer.world_size
        accumulation, rest = divmod(config.total_batch_size, at_once)
        if rest or not accumulation:
            near = " or ".join(str(times * at_once) for times in (accumulation, accumulation + 1) if times)
            raise SettingsError(
                f"total_batch_size {config.total_batch_size} is not a multiple of {at_once}: "
                f"data.batch_size {batch_size} × {trainer.world_size} devices; nearest: {near}"
            )
        trainer.accumulate_grad_batches = accumulation
    accumulation = trainer.accumulate_grad_batches
    samples_per_step = (batch_size or 1) * trainer.world_size * accumulation
    if config.max_samples is not None:
        trainer.fit_loop.epoch_loop.max_steps = math.ceil(config.max_samples / samples_per_step)
    if config.val_every_steps or config.val_every_samples:
        steps = config.val_every_steps or max(1, round(config.val_every_samples / samples_per_step))
        trainer.val_check_interval = steps * accumulation  # Lightning counts batches here
        trainer.check_val_every_n_epoch = None  # … and over the whole run, not from each epoch's start
