"""Counted randomness: every random draw is a function of (seed, where in the run), so there is no state to save.

Storing the states of the random number generators is not enough to resume exactly: DataLoader workers have their own,
have fetched ahead when a run is killed, and start anew with each epoch. Instead all generators are seeded from a hash
of the place: before each batch is loaded, in whichever process loads it (workers.py), when it is handed over to hooks
that may draw (loaders.py), and before each step (survive/exact_resume.py). Any number of workers, and any number of
restarts, then sees the same draws.

There is nothing to wire: the callback ExactResume does it for the loaders of the DataModule or LightningModule.
"""

import random
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


def reseed(*place: Any, also: Iterable[Any] = ()) -> None:
    """Seed random, NumPy, torch and the GPU of this process from a hash of the place; 8 µs on a CPU.

    Args:
        place: anything with a stable repr: numbers and strings.
        also: further generator objects, see generators.py; 1 to 4 µs for most of them.
    """
    # Not hash(): that of a string differs from process to process.
    digest = blake2b(repr(place).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed does this too, but takes 1 ms
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)

    for generator in also:
        _seed_one(generator, seed)


def _seed_one(generator: Any, seed: int) -> None:
    """Seed one generator object of any of the kinds in generators.GENERATORS."""
    if isinstance(generator, random.Random):
        generator.seed(seed)
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.RandomState):
        try:
            generator.seed(seed % 2**32)
        except TypeError:  # one that was made with another bit generator than its own
            kind = generator.get_state(legacy=False)["bit_generator"]
            generator.set_state(_state_of(getattr(np.random, kind), seed))
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = _state_of(type(generator), seed)
    else:
        generator.bit_generator.state = _state_of(type(generator.bit_generator), seed)


def _state_of(kind: type[np.random.BitGenerator], seed: int) -> dict[str, Any]:
    """The state that one of NumPy's generators takes instead of a seed."""
    if kind is not np.random.PCG64:
        return kind(seed).state

    # That of default_rng(), ten times as fast as making a new one: any two numbers of 128 bits, of which one is odd.
    digest = blake2b(seed.to_bytes(8, "little"), digest_size=32).digest()
    state, increment = int.from_bytes(digest[:16], "little"), int.from_bytes(digest[16:], "little") | 1
    return dict(bit_generator="PCG64", state=dict(state=state, inc=increment), has_uint32=0, uinteger=0)
