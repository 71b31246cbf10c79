"""What the ranks of a run do together: each function here is called by all of them, in the same order."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import move_data_to_device

from .. import signals


def agree(trainer: Trainer, due: bool, reason: str | None) -> tuple[bool, str | None]:
    """Bring all ranks to the same answer: a save is due when rank 0 says so; a signal to any rank stops all.

    Args:
        trainer: the Trainer, of which all ranks are here.
        due: True if this rank finds a save due. Clocks differ, so only rank 0's counts.
        reason: why this rank was asked to stop, or None.

    Returns:
        `due` and `reason` for all ranks.
    """
    reasons = [None, *signals.REASONS.values()]
    votes = torch.tensor([due and trainer.is_global_zero, reasons.index(reason)], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    return bool(votes[0]), reasons[int(votes[1])]


def together(trainer: Trainer, action: Callable[[], Any]) -> tuple[str | None, bool]:
    """Do something on all ranks; all learn from the first rank that can't what has gone wrong. They also wait for it.

    Args:
        trainer: the Trainer, of which all ranks are here.
        action: what this rank does.

    Returns:
        what has gone wrong, or None; and whether it would go wrong again: True unless it may have been the disk.
    """
    mine: tuple[str | None, bool] = (None, False)
    try:
        action()
    except OSError as error:
        mine = (error.strerror or str(error), False)
    except RuntimeError as error:
        mine = (str(error), type(error) is not RuntimeError)  # with which torch says that the disk is full, too
    except BaseException as error:
        # What torch.distributed.checkpoint raises on all ranks if one could not write; it is no Exception.
        if type(error).__name__ != "CheckpointException":
            raise
        mine = (" ".join(str(error).split()), False)
    if trainer.world_size == 1:
        return mine

    of_ranks = [mine] * trainer.world_size
    torch.distributed.all_gather_object(of_ranks, mine)
    return next((problem for problem in of_ranks if problem[0] is not None), mine)


def gather_on_rank_0(state: dict[str, Any], trainer: Trainer) -> list[dict[str, Any]] | None:
    """Returns the states of all ranks, on the CPU, in the order of the ranks; None on all ranks but rank 0."""
    state = move_data_to_device(state, torch.device("cpu"))
    if trainer.world_size == 1:
        return [state]

    states: list[Any] | None = None
    if trainer.is_global_zero:
        states = [None] * trainer.world_size
    torch.distributed.gather_object(state, states)
    return states


def share_buffers(trainer: Trainer, model: LightningModule) -> None:
    """Give all ranks the buffers of rank 0, as DDP does before each training step.

    Batch norm statistics differ by rank. Each rank would validate a model of its own, and a checkpoint has only those
    of one rank: with sharded weights not always those of rank 0.
    """
    if trainer.world_size == 1:
        return

    modules: list[torch.nn.Module] = [model]
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            modules.append(callback._average_model)

    for module in modules:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
