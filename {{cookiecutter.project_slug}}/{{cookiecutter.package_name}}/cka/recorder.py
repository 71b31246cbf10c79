"""Gram matrices of a model's layers, taken inside forward hooks, so that no activation outlives its layer's call."""

import dataclasses
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torchmetrics import Metric

from .metric import CONSTANT, CKAError, full_precision, u_center

LISTS = (nn.ModuleList, nn.ModuleDict)  # their forward is never called
NOT_LAYERS = (Metric, _Loss)
IN_CACHE = 2**18  # numbers
NO_NEW_OUTPUT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)  # in eval mode


class GramRecorder:
    """Record the Gram matrix of each layer's output, for every batch that a model is run on.

    For a layer's output x, flattened to (n, d), the Gram matrix is x xᵀ / d in float32 (float64 for float64 outputs),
    whatever precision or autocast the model runs in. It is taken in the hook: a later in-place operation can't change
    it, and the memory needed is L n² numbers and, on a GPU, at most one copy of one layer's output.

    Rounding in a product of float32 features would show in CKA where their mean is large, or where few samples are
    nearly orthogonal. So a batch's mean is taken off the features (CKA does not depend on it), except in layers where
    the first batch showed that there is no need, and small batches are multiplied in float64.

    Args:
        model: any module. Its code, mode, weights and outputs stay as they are.
        layers: names as in ``model.named_modules()``, or globs as for paths: "blocks.*" are the members of blocks,
            "**.attention" is every attention at any depth, "**" is every module. Default: the children of the model,
            or of its only child; an nn.Sequential or a list of modules counts with its members; losses, metrics,
            dropout and reshaping don't count. What a glob or the default finds but can't be compared (it did not run,
            or gave no floating-point output with one row for each sample) is left out with a warning; what was asked
            for by its full name must work.
        batch_dim: the dimension of the outputs that counts the samples; 1 for recurrent layers that are not
            ``batch_first``.

    Attributes:
        names: the layers in the order in which they ran, known after the first ``grams()``. A module that runs more
            than once in a batch is listed as "relu", "relu#1", "relu#2", …

    Outputs may be tensors, or tuples, lists, dicts and dataclasses that hold tensors: the first floating-point tensor
    with at least one dimension is taken.

    Raises:
        CKAError: a pattern that matches nothing; layers that did not run, changed from batch to batch, have no
            floating-point output, or differ in the number of samples. The message names the layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> with GramRecorder(model) as recorder:
        ...     _ = model(torch.randn(32, 8))
        ...     grams = recorder.grams()
        >>> recorder.names, grams.shape
        (['0', '1', '2'], torch.Size([3, 32, 32]))
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None = None, batch_dim: int = 0) -> None:
        self.batch_dim = batch_dim
        self.names: list[str] = []
        self._layers, self._required = select_layers(model, layers)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._squared_means: dict[str, Tensor] = {}  # of the first batch
        self._as_is: set[str] = set()  # layers that need no centring
        self._half: set[str] = set()  # layers in half precision on a GPU, whose tensor cores add up less exactly
        self._constant: set[str] = set()  # layers that seem to give the same for every sample
        self._decided = False
        self._clear()

    def __enter__(self) -> "GramRecorder":
        self._handles = [m.register_forward_hook(partial(self._record, name)) for name, m in self._layers.items()]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def grams(self) -> Tensor:
        """The Gram matrices (L, n, n) of the batch that just ran, in the order of ``names``; forgets them."""
        grams, widths, silent, calls = self._grams, self._widths, self._silent, self._calls
        self._clear()
        if not self.names:
            self.names = self._settle(grams, silent, calls)
        if missing := [name for name in self.names if name not in grams]:
            raise CKAError(
                f"CKA: layer {missing[0]!r} did not run in this batch, but did in the first one; "
                f"choose layers that always run"
            )
        chosen = [grams[name] for name in self.names]
        if len({len(gram) for gram in chosen}) > 1:
            counts = ", ".join(f"{name!r}: {len(gram)}" for name, gram in zip(self.names, chosen, strict=True))
            raise CKAError(
                f"CKA: the layers differ in the number of samples ({counts}); leave out the odd ones, or set batch_dim"
            )
        if len({gram.dtype for gram in chosen}) > 1:
            chosen = [gram.double() for gram in chosen]
        if not self._decided and len(chosen[0]) >= 4:
            self._decide(chosen)
        torch._foreach_div_(chosen, [widths[name] for name in self.names])  # one kernel on a GPU
        return torch.stack(chosen)

    def _decide(self, grams: list[Tensor]) -> None:
        """After the first batch: where the features can be multiplied as they are, and which layers seem constant.

        U-centring takes the samples' common part off a Gram matrix, and leaves the rounding errors of the whole. What
        counts is the size of the whole against what is left; over n² entries of random sign the errors average out
        like 1 / n. Up to a ratio of n / 4 CKA errs by less than 1e-6.
        """
        stack = torch.stack(grams)
        n, diagonals = stack.shape[-1], stack.diagonal(dim1=1, dim2=2)
        numbers = (
            torch.linalg.matrix_norm(u_center(stack)),
            torch.linalg.matrix_norm(stack - diagonals.diag_embed()),
            torch.stack([self._squared_means[name] for name in self.names]),
            diagonals.sum(1),
        )
        for i, (name, left, centred, mean, trace) in enumerate(
            zip(self.names, *(x.tolist() for x in numbers), strict=True)
        ):
            if trace <= CONSTANT * n * mean:
                self._constant.add(name)
                grams[i].zero_()
            elif math.hypot(centred, n * mean) <= n / (16 if name in self._half else 4) * left:
                self._as_is.add(name)
        self._decided = True

    def _clear(self) -> None:
        self._grams: dict[str, Tensor] = {}
        self._silent: dict[str, str] = {}
        self._calls: Counter[str] = Counter()
        self._widths: dict[str, int] = {}
        self._room: Tensor | None = None

    def _settle(self, grams: dict[str, Tensor], silent: dict[str, str], calls: Counter[str]) -> list[str]:
        """After the first batch: which layers can be compared. The others are an error or a warning."""
        problems = {name: "did not run" for name in self._layers if not calls[name]} | silent
        if not calls:
            raise CKAError(
                f"CKA: none of the layers ran: {', '.join(self._layers)}. Hooks don't fire in a model "
                "that torch.compile has compiled (run the original module), nor in one that was not called"
            )
        required = [len(gram) for name, gram in grams.items() if name.split("#")[0] in self._required]
        n = Counter(required or [len(gram) for gram in grams.values()]).most_common(1)[0][0] if grams else 0
        problems |= {k: f"gave {len(gram)} rows for {n} samples" for k, gram in grams.items() if len(gram) != n}
        for name, problem in problems.items():
            if name.split("#")[0] in self._required:
                raise CKAError(
                    f"CKA: layer {name!r} {problem}; choose another layer, or set batch_dim if its samples "
                    "are not counted by the first dimension (a compiled model: run the original module)"
                )
        names = [name for name in grams if name not in problems]
        if not names:
            raise CKAError("CKA: no layer can be compared: " + "; ".join(f"{k!r} {v}" for k, v in problems.items()))
        if problems:
            rank_zero_warn("CKA leaves out " + "; ".join(f"{k!r} ({v})" for k, v in problems.items()))
        return names

    def _record(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():  # or the hook would live on in the compiled code
            return
        x = next(_floating_tensors(output), None)
        key = f"{name}#{self._calls[name]}" if self._calls[name] else name
        self._calls[name] += 1
        if x is None or x.dim() <= self.batch_dim:
            self._silent[key] = "gave no floating-point tensor" if x is None else f"gave the shape {tuple(x.shape)}"
            return
        with torch.no_grad(), full_precision(x.device):
            if self.batch_dim or not x.is_contiguous():
                # A Gram matrix doesn't depend on the order of the features: in the order in which they lie in memory,
                # flattening a channels-last output takes no copy.
                x = x.movedim(self.batch_dim, 0)
                x = x.permute(0, *sorted(range(1, x.dim()), key=lambda i: -x.stride(i)))
            x = x.flatten(1)
            n, d = x.shape
            exact = x.dtype == torch.float64 or (n**4 <= 16 * d and x.device.type != "mps")  # which has no float64
            dtype = torch.float64 if exact else torch.float32
            mean = None if key in self._as_is else x.mean(0, dtype=dtype)
            gram = _gram(x, mean, self._memory(n, dtype, x.device))
            if not self._decided:
                self._squared_means[key] = mean.dot(mean).float()
                if x.is_cuda and x.dtype.itemsize == 2:
                    self._half.add(key)
            elif key in self._constant:  # what is left of it is rounding
                gram *= gram.trace() > CONSTANT * n * mean.dot(mean)
            self._grams[key], self._widths[key] = gram, d

    def _memory(self, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for the next Gram matrix, in one piece for all layers: single ones, which outlive the activations that
        lie beside them, would leave a CPU's memory in fragments."""
        if self._room is None:
            self._room = torch.empty(len(self._layers), n, n, dtype=dtype, device=device)
        index, room = len(self._grams), self._room
        if index < len(room) and (room.shape[1], room.dtype, room.device) == (n, dtype, device):
            return room[index]
        return torch.empty(n, n, dtype=dtype, device=device)


