"""Finds the generator objects that `reseed` would miss, because user code holds them itself.

The search follows references, as the garbage collector does, and not types, names or depths: into attributes, slots,
containers, closures, partial functions and bound methods, and into what the user's own functions and classes hold or
name. It ends where an object is not the user's business: at modules, at the Trainer, at code that is installed. It is
bounded, and says so when it meets its bound.
"""

import gc
import random
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

MOST_OBJECTS = 100_000  # that a search looks at; it takes about 0.1 s
MOST_ITEMS = 1_000  # of one list, tuple, set or dict

GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)

# Nothing is looked for inside these.
CLOSED = (
    torch.Tensor, np.ndarray, np.generic, torch.dtype, str, bytes, bytearray, int, float, complex, range, type(None),
    ModuleType, CodeType, FrameType, Trainer,
)  # fmt: skip

CONTAINERS = (list, tuple, set, frozenset, deque, dict)

INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def own_generators(*roots: Any) -> list[Any]:
    """Find the generator objects that can be reached from datasets, transforms, samplers, functions or models.

    Args:
        roots: where to start.

    Returns:
        each generator once, the nearest ones first.
    """
    return reachable(roots, GENERATORS)


def reachable(roots: Iterable[Any], kinds: tuple[type, ...]) -> list[Any]:
    """Find the objects of some kinds that can be reached from others, nearest first; nothing inside them."""
    objects: list[Any] = []
    pending: deque[Any] = deque(roots)
    known = {id(root) for root in pending}
    kept_alive = []  # an object that is made during the search must not leave its id to another one

    while pending:
        value = pending.popleft()
        if isinstance(value, kinds):
            objects.append(value)
            continue

        for inner in references(value):
            if id(inner) in known or isinstance(inner, CLOSED):
                continue
            if len(known) >= MOST_OBJECTS:
                _warn_of_bound(roots)
                return objects
            known.add(id(inner))
            kept_alive.append(inner)
            pending.append(inner)

    return objects


def references(value: Any) -> Iterable[Any]:
    """What an object holds, as far as a search goes into it."""
    if isinstance(value, CLOSED):
        return ()

    if isinstance(value, type):
        if _is_installed(sys.modules.get(value.__module__)):
            return ()
        return [*vars(value).values(), *value.__bases__]

    if isinstance(value, FunctionType):
        return _references_of_function(value)

    if isinstance(value, CONTAINERS):
        items = _first_items(value)
        return [*items, *getattr(value, "__dict__", {}).values()]

    return gc.get_referents(value)


def _first_items(container: Any) -> list[Any]:
    """The first items of a container; of a dict, its values."""
    # The methods of the built-in class: those of a derived one are code of the user's.
    if isinstance(container, dict):
        return list(islice(dict.values(container), MOST_ITEMS))
    kind = next(kind for kind in CONTAINERS if isinstance(container, kind))
    items = list(islice(kind.__iter__(container), MOST_ITEMS))

    if kind.__len__(container) > MOST_ITEMS and any(isinstance(item, GENERATORS) for item in items):
        _warn_of_bound([container])
    return items


def _references_of_function(function: FunctionType) -> Iterator[Any]:
    """What a function holds; if it is the user's own, also the global objects that its code names."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()
    for cell in function.__closure__ or ():
        yield from gc.get_referents(cell)

    if function.__code__.co_filename.startswith(INSTALLED):
        return

    names = set(_names_in(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        yield value

        # module.generator
        if isinstance(value, ModuleType) and not _is_installed(value):
            for attribute in names & vars(value).keys():
                yield vars(value)[attribute]


def _names_in(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function's code and in the functions defined in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _is_installed(module: ModuleType | None) -> bool:
    """True for modules of Python and of installed packages; not for the user's own files and notebooks."""
    if module is None or module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return file is None or file.startswith(INSTALLED)


def _warn_of_bound(roots: Iterable[Any]) -> None:
    """Say that generators may have been missed."""
    names = ", ".join(type(root).__name__ for root in roots)
    warnings.warn(
        f"The search for random generators in {names} ended at its bound of {MOST_OBJECTS} objects, or {MOST_ITEMS} "
        "of a list. If one that lies beyond it is used, a restart draws other numbers; hold it nearer to the "
        "dataset or model, or use torch's, NumPy's or Python's global one.",
        stacklevel=3,
    )
