"""Gram matrices of a model's layers, taken inside forward hooks, so that no activation outlives its layer's call."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from .gram import Centring, CKAError, full_precision, gram_matrix, product_dtype
from .layers import floating_tensors, select_layers


@dataclass
class Batch:
    """What the hooks have noted since the last ``GramRecorder.grams()``.

    Attributes:
        grams: (n, n) x xᵀ of each call of a layer, not yet divided by the number of features.
        widths: number of features d, of the same calls.
        problems: calls without an output that can be compared, and why.
        calls: how often each module has run.
        room: memory for the Gram matrices, in one piece for all layers: single ones, which outlive the activations
            that lie beside them, would leave a CPU's memory in fragments.
    """

    grams: dict[str, Tensor] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    room: Tensor | None = None

    def place(self, layers: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised memory (n, n) for the next Gram matrix.

        Args:
            layers: how many there will be, as far as is known.
            n: number of samples.
            dtype: of the Gram matrix.
            device: where the layer's output is.
        """
        if self.room is None:
            self.room = torch.empty(layers, n, n, dtype=dtype, device=device)

        # A module that runs twice, or an output of another shape or kind, has no place in it.
        index, room = len(self.grams), self.room
        if index < len(room) and (room.shape[1], room.dtype, room.device) == (n, dtype, device):
            return room[index]
        return torch.empty(n, n, dtype=dtype, device=device)


class GramRecorder:
    """Record the Gram matrix of each layer's output, for every batch that a model is run on.

    For a layer's output x, flattened to (n, d), the Gram matrix is x xᵀ / d in float32 (float64 for float64 outputs),
    whatever precision or autocast the model runs in. It is taken in the hook: a later in-place operation can't change
    it, and the memory needed is L n² numbers and, on a GPU, at most one copy of one layer's output.

    Rounding in a product of float32 features would show in CKA where their mean is large, or where few samples are
    nearly orthogonal. So a batch's mean is taken off the features (CKA does not depend on it), except in layers where
    the first batch showed that there is no need, and small batches of wide features are multiplied in float64.
    gram.py says when: ``Centring`` and ``product_dtype``.

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
        self._centring = Centring()
        self._batch = Batch()

    def __enter__(self) -> "GramRecorder":
        for name, module in self._layers.items():
            self._handles.append(module.register_forward_hook(partial(self._record, name)))
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def grams(self) -> Tensor:
        """The Gram matrices (L, n, n) of the batch that just ran, in the order of ``names``; forgets them."""
        batch, self._batch = self._batch, Batch()
        if not self.names:
            self.names = self._comparable_layers(batch)
        self._check(batch)

        grams = [batch.grams[name] for name in self.names]
        if len({gram.dtype for gram in grams}) > 1:
            grams = [gram.double() for gram in grams]

        # HSIC needs 4 samples, and so does the decision: a smaller first batch leaves it to the next.
        if not self._centring.decided and len(grams[0]) >= 4:
            self._centring.decide(self.names, grams)

        torch._foreach_div_(grams, [batch.widths[name] for name in self.names])  # one kernel on a GPU
        return torch.stack(grams)

    def _check(self, batch: Batch) -> None:
        """Raise a CKAError unless all layers ran, with the same number of samples."""
        missing = [name for name in self.names if name not in batch.grams]
        if missing:
            raise CKAError(
                f"CKA: layer {missing[0]!r} did not run in this batch, but did in the first one; "
                f"choose layers that always run"
            )

        samples = {name: len(batch.grams[name]) for name in self.names}
        if len(set(samples.values())) > 1:
            counts = ", ".join(f"{name!r}: {count}" for name, count in samples.items())
            raise CKAError(
                f"CKA: the layers differ in the number of samples ({counts}); leave out the odd ones, or set batch_dim"
            )

    def _comparable_layers(self, batch: Batch) -> list[str]:
        """After the first batch: which layers can be compared. The others are an error or a warning."""
        if not batch.calls:
            raise CKAError(
                f"CKA: none of the layers ran: {', '.join(self._layers)}. Hooks don't fire in a model "
                "that torch.compile has compiled (run the original module), nor in one that was not called"
            )

        problems = {name: "did not run" for name in self._layers if not batch.calls[name]}
        problems |= batch.problems
        n = self._most_common_length(batch.grams)
        for name, gram in batch.grams.items():
            if len(gram) != n:
                problems[name] = f"gave {len(gram)} rows for {n} samples"

        for name, problem in problems.items():
            if self._is_required(name):
                raise CKAError(
                    f"CKA: layer {name!r} {problem}; choose another layer, or set batch_dim if its samples "
                    "are not counted by the first dimension (a compiled model: run the original module)"
                )

        names = [name for name in batch.grams if name not in problems]
        if not names:
            listed = "; ".join(f"{name!r} {problem}" for name, problem in problems.items())
            raise CKAError(f"CKA: no layer can be compared: {listed}")
        if problems:
            listed = "; ".join(f"{name!r} ({problem})" for name, problem in problems.items())
            rank_zero_warn(f"CKA leaves out {listed}")
        return names

    def _is_required(self, name: str) -> bool:
        """True if the layer was asked for by its full name; "relu#1" is the second call of "relu"."""
        return name.split("#")[0] in self._required

    def _most_common_length(self, grams: dict[str, Tensor]) -> int:
        """The number of samples, by most of the layers; those that were asked for by name know it best."""
        lengths = [len(gram) for name, gram in grams.items() if self._is_required(name)]
        lengths = lengths or [len(gram) for gram in grams.values()]
        return Counter(lengths).most_common(1)[0][0] if lengths else 0

    def _record(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """The hook: take the Gram matrix of one call of one layer."""
        if torch.compiler.is_compiling():  # or the hook would live on in the compiled code
            return

        batch = self._batch
        key = f"{name}#{batch.calls[name]}" if batch.calls[name] else name
        batch.calls[name] += 1

        x = next(floating_tensors(output), None)
        if x is None:
            batch.problems[key] = "gave no floating-point tensor"
            return
        if x.dim() <= self.batch_dim:
            batch.problems[key] = f"gave the shape {tuple(x.shape)}"
            return

        with torch.no_grad(), full_precision(x.device):
            x = self._features(x)
            n, d = x.shape
            dtype = product_dtype(x)
            mean = x.mean(0, dtype=dtype) if self._centring.needs_mean(key) else None
            gram = gram_matrix(x, mean, batch.place(len(self._layers), n, dtype, x.device))
            self._centring.look_at(key, x, mean, gram)
            batch.grams[key], batch.widths[key] = gram, d

    def _features(self, x: Tensor) -> Tensor:
        """A layer's output as (n, d), without a copy where that is possible.

        A Gram matrix doesn't depend on the order of the features: in the order in which they lie in memory, flattening
        a channels-last output takes no copy.
        """
        if self.batch_dim or not x.is_contiguous():
            x = x.movedim(self.batch_dim, 0)
            by_stride = sorted(range(1, x.dim()), key=lambda dim: -x.stride(dim))
            x = x.permute(0, *by_stride)
        return x.flatten(1)