def _gram(x: Tensor, mean: Tensor | None, out: Tensor) -> Tensor:
    """x xᵀ of features (n, d), less their ``mean`` (d,) where it is given, multiplied in the precision of ``out``."""
    if mean is None and x.dtype == out.dtype:
        return torch.mm(x, x.T, out=out)
    if mean is None and x.is_cuda and out.dtype == torch.float32:  # half precision: tensor cores, products exact
        return torch.mm(x, x.T, out_dtype=out.dtype)
    # On a CPU in parts: converted and centred, they are still in the cache when they are multiplied.
    width = x.shape[1] if x.is_cuda else max(IN_CACHE // len(x), 1)
    for start in range(0, x.shape[1], width):
        part = x[:, start : start + width]
        part = part.to(out.dtype) if mean is None else part - mean[start : start + width]
        out.addmm_(part, part.T, beta=min(start, 1))
    return out


def select_layers(model: nn.Module, patterns: Sequence[str] | None = None) -> tuple[dict[str, nn.Module], set[str]]:
    """The modules that ``GramRecorder`` is to record, by name, and the names that were asked for in full.

    Raises:
        CKAError: a pattern that matches nothing (the message has the nearest names), or a model without children.
    """
    if patterns is None:
        found = _default_layers(model)
        if not found:
            raise CKAError(f"CKA: {type(model).__name__} has no children to take as layers; name them in `layers`")
        return found, set()
    if isinstance(patterns, str):
        patterns = [patterns]
    modules = {_plain(name): m for name, m in model.named_modules(remove_duplicate=False) if name}
    found = {}
    for pattern in patterns:
        regex = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
        names = [name for name in modules if re.fullmatch(regex, name)]
        if not names:
            near = difflib.get_close_matches(pattern, modules, n=3, cutoff=0.4) or list(modules)[:5]
            raise CKAError(f"CKA: no layer of {type(model).__name__} matches {pattern!r}; nearest: {', '.join(near)}")
        found |= {n: modules[n] for n in names if n == pattern or not isinstance(modules[n], LISTS + NOT_LAYERS)}
    first = {id(module): name for name, module in reversed(found.items())}  # a shared module counts once
    found = {name: module for name, module in found.items() if first[id(module)] == name}
    return found, {pattern for pattern in patterns if pattern in found}


def _default_layers(model: nn.Module) -> dict[str, nn.Module]:
    found = _children(model)
    while len(found) == 1:  # a mere wrapper
        name, child = next(iter(found.items()))
        if not (inner := _children(child, f"{name}.")):
            break
        found = inner
    return found


def _children(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    found = {}
    for name, child in model.named_children():
        if isinstance(child, NOT_LAYERS + NO_NEW_OUTPUT):
            continue
        found |= (
            _children(child, f"{prefix}{name}.")
            if isinstance(child, (nn.Sequential, *LISTS))
            else {prefix + name: child}
        )
    return {_plain(name): child for name, child in found.items()}


def _plain(name: str) -> str:
    """A module's name without the wrapper that torch.compile puts in it."""
    return name.replace("_orig_mod.", "")


def _floating_tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a layer's output, in order, scalars (a loss, say) left out."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.dim():
            yield output
    elif isinstance(output, Mapping):  # Hugging Face's ModelOutput too
        for value in output.values():
            yield from _floating_tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _floating_tensors(value)
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from _floating_tensors(getattr(output, field.name))
