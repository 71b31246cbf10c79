"""What a model that stays as it is said of a batch, it need not say again: its Gram matrices are kept."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .gram import CKAError
from .models import call_on_copy, same_randomness
from .recorder import GramRecorder

MOST_BYTES = 2**27  # of main memory for what is kept; further batches are run each time


@dataclass
class Known:
    """A batch that the model has been run on.

    Attributes:
        inputs: copies of what it was called with.
        grams: (L, n, n) Gram matrices, on the CPU.
    """

    inputs: list[Any]
    grams: Tensor


class FrozenRecorder(GramRecorder):
    """A GramRecorder for a model whose weights stay as they are, on batches that come again in the same order.

    Before a batch, ask ``recalls``; where it says yes, ``grams()`` has the Gram matrices without a run of the model.
    A batch is known by its place and its inputs, which must be the same to the bit. Nothing is kept of a model that
    draws random numbers, nor of inputs that are not tensors, numbers, texts or None. Once another batch than before
    comes in some place, as from a loader that shuffles, nothing more is kept.

    Args:
        model, layers, batch_dim: as for ``GramRecorder``.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None = None, batch_dim: int = 0) -> None:
        super().__init__(model, layers, batch_dim)
        self._known: list[Known] = []
        self._bytes = 0
        self._keeps = True
        self._device = torch.device("cpu")

        # Of the batch at hand
        self._place = -1
        self._recalled: Tensor | None = None
        self._inputs: list[Any] | None = None  # to be kept
        self._randomness: list[Any] = []

    def restart(self) -> None:
        """The batches come again from the first one on."""
        self._place, self._recalled = -1, None

    def recalls(self, args: tuple, kwargs: dict[str, Any]) -> bool:
        """Take the next batch; True if the model needn't be run on it."""
        if self._recalled is not None:
            raise CKAError("CKA: the network is called more than once for a batch, but was not in earlier validations")
        self._place += 1
        self._inputs = None
        inputs = [*args, *kwargs, *kwargs.values()]

        if self._place < len(self._known):
            known = self._known[self._place]
            if same_inputs(known.inputs, inputs):
                self._recalled = known.grams.to(self._device)
                return True
            self._forget()

        next_one = self._place == len(self._known)
        plain = all(map(is_plain, inputs))
        if self._keeps and next_one and plain and self._bytes + size_of(inputs) <= MOST_BYTES:
            # A copy: the model may change its inputs in place, and a loader may use their memory again.
            self._inputs = [value.cpu().clone() if isinstance(value, Tensor) else value for value in inputs]
        return False

    def __enter__(self) -> "FrozenRecorder":
        self._randomness = random_states() if self._inputs is not None else []
        super().__enter__()
        return self

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        if self._randomness and self._randomness != random_states():
            self._forget()

    def grams(self) -> Tensor:
        """The Gram matrices (L, n, n) of the batch, made now or kept."""
        if self._recalled is not None:
            recalled, self._recalled = self._recalled, None
            return recalled

        grams = super().grams()
        if self._inputs is not None:
            self._device = grams.device
            self._bytes += size_of([*self._inputs, grams])
            if self._bytes <= MOST_BYTES:
                self._known.append(Known(self._inputs, grams.cpu()))
        return grams

    def _forget(self) -> None:
        """Keep nothing from now on."""
        self._known, self._inputs, self._keeps = [], None, False


def run_recorded(
    models: Sequence[tuple[GramRecorder, nn.Module]], device: torch.device, args: tuple, kwargs: dict[str, Any]
) -> None:
    """Run models, uncompiled, while their layers are recorded; a frozen one only on a batch that it doesn't know.

    No random number is drawn for it, and the inputs stay as they are.
    """
    for recorder, model in models:
        if isinstance(recorder, FrozenRecorder):
            if recorder.recalls(args, kwargs):
                continue
            model.to(device)
        with torch.no_grad(), same_randomness(device), torch.compiler.set_stance("force_eager"), recorder:
            call_on_copy(model, args, kwargs)


def is_plain(value: Any) -> bool:
    """True for what can be kept and compared: numbers, texts, None, and tensors that have all their elements."""
    if isinstance(value, Tensor):
        return value.layout is torch.strided and not value.is_nested
    return isinstance(value, float | int | str | None)


def same_inputs(known: Sequence[Any], inputs: Sequence[Any]) -> bool:
    """True if two calls have the same inputs; tensors to the bit, but on whatever device."""
    return len(known) == len(inputs) and all(map(same_value, known, inputs))


def same_value(known: Any, value: Any) -> bool:
    """True if an input is the same; NaN is never the same."""
    if isinstance(known, Tensor) and isinstance(value, Tensor):
        return known.dtype == value.dtype and known.shape == value.shape and torch.equal(known.to(value.device), value)
    return type(known) is type(value) and known == value


def size_of(values: Sequence[Any]) -> int:
    """Bytes of the tensors among some values."""
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def random_states() -> list[Any]:
    """Where the random generators of Python, NumPy and PyTorch stand, to be compared."""
    _, keys, *rest = np.random.get_state()
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return [random.getstate(), keys.tobytes(), rest, *(state.numpy().tobytes() for state in states)]
