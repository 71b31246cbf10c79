"""Copy, run and look into models so that they don't notice."""

import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .gram import CKAError
from .layers import NOT_LAYERS, is_a, select_layers
from .maps.map import replacing


def recorded_module(pl_module: nn.Module, name: str | None = None) -> nn.Module:
    """The module in a LightningModule whose layers are compared; any other module is taken as it is."""
    if not isinstance(pl_module, LightningModule):
        return pl_module

    children = {key: child for key, child in pl_module.named_children() if not is_a(child, NOT_LAYERS)}
    if name is not None:
        if name not in children:
            raise CKAError(f"CKA: {type(pl_module).__name__} has no module {name!r}; it has {', '.join(children)}")
        return children[name]

    # Without a name: the only child, or the one that is called as in this template's model.
    if len(children) == 1:
        return next(iter(children.values()))
    return children.get("network", pl_module)


def original(module: nn.Module) -> nn.Module:
    """The module that torch.compile has wrapped; any other module itself."""
    return getattr(module, "_orig_mod", module)


def device_of(model: nn.Module, default: torch.device | None = None) -> torch.device:
    """Where a model's weights are; without weights, ``default`` or the CPU."""
    parameter = next(model.parameters(), None)
    if parameter is not None:
        return parameter.device
    return torch.device("cpu") if default is None else default


def is_compiled(module: nn.Module) -> bool:
    """True if hooks in ``module`` might not fire: torch.compile leaves out those that came after it."""
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

    # A hook would be compiled with the module.
    def observed(*args: Any, **kwargs: Any) -> Any:
        observe(args, kwargs)
        return compiled(*args, **kwargs)

    module._compiled_call_impl = observed
    try:
        yield
    finally:
        module._compiled_call_impl = compiled


class CannotCopy(CKAError):
    """A module can't be copied; the message says which and why."""


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode without gradients, for good.

    Raises:
        CannotCopy: a part of it refuses to be copied, or its lazy layers have no weights yet.
    """
    name = type(original(module)).__name__
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise CannotCopy(f"{name} has lazy layers, which get their weights at the first batch only")
    try:
        return deepcopy(original(module)).cpu().eval().requires_grad_(False)
    except Exception as error:  # weights that are computed, locks, open files: each raises something else
        raise CannotCopy(f"{name} can't be copied: {error}") from error


def label_of(reference: str | nn.Module) -> str:
    """What a reference is called in logs."""
    if isinstance(reference, nn.Module):
        return "reference"
    if reference in ("self", "init", "ema"):
        return reference
    return "checkpoint"


def load_weights(model: nn.Module, weights: dict[str, Any], source: str | Path) -> None:
    """Load weights into a model; a CKAError names the ``source`` of weights that don't fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CKAError(f"CKA: the weights in {source} don't fit {type(model).__name__}: {error}") from None


def checkpoint_weights(path: str | Path, pl_module: LightningModule, root: nn.Module) -> dict[str, Any]:
    """The part of a Lightning checkpoint that belongs to ``root``, with names as in ``root``.

    Args:
        path: the checkpoint.
        pl_module: a LightningModule of the class that it is of.
        root: the module in it whose weights are wanted.

    Raises:
        CKAError: there is no such file, or it can't be read without running code that is in it.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError:
        raise CKAError(f"CKA: no checkpoint {path}; reference is a path, or one of self, init, ema") from None
    except (KeyError, pickle.UnpicklingError, RuntimeError) as error:
        raise CKAError(f"CKA: {path} is not a checkpoint that can be read without running code: {error!r}") from None

    path_of_root = next(name for name, module in pl_module.named_modules() if module is root)
    prefix = f"{path_of_root}." if path_of_root else ""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def fixed_reference(
    reference: str | nn.Module, layers: list[str] | None, network: nn.Module, pl_module: LightningModule
) -> nn.Module | None:
    """The model that CKACallback compares with, if it does not depend on the training; None for init, self and ema.

    Args:
        reference: the path of a checkpoint, or a model.
        layers: names or globs of the reference's layers.
        network: the module that is recorded.
        pl_module: the LightningModule that it is in.

    Raises:
        CKAError: it does not fit, can't be read, or has no such layers.
    """
    label = label_of(reference)
    if label == "checkpoint":
        model = frozen_copy(network)
        load_weights(model, checkpoint_weights(reference, pl_module, network), reference)
        return model
    if label == "reference":
        model = frozen_copy(recorded_module(reference))
        select_layers(model, layers)
        return model
    return None


def initial_weights(model: nn.Module, path: Path, trainer: Trainer) -> int:
    """Keep a model's weights at the start of training in a file; when training resumes, load them from there.

    Args:
        model: a copy of the trained model as it is now; a resumed run's gets the weights that are in the file.
        path: the file.
        trainer: says whether this run was resumed. Every rank calls this.

    Returns:
        The step at which the model has these weights: 0, unless the file was lost.
    """
    step = trainer.global_step
    resumed = trainer.ckpt_path is not None

    # All ranks read the file, or none does: they must compare with the same weights.
    if resumed and trainer.strategy.reduce_boolean_decision(path.is_file(), all=True):
        saved = torch.load(path, map_location="cpu", weights_only=True)
        load_weights(model, saved["state_dict"], path)
        return saved["step"]

    if trainer.is_global_zero:
        try:
            _write_weights(model, step, path)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            rank_zero_warn(f"CKA: {path} could not be written ({error}): after a restart the reference is a later step")
        if resumed:
            rank_zero_warn(f"CKA: {path} was missing, so the reference is not the initial weights but step {step}")
    return step


def _write_weights(model: nn.Module, step: int, path: Path) -> None:
    """Write a model's weights, and the step at which it has them, to a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save({"state_dict": model.state_dict(), "step": step}, file)
        file.flush()
        os.fsync(file.fileno())


def obstacle(trainer: Trainer, pl_module: LightningModule, parent: nn.Module | None) -> str | None:
    """Why no layer of this LightningModule can be recorded while it trains, or None.

    Args:
        trainer: its Trainer.
        pl_module: the LightningModule.
        parent: the module whose children are to be the layers; None if the layers have been named.
    """
    if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        return f"{type(trainer.strategy).__name__} shards the model"
    if getattr(pl_module, "_compiler_ctx", None) is not None:
        return "the LightningModule is compiled as a whole; compile the network in it instead"
    if parent is not None and not any(parent.children()):
        return f"{type(parent).__name__} has no children to take as layers"
    return None


def averaging_callback(trainer: Trainer) -> WeightAveraging:
    """The Trainer's callback that averages weights; a CKAError if there is none."""
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging):
            return callback
    raise CKAError(
        "CKA: reference 'ema' needs a weight-averaging callback; add EMAWeightAveraging to trainer.callbacks"
    )


def call_on_copy(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Call a model on copies of its inputs' tensors: it may change them in place, and others need them unchanged."""
    own_args, own_kwargs = apply_to_collection((args, kwargs), Tensor, Tensor.clone, allow_frozen=True)
    model(*own_args, **own_kwargs)


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
