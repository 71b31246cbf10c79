"""From a validation to files and trackers: what a map is called, and who gets its picture."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .map import CKAMap, write

if TYPE_CHECKING:
    from PIL.Image import Image


def send_picture(loggers: Iterable[Any], key: str, path: Path, picture: "Image", content: bytes, step: int) -> None:
    """Log a picture with those of the loggers that take pictures: W&B, MLflow, Comet and TensorBoard.

    Args:
        loggers: as in ``trainer.loggers``.
        key: the name it gets there.
        path: the picture's file.
        picture: what it shows.
        content: what is in the file.
        step: the training step that it shows.
    """
    for logger in loggers:
        # What they really have: some answer to any name, and do nothing.
        if "log_png" in dir(logger):  # this package's tracker for W&B, which need not read the file then
            logger.log_png(key, content, step=step)
        elif "log_image" in dir(logger):  # W&B, MLflow, Comet
            logger.log_image(key, [str(path)], step=step)
        elif "add_image" in dir(getattr(logger, "experiment", None)):  # TensorBoard
            pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(key, pixels, step, dataformats="HWC")


def publish(cka_map: CKAMap, path: Path, loggers: Iterable[Any], key: str, step: int) -> bool:
    """Write a map to files, and its picture to the trackers; False, with a warning, if that could not be done.

    Args:
        cka_map: the map.
        path: the picture's file.
        loggers, key, step: as for ``send_picture``.
    """
    try:
        picture, content = write(cka_map, path)
        send_picture(loggers, key, path, picture, content, step)
    except Exception as error:  # a full disk, a tracker that is gone: no picture is worth a run
        warnings.warn(f"CKA: no picture {path}: {error}", stacklevel=2)
        return False
    return True


def names_of(trainer: Any) -> tuple[str, str]:
    """What a validation's map is called: its files, and the model in it; with the step where an epoch has several.

    Args:
        trainer: Lightning's Trainer, in a validation of ``fit``.
    """
    epoch, step = trainer.current_epoch + 1, trainer.global_step  # counted from 1, as in all that a person reads
    every = trainer.val_check_batch  # None: by the clock
    once = trainer.check_val_every_n_epoch is not None and every is not None and every >= trainer.num_training_batches
    if once:
        return f"epoch-{epoch:03d}", f"model, epoch {epoch}"
    return f"epoch-{epoch:03d}-step-{step:08d}", f"model, epoch {epoch}, step {step}"
