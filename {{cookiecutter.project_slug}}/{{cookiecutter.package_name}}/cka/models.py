"""Copy, run and look into models so that they don't notice."""

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn

from .metric import CKAError
from .recorder import NOT_LAYERS


def recorded_module(pl_module: nn.Module, name: str | None = None) -> nn.Module:
    """The module in a LightningModule whose layers are compared; any other module is taken as it is."""
    if not isinstance(pl_module, LightningModule):
        return pl_module
    children = {key: child for key, child in pl_module.named_children() if not isinstance(child, NOT_LAYERS)}
    if name is not None:
        if name not in children:
            raise CKAError(f"CKA: {type(pl_module).__name__} has no module {name!r}; it has {', '.join(children)}")
        return children[name]
    if len(children) == 1:
        return next(iter(children.values()))
    return children.get("network", pl_module)


def original(module: nn.Module) -> nn.Module:
    """The module itself where torch.compile has wrapped it."""
    return getattr(module, "_orig_mod", module)


def is_compiled(module: nn.Module) -> bool:
    """Whether hooks in ``module`` might not fire: torch.compile leaves out those that came after it."""
    return any(original(m) is not m or m._compiled_call_impl is not None for m in module.modules())


@contextmanager
def before_call(module: nn.Module, observe: Callable[[tuple, dict], None]) -> Iterator[None]:
    """Call ``observe(args, kwargs)`` before each call of ``module``, compiled or not."""
    compiled = module._compiled_call_impl
    if compiled is None:
        handle = module.register_forward_pre_hook(lambda _, args, kwargs: observe(args, kwargs), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        return

    def observed(*args: Any, **kwargs: Any) -> Any:  # a hook would be compiled with the module
        observe(args, kwargs)
        return compiled(*args, **kwargs)

    module._compiled_call_impl = observed
    try:
        yield
    finally:
        module._compiled_call_impl = compiled


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode without gradients, for good."""
    return deepcopy(original(module)).cpu().eval().requires_grad_(False)


def load_weights(model: nn.Module, weights: dict[str, Any], source: str | Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CKAError(f"CKA: the weights in {source} don't fit {type(model).__name__}: {error}") from None


def checkpoint_weights(path: str | Path, pl_module: LightningModule, root: nn.Module) -> dict[str, Any]:
    """The part of a Lightning checkpoint that belongs to ``root``, with names as in ``root``."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError:
        raise CKAError(f"CKA: no checkpoint {path}; reference is a path, or one of self, init, ema") from None
    except (KeyError, pickle.UnpicklingError, RuntimeError) as error:
        raise CKAError(f"CKA: {path} is not a checkpoint that can be read without running code: {error!r}") from None
    prefix = next(f"{name}." if name else "" for name, module in pl_module.named_modules() if module is root)
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode, and every submodule back in the mode that it was in."""
    modes = [(module, module.training) for root in modules for module in root.modules()]
    try:
        for root in modules:
            root.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Draw what you like inside; afterwards the random generators stand where they stood."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
