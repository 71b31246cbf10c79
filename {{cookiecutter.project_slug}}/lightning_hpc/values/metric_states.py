"""States of torchmetrics' metrics as plain data and back, with what wrappers and running metrics keep beside them.

A metric registers its states, which `metric_state` has. Some change other attributes too: `RunningMean` counts, and
`MinMaxMetric` remembers. So an attribute is kept if it is plain data and differs from what it was at the start; what
was set once and never changed belongs to the code, and a new version of the code may change it.
"""

from typing import Any

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers import MetricTracker

from .plain_data import is_plain

Attributes = dict[str, dict[str, Any]]  # name of a metric in the model → name → value


class _Bare(Metric):
    """A metric that keeps nothing: what it has, each metric has."""

    def update(self) -> None:
        pass

    def compute(self) -> None:
        pass


OF_EACH_METRIC = frozenset(vars(_Bare()))


def attributes_now(model: nn.Module) -> Attributes:
    """The plain attributes of all metrics in a model that are no states; to be called before anything is measured."""
    return {name: _attributes(metric) for name, metric in metrics_in(model).items()}


def metrics_in(model: nn.Module) -> dict[str, Metric]:
    """Name → metric, also of those within collections and wrappers."""
    # Metrics of a collection may share their states. values() gives each its own reference to them.
    for module in model.modules():
        if isinstance(module, MetricCollection):
            module.values()

    return {name: module for name, module in model.named_modules() if isinstance(module, Metric)}


def save(model: nn.Module, at_start: Attributes) -> dict[str, Any]:
    """The states of all metrics in a model, as copies: a metric changes them in place.

    Args:
        model: the model.
        at_start: `attributes_now` before anything was measured.
    """
    metrics = {name: _state(metric, at_start.get(name, {})) for name, metric in metrics_in(model).items()}
    trackers = {name: module.n_steps for name, module in model.named_modules() if isinstance(module, MetricTracker)}
    return dict(metrics=metrics, trackers=trackers)


def restore(model: nn.Module, saved: dict[str, Any]) -> None:
    """Put back what `save` has returned. What a changed model no longer has is passed over."""
    modules = dict(model.named_modules())
    for name, steps in saved.get("trackers", {}).items():
        tracker = modules.get(name)
        while isinstance(tracker, MetricTracker) and tracker.n_steps < steps:
            tracker.increment()  # it makes a metric for each step

    metrics = metrics_in(model)
    for name, state in saved["metrics"].items():
        if name in metrics:
            _restore_one(metrics[name], state)


def _state(metric: Metric, at_start: dict[str, Any]) -> dict[str, Any]:
    """A copy of one metric's state."""
    attributes = {}
    for name, value in _attributes(metric).items():
        if name not in at_start or not _equal(value, at_start[name]):
            attributes[name] = value

    states = {}
    for name, state in metric.metric_state.items():
        states[name] = list(state) if isinstance(state, list) else state.clone()  # parts of a list stay as they are
    return dict(states=states, attributes=attributes, count=metric._update_count)


def _restore_one(metric: Metric, saved: dict[str, Any]) -> None:
    """Put one metric's state back."""
    for name, value in (saved["states"] | saved.get("attributes", {})).items():
        setattr(metric, name, value)
    metric._update_count = saved["count"]
    metric._computed = None  # what was computed from other states


def _attributes(metric: Metric) -> dict[str, Any]:
    """Copies of the plain attributes that are no states."""
    names = vars(metric).keys() - OF_EACH_METRIC - metric.metric_state.keys()
    return {name: _copied(vars(metric)[name]) for name in sorted(names) if is_plain(vars(metric)[name])}


def _copied(value: Any) -> Any:
    """A copy of plain data that shares no memory with it."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _equal(one: Any, other: Any) -> bool:
    """True if two plain values are the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
