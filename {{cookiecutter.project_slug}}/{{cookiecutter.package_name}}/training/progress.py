"""What Lightning's checkpoints leave out: where exactly a run is, and all values that are kept from batch to batch.

Used by resume.py, which says which parts of Lightning are touched and why.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from lightning.pytorch.utilities import move_data_to_device, rank_zero_warn
from torchmetrics import Metric, MetricCollection

from .metrics_file import MetricsFile

CONNECTOR_METRICS = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
META_FIELDS = (
    "fx name prog_bar logger on_step on_epoch enable_graph add_dataloader_idx dataloader_idx metric_attribute".split()
)


def cut(trainer: Trainer) -> str | None:
    """Where the run can be cut cleanly now: at the start of a `batch`, in a `validation`, between `epoch`s; or None."""
    epoch, batch = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress.current
    if trainer.sanity_checking:
        return None
    if epoch.ready == epoch.completed:
        return "epoch"
    if trainer.validating and batch.ready == batch.completed:
        return "validation"
    if trainer.training and batch.ready == batch.started + 1 == batch.completed + 1:
        return "batch"
    return None


def settle(loops: dict[str, Any], cut: str) -> None:
    """Change the counters of the fit loop in a checkpoint to: so many batches done, none begun."""
    batch, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    for tracker in (batch["total"], batch["current"]):
        tracker["ready"] = tracker["started"] = tracker["processed"] = tracker["completed"]
    if cut == "epoch":
        batch["current"] = dict.fromkeys(batch["current"], 0)
    if cut == "validation":  # not a batch of it has been seen
        validation["total"] = {name: count - validation["current"][name] for name, count in validation["total"].items()}
        validation["current"] = dict.fromkeys(validation["current"], 0)
    else:
        batch["is_last_batch"] = False


def circumstances(trainer: Trainer) -> dict[str, Any]:
    """What a run must keep to be resumed to the bit."""
    device = trainer.strategy.root_device
    return dict(
        ranks=trainer.world_size,
        torch=str(torch.__version__),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
    )


def warn_of_differences(before: dict[str, Any], trainer: Trainer) -> None:
    """Say what differs from the attempt that wrote the checkpoint, and on a GPU, what may differ by itself."""
    now = circumstances(trainer)
    if changed := [f"{name} {before[name]} → {now[name]}" for name in now if before[name] != now[name]]:
        rank_zero_warn(f"The run goes on, but not to the bit as without a restart: {', '.join(changed)}.")
    elif trainer.strategy.root_device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        rank_zero_warn("Resumed runs are equal to the bit on a GPU only with --trainer.deterministic true.")


def gather(state: dict[str, Any], trainer: Trainer) -> list[dict[str, Any]] | None:
    """The states of all ranks, on the CPU, at rank 0; None on the others."""
    state = move_data_to_device(state, torch.device("cpu"))
    if trainer.world_size == 1:
        return [state]
    states: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(state, states)
    return states


def share_buffers(trainer: Trainer, model: LightningModule) -> None:
    """Give all ranks the buffers of rank 0, as DDP does before each training step.

    Batch norm statistics differ by rank; each would validate a model of its own, and a checkpoint has only rank 0's.
    """
    averages = [one._average_model for one in trainer.callbacks if isinstance(one, WeightAveraging)]
    for module in (model, *averages) if trainer.world_size > 1 else ():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def gradients(model: LightningModule) -> dict[str, torch.Tensor]:
    """Name → gradient of the parameters that have one."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def rank_state(trainer: Trainer) -> dict[str, Any]:
    """Running averages of logged values in this epoch, and the newest values of all metrics, on this rank."""
    results = trainer.fit_loop.epoch_loop._results
    return dict(
        averages={key: average_state(average) for key, average in results.items() if average.meta.sync.group is None},
        newest={name: dict(getattr(trainer._logger_connector, name)) for name in CONNECTOR_METRICS},
    )


def average_state(average: _ResultMetric) -> dict[str, Any]:
    """One running average as plain data: what was given to self.log, and what has been summed up since."""
    meta, names = average.meta, ("value", "cumulated_batch_size")
    return dict(
        meta={name: getattr(meta, name) for name in META_FIELDS} | {"reduce_fx": meta.reduce_fx.__name__},
        sync=dict(_should=meta.sync.should, rank_zero_only=meta.sync.rank_zero_only),
        is_tensor=average.is_tensor,
        sums={name: getattr(average, name) for name in names if average.is_tensor and hasattr(average, name)},
        last=average._forward_cache,
        has_reset=average.has_reset,
        count=average._update_count,
    )


def validation_state(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """What a validation changes: states of metric objects, how many of its batches have been seen, rows logged."""
    for module in model.modules():
        if isinstance(module, MetricCollection):
            module.values()  # gives all its metrics the states that some of them share
    metrics = {name: metric_state(module) for name, module in model.named_modules() if isinstance(module, Metric)}
    return dict(
        metrics=metrics,
        seen=dict(trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader),
        rows=max((logger.rows for logger in trainer.loggers if isinstance(logger, MetricsFile)), default=0),
    )


def metric_state(metric: Metric) -> dict[str, Any]:
    """A copy of a metric's state, which is changed in place: tensors, or growing lists of tensors."""
    states = {
        name: list(state) if isinstance(state, list) else state.clone() for name, state in metric.metric_state.items()
    }
    return dict(states=states, count=metric._update_count)


def put_back(trainer: Trainer, model: LightningModule, saved: dict[str, Any]) -> None:
    """Undo `rank_state`, `validation_state` and `gradients`: put everything back in place, on the model's device."""
    saved = move_data_to_device(saved, model.device)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name, state in saved["metrics"].items():
        if isinstance(metric := modules.get(name), Metric):
            for attribute, value in state["states"].items():
                setattr(metric, attribute, value)
            metric._update_count, metric._computed = state["count"], None
    for name, gradient in saved.get("gradients", {}).items():
        parameters[name].grad = gradient
    trainer.fit_loop.epoch_loop.val_loop._seen_batches_per_dataloader.update(saved["seen"])
    for name, values in saved["newest"].items():
        setattr(trainer._logger_connector, name, values)
    results: _ResultCollection = trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, state in saved["averages"].items():
        fields = state["meta"] | {"reduce_fx": getattr(torch, state["meta"]["reduce_fx"])}
        meta = _Metadata(**fields)
        meta.sync = _Sync(fn=trainer.strategy.reduce, **state["sync"])
        average = results[key] = _ResultMetric(meta, state["is_tensor"])
        if not state["is_tensor"]:  # it refers to a metric object of the model
            average.value = modules[meta.metric_attribute]
        for name, value in state["sums"].items():
            setattr(average, name, value)
        average._forward_cache, average.has_reset, average._update_count = (
            state["last"],
            state["has_reset"],
            state["count"],
        )
    results.to(model.device)
