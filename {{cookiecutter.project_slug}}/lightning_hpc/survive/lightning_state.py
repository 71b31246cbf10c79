"""What Lightning's checkpoints leave out: where exactly a run is, and all values that are kept from batch to batch.

Three groups of functions, all used by exact_resume.py:

- where a run can be cut, and what its saved counters must then say: `place_to_cut`, `count_whole_batches`
- what must stay the same for a restart to be exact: `conditions`, `warn_of_differences`
- the values of one rank, as plain data and back: `loop_state`, `validation_state`, `gradients`, `restore`

Much of this is private to Lightning and torchmetrics; private_names.py lists it and checks that it is there.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from lightning.pytorch.utilities import move_data_to_device, rank_zero_warn
from torchmetrics import Metric

from ..values import attributes, metric_states
from .metrics_file import MetricsFile

# Where the Trainer keeps the newest value of each metric: for callbacks, for loggers and for the progress bar.
NEWEST_METRICS = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")

# The arguments of self.log that describe one running average.
LOG_ARGUMENTS = (
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx", "dataloader_idx",
    "metric_attribute",
)  # fmt: skip

# The sums that a running average of tensors holds.
SUMS = ("value", "cumulated_batch_size")


# Where a run can be cut


def place_to_cut(trainer: Trainer) -> str | None:
    """Where the run is now, if it can be cut there cleanly.

    Lightning counts each epoch and each batch four times: ready, started, processed, completed. Together the counts
    tell what has begun and is not done yet.

    Returns:
        `batch`: at the start of a training batch, before anything of it is done.
        `validation`: in a validation, which is done again from its first batch.
        `epoch`: between two epochs.
        None: anywhere else. Something has begun that can't be repeated.
    """
    epoch = trainer.fit_loop.epoch_progress.current
    batch = trainer.fit_loop.epoch_loop.batch_progress.current

    if trainer.sanity_checking:
        return None  # the run has not begun

    if epoch.ready == epoch.completed:
        return "epoch"

    if trainer.validating and batch.ready == batch.completed:
        return "validation"

    # The batch that is ready is the next one. All before it are completed, and it has not started itself.
    if trainer.training and batch.ready == batch.started + 1 == batch.completed + 1:
        return "batch"

    return None


def count_whole_batches(loops: dict[str, Any], place: str) -> None:
    """Change the saved counters so that they tell of whole batches alone: so many are done, and none has begun.

    Args:
        loops: the state of the fit loop in a checkpoint; changed in place.
        place: what `place_to_cut` has returned.
    """
    batches = loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]

    # The batch that is ready is fetched again after the restart, and counted then.
    for counts in (batches["total"], batches["current"]):
        counts["ready"] = counts["started"] = counts["processed"] = counts["completed"]

    # Between two epochs, the batches still counted are those of the last one; the next one has had none.
    if place == "epoch":
        batches["current"] = dict.fromkeys(batches["current"], 0)

    if place == "validation":
        # The validation is repeated as a whole, so what it has done until now must not be counted.
        for name, count in validation["current"].items():
            validation["total"][name] -= count
        validation["current"] = dict.fromkeys(validation["current"], 0)
    else:
        # It tells of the batch that is ready, which is fetched again. In a validation it tells of the batch before,
        # and must stay: after an epoch's last batch, the epoch ends when the validation is done.
        batches["is_last_batch"] = False


# What must stay the same


def conditions(trainer: Trainer) -> dict[str, Any]:
    """What a run must keep to be resumed bit for bit: number of ranks, torch's version, device, threads."""
    device = trainer.strategy.root_device
    return dict(
        ranks=trainer.world_size,
        torch=str(torch.__version__),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
    )


def warn_of_differences(before: dict[str, Any], trainer: Trainer) -> None:
    """Warn of what has changed since the checkpoint was written, and of what may differ by itself on a GPU.

    Args:
        before: `conditions` of the attempt that has written the checkpoint.
        trainer: the Trainer of this attempt.
    """
    now = conditions(trainer)
    changed = [f"{name} {before[name]} → {now[name]}" for name in now if before[name] != now[name]]

    if changed:
        rank_zero_warn(f"The run continues, but not to the bit as without a restart: {', '.join(changed)}.")
    elif trainer.strategy.root_device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        rank_zero_warn("Resumed runs are equal to the bit on a GPU only with --trainer.deterministic true.")


# The values of one rank, as plain data


