"""Attributes of a model that change while it trains: a counter, a list of outputs, the hidden state of an RNN.

They are in no checkpoint of Lightning's, since they are neither weights nor buffers. Kept are those that are numbers,
tensors, or lists, tuples, sets, dicts and deques of them, and that differ from what they were when the first epoch
began; likewise which weights are frozen. What was set once and never changed belongs to the code, and a new version of
the code may change it. Texts are not kept: they are names, folders and devices, which the next attempt knows better.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import Metric, MetricCollection

Saved = dict[str, Any]
Place = tuple[str, str]  # of a module in the model, and of its attribute

FROZEN = "requires_grad of"

_OF_EACH_MODULE = frozenset((*vars(nn.Module()), *vars(LightningModule())))


def fingerprints(model: nn.Module) -> dict[Place, Any]:
    """What tells later what has changed: the values of numbers, which tensors there are, which weights are frozen.

    A tensor is told by itself and by its version, which counts the changes in place. So nothing is copied.
    """
    found = {place: _fingerprint(value) for place, value in _attributes(model)}
    for name, parameter in model.named_parameters():
        found[FROZEN, name] = parameter.requires_grad
    return found


def save(model: nn.Module, before: dict[Place, Any]) -> Saved:
    """Copies of the attributes that have changed, as plain data, and the weights that were frozen or thawed.

    Args:
        model: the model.
        before: `fingerprints`, when the first epoch began.
    """
    attributes: dict[str, dict[str, Any]] = {}
    for place, value in _attributes(model):
        if place in before and _same(before[place], _fingerprint(value)):
            continue
        module, name = place
        attributes.setdefault(module, {})[name] = _packed(value)

    learning = {}
    for name, parameter in model.named_parameters():
        if before.get((FROZEN, name)) != parameter.requires_grad:
            learning[name] = parameter.requires_grad
    return dict(attributes=attributes, learning=learning)


def restore(model: LightningModule, saved: Saved) -> None:
    """Put back what `save` has returned. What a changed model no longer has is passed over."""
    modules = dict(model.named_modules())
    for place, values in saved["attributes"].items():
        for name, value in values.items():
            if place in modules:
                _put_back(modules[place], name, _unpacked(value, model.device))

    parameters = dict(model.named_parameters())
    for name, learns in saved["learning"].items():
        if name in parameters:
            parameters[name].requires_grad_(learns)


def _put_back(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute; a tensor in place where that is possible, since an optimizer may have it."""
    own = (module.named_parameters(recurse=False), module.named_buffers(recurse=False), module.named_children())
    if name in {registered for registered, _ in chain(*own)}:
        return  # in the changed model it is a weight, a buffer or a module
    now = vars(module).get(name)
    if isinstance(now, torch.Tensor) and isinstance(value, torch.Tensor):
        if now.is_leaf and (now.shape, now.dtype) == (value.shape, value.dtype):
            with torch.no_grad():
                now.copy_(value)
            return
    setattr(module, name, value)


def _attributes(model: nn.Module) -> Iterator[tuple[Place, Any]]:
    """All attributes of the modules in a model that can be kept."""
    for place, module in model.named_modules():
        if isinstance(module, Metric | MetricCollection):
            continue  # metric_states.py has them
        for name, value in vars(module).items():
            if name in _OF_EACH_MODULE or not _can_be_kept(value):
                continue
            if not _is_derived(module, name):
                yield (place, name), value


def _is_derived(module: nn.Module, name: str) -> bool:
    """True for a weight that is computed from others before each step: by weight norm, spectral norm or pruning."""
    return any(parameter.startswith(f"{name}_") for parameter, _ in module.named_parameters(recurse=False))


def _can_be_kept(value: Any) -> bool:
    """True for numbers and tensors, and for containers of them."""
    kind = type(value)
    if kind in (int, float, bool, complex, type(None)):
        return True
    if kind is torch.Tensor:
        return True
    if kind is dict:
        keys = all(type(key) in (str, int, float, bool) for key in value)
        return keys and all(map(_can_be_kept, value.values()))
    if kind in (list, tuple, set, deque):
        return all(map(_can_be_kept, value))
    return False


def _fingerprint(value: Any) -> Any:
    """What changes when a value does."""
    kind = type(value)
    if kind is torch.Tensor:
        return kind, value, value._version
    if kind is dict:
        return kind, [(key, _fingerprint(item)) for key, item in value.items()]
    if kind is set:
        return kind, sorted(map(repr, value))
    if kind in (list, tuple, deque):
        return kind, [_fingerprint(item) for item in value]
    return kind, repr(value)  # of which NaN is equal to NaN


def _same(one: Any, other: Any) -> bool:
    """True if two fingerprints are the same. Tensors are compared as objects: their values would take time."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _packed(value: Any) -> Any:
    """A copy that a checkpoint can hold; `_unpacked` makes the value from it."""
    kind = type(value)
    if kind is torch.Tensor:
        # Without its graph. Some are on the CPU while the model is not.
        return dict(kind="tensor", value=value.detach().clone(), device=value.device.type)
    if kind is dict:
        return dict(kind="dict", value=[(key, _packed(item)) for key, item in value.items()])
    if kind is deque:
        return dict(kind="deque", value=[_packed(item) for item in value], maxlen=value.maxlen)
    if kind in (list, tuple, set):
        return dict(kind=kind.__name__, value=[_packed(item) for item in value])
    return value


def _unpacked(packed: Any, device: torch.device) -> Any:
    """The value that `_packed` was given, on the model's device; a copy again, as checkpoints are not the model's."""
    if type(packed) is not dict:
        return packed

    value = packed["value"]
    if packed["kind"] == "tensor":
        return value.clone() if packed["device"] == "cpu" else value.to(device, copy=True)
    if packed["kind"] == "dict":
        return {key: _unpacked(item, device) for key, item in value}

    items = [_unpacked(item, device) for item in value]
    if packed["kind"] == "deque":
        return deque(items, packed["maxlen"])
    return dict(list=list, tuple=tuple, set=set)[packed["kind"]](items)
