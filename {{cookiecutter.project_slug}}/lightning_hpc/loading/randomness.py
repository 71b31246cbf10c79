"""Counted randomness: every random draw is a function of (seed, where in the run), so there is no state to save.

Storing the states of the random number generators is not enough to resume exactly: DataLoader workers have their own,
have fetched ahead when a run is killed, and start anew with each epoch. Instead all generators are seeded from a hash
of the place: before each batch is loaded, in whichever process loads it (workers.py), when it is handed over
(loaders.py), and before each step (survive/exact_resume.py). Any number of workers, and any number of restarts, then
sees the same draws.

There is nothing to wire: the callback ExactResume does it for the loaders of the DataModule or LightningModule.
"""

import random
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


def reseed(*place: Any, also: Iterable[Any] = ()) -> None:
    """Seed random, NumPy, torch and the GPU of this process from a hash of the place; 7 µs on a CPU.

    Args:
        place: anything with a stable repr: numbers and strings.
        also: further generator objects, see generators.py.
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
        kind = generator.get_state(legacy=False)["bit_generator"]
        generator.set_state(getattr(np.random, kind)(seed).state)
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = type(generator)(seed).state
    else:
        # NumPy's can't be seeded again, but take the state of a new one of their kind.
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