def gradients(model: LightningModule) -> dict[str, torch.Tensor]:
    """Name → gradient, of the parameters that have one; of sharded ones, the part of this rank."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None:
            found[name] = gradient.to_local() if is_sharded(parameter) else gradient
    return found


def is_sharded(parameter: torch.Tensor) -> bool:
    """True for a DTensor, of which each rank holds a part; the class is not imported for runs that have none."""
    return hasattr(parameter, "to_local")


def loop_state(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """The running averages of this epoch's logged values, the newest value of each metric, and buffers."""
    averages = {}
    for key, average in trainer.fit_loop.epoch_loop._results.items():
        # An average over a process group of the user's own can't be made again: the group is no plain data.
        if average.meta.sync.group is None:
            averages[key] = average_state(average)

    newest = {name: dict(getattr(trainer._logger_connector, name)) for name in NEWEST_METRICS}
    return dict(averages=averages, newest=newest, buffers=own_buffers(model))


def average_state(average: _ResultMetric) -> dict[str, Any]:
    """One running average as plain data: what was given to self.log, and what has been summed up since."""
    meta = average.meta
    arguments = {name: getattr(meta, name) for name in LOG_ARGUMENTS}
    arguments["reduce_fx"] = meta.reduce_fx.__name__

    # An average of a metric object has no sums: the metric has the values, and is saved with the others.
    sums = {}
    if average.is_tensor:
        sums = {name: getattr(average, name) for name in SUMS if hasattr(average, name)}

    return dict(
        meta=arguments,
        sync=dict(_should=meta.sync.should, rank_zero_only=meta.sync.rank_zero_only),
        is_tensor=average.is_tensor,
        sums=sums,
        last=average._forward_cache,
        has_reset=average.has_reset,
        count=average._update_count,
    )


def validation_state(
    trainer: Trainer, model: LightningModule, at_start: metric_states.Attributes, before: dict[attributes.Place, Any]
) -> dict[str, Any]:
    """What a validation changes: states of metric objects, attributes, how many batches it has seen, rows logged.

    Args:
        trainer: the Trainer.
        model: the model.
        at_start: what metrics have had as attributes before anything was measured.
        before: the fingerprints of the model's own attributes before the first epoch.
    """
    rows = [logger.rows for logger in trainer.loggers if isinstance(logger, MetricsFile)]
    return metric_states.save(model, at_start) | dict(
        model=attributes.save(model, before),
        seen=dict(trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader),
        rows=max(rows, default=0),
    )


def own_buffers(model: LightningModule) -> dict[str, torch.Tensor]:
    """Name → buffer, of those that `persistent=False` keeps out of the weights: a training step may change them too."""
    buffers = {}
    for place, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            buffer = getattr(module, name)
            if buffer is not None and not isinstance(module, Metric):  # a metric's are with its states
                buffers[f"{place}.{name}".lstrip(".")] = buffer
    return buffers


# … and back


def restore(trainer: Trainer, model: LightningModule, saved: dict[str, Any]) -> None:
    """Put the values of `loop_state`, `validation_state` and `gradients` back in place, on the model's device.

    Args:
        trainer: the Trainer, in the first hook that may use the values.
        model: the model, with the checkpoint's weights.
        saved: the saved values of this rank.
    """
    saved = move_data_to_device(saved, model.device)
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())

    metric_states.restore(model, saved)

    buffers = own_buffers(model)
    for name, value in saved.get("buffers", {}).items():
        if name in buffers and buffers[name].shape == value.shape:  # a changed model may have it no longer
            with torch.no_grad():
                buffers[name].copy_(value)

    for name, gradient in saved.get("gradients", {}).items():
        parameters[name].grad = as_part_of(parameters[name], gradient)

    trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader.update(saved["seen"])
    for name, values in saved["newest"].items():
        setattr(trainer._logger_connector, name, values)

    results: _ResultCollection = trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, state in saved["averages"].items():
        results[key] = restored_average(state, trainer, modules)
    results.to(model.device)


def as_part_of(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """A gradient in the form of its parameter: of a sharded one, a DTensor of all ranks' parts."""
    if not is_sharded(parameter):
        return local

    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


def restored_average(saved: dict[str, Any], trainer: Trainer, modules: dict[str, torch.nn.Module]) -> _ResultMetric:
    """The running average that `average_state` has described."""
    arguments = dict(saved["meta"])
    arguments["reduce_fx"] = getattr(torch, arguments["reduce_fx"])
    meta = _Metadata(**arguments)
    meta.sync = _Sync(fn=trainer.strategy.reduce, **saved["sync"])

    average = _ResultMetric(meta, saved["is_tensor"])
    if not saved["is_tensor"]:
        average.value = modules[meta.metric_attribute]  # the metric object that was given to self.log

    for name, value in saved["sums"].items():
        setattr(average, name, value)
    average._forward_cache = saved["last"]
    average.has_reset = saved["has_reset"]
    average._update_count = saved["count"]
    return average
