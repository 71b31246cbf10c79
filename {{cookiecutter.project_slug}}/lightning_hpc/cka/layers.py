"""The layers of a model: which modules are meant by a name or a glob, and which tensor of an output is looked at."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torchmetrics import Metric

from .gram import CKAError

LISTS = (nn.ModuleList, nn.ModuleDict)  # their forward is never called

NOT_LAYERS = (Metric, _Loss)

NO_NEW_OUTPUT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)  # in eval mode


def select_layers(model: nn.Module, patterns: Sequence[str] | None = None) -> tuple[dict[str, nn.Module], set[str]]:
    """The modules that ``GramRecorder`` is to record, by name, and the names that were asked for in full.

    Args:
        model: any module.
        patterns: names or globs, see ``GramRecorder``; None takes the model's children.

    Raises:
        CKAError: a pattern that matches nothing (the message has the nearest names), or a model without children.
    """
    if patterns is None:
        layers = default_layers(model)
        if not layers:
            raise CKAError(f"CKA: {type(model).__name__} has no children to take as layers; name them in `layers`")
        return layers, set()

    if isinstance(patterns, str):
        patterns = [patterns]
    modules = {plain_name(name): module for name, module in model.named_modules(remove_duplicate=False) if name}
    layers: dict[str, nn.Module] = {}
    for pattern in patterns:
        names = matching_names(pattern, modules)
        if not names:
            nearest = difflib.get_close_matches(pattern, modules, n=3, cutoff=0.4) or list(modules)[:5]
            raise CKAError(
                f"CKA: no layer of {type(model).__name__} matches {pattern!r}; nearest: {', '.join(nearest)}"
            )
        for name in names:
            # A glob passes over lists, losses and metrics; a full name means what it says.
            if name == pattern or not is_a(modules[name], LISTS + NOT_LAYERS):
                layers[name] = modules[name]

    # A module that is known by several names counts once, by the first of them.
    first_names = {id(module): name for name, module in reversed(layers.items())}
    layers = {name: module for name, module in layers.items() if first_names[id(module)] == name}
    return layers, {pattern for pattern in patterns if pattern in layers}


def matching_names(pattern: str, names: Mapping[str, Any]) -> list[str]:
    """The names that match a glob, in order: ``*`` and ``?`` stop at a dot, ``**`` doesn't."""
    regex = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
    return [name for name in names if re.fullmatch(regex, name)]


def is_a(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """`isinstance`, without going through all metrics there are, as it does for an abstract class such as Metric."""
    return any(kind in type(module).__mro__ for kind in kinds)


def default_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The children of a model, or of its only child, and so on: a mere wrapper says nothing."""
    layers = layer_children(model)
    while len(layers) == 1:
        name, child = next(iter(layers.items()))
        inner = layer_children(child, f"{name}.")
        if not inner:
            break
        layers = inner
    return layers


def layer_children(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """A module's children by name, those of an nn.Sequential or a list of modules in its place."""
    layers: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if is_a(child, NOT_LAYERS + NO_NEW_OUTPUT):
            continue
        if isinstance(child, (nn.Sequential, *LISTS)):
            layers |= layer_children(child, f"{prefix}{name}.")
        else:
            layers[prefix + name] = child
    return {plain_name(name): child for name, child in layers.items()}


def plain_name(name: str) -> str:
    """A module's name without the wrapper that torch.compile puts in it."""
    return name.replace("_orig_mod.", "")


def floating_tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a layer's output, in order, scalars (a loss, say) left out."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.dim():
            yield output
    elif isinstance(output, Mapping):  # Hugging Face's ModelOutput too
        for value in output.values():
            yield from floating_tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from floating_tensors(value)
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from floating_tensors(getattr(output, field.name))
