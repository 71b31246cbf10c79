"""Whether two nested structures are equal to the bit."""

from collections.abc import Iterator
from typing import Any


def unequal(one: Any, other: Any, where: str) -> Iterator[str]:
    """Paths of all parts of two nested structures that are not equal to the bit."""
    import torch

    if type(one) is not type(other):
        yield f"{where}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, dict):
        for key in sorted(set(one) | set(other), key=str):
            if key in one and key in other:
                yield from unequal(one[key], other[key], f"{where}/{key}")
            else:
                yield f"{where}/{key} is only in one"
    elif isinstance(one, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from unequal(*pair, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype or one.numpy().tobytes() != other.numpy().tobytes():
            yield where
    elif one != other and not (one != one and other != other):
        yield f"{where}: {one!r} and {other!r}"
