"""Checksums of tensors that are computed where the tensors are, and take about as long as reading them once.

A checksum is a sum of all 8-byte words, each multiplied by an odd number that depends on its place, modulo 2⁶⁴. Sums of
integers don't depend on the order in which a device adds them up. A change of a single word always changes the
checksum, since an odd number has an inverse; of other changes one in 2⁶⁴ goes unnoticed. It is no protection against
somebody who wants to deceive.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch

WORD = 8  # bytes
BLOCK = 4096  # words that have multipliers of their own; a block has another one
AT_ONCE = 256  # blocks: 8 MiB, which is also the memory that a checksum takes

# Odd numbers with an irregular pattern of bits: those of the generator splitmix64, as signed numbers.
MIX = (-7046029254386353131, -4658895280553007687)


def mixed(count: int, device: torch.device) -> torch.Tensor:
    """Odd numbers that look random, (count,) int64: the same on every device."""
    numbers = torch.arange(1, count + 1, dtype=torch.int64, device=device) * MIX[0]
    numbers = (numbers ^ (numbers >> 29)) * MIX[1]
    return numbers | 1


@lru_cache
def multipliers_on(device: torch.device) -> torch.Tensor:
    """The multipliers of the words in a block, (BLOCK,) int64."""
    return mixed(BLOCK, device)


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """The checksum of a tensor's bytes, a 0-dimensional int64 on its device: there is no waiting for the device.

    Args:
        tensor: of any dtype and shape; of a sharded one, the part of this rank counts.
    """
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    flat = tensor.detach().contiguous().view(-1)
    if flat.storage_offset() * flat.element_size() % WORD:
        flat = flat.clone()  # words must begin at multiples of their size

    content = flat.view(torch.uint8)
    whole = len(content) // WORD * WORD
    words = content[:whole].view(torch.int64)
    in_blocks = len(words) // BLOCK * BLOCK
    multipliers = multipliers_on(content.device)

    # The words that fill no block, and the bytes that fill no word, count as one more block each.
    sums = [(part * multipliers).sum(1) for part in words[:in_blocks].view(-1, BLOCK).split(AT_ONCE)]
    for rest in (words[in_blocks:], content[whole:]):
        if len(rest):
            sums.append((rest * multipliers[: len(rest)]).sum()[None])
    return combined(torch.cat(sums)) + len(content)


def combined(sums: torch.Tensor) -> torch.Tensor:
    """One number for several, (n,) int64, which depends on their order."""
    multipliers = multipliers_on(sums.device)
    if len(sums) > BLOCK:
        multipliers = mixed(len(sums), sums.device)
    return (sums * multipliers[: len(sums)]).sum()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a batch: in nested lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def checksum_of_batch(batch: Any) -> torch.Tensor | None:
    """One checksum for all tensors of a batch; None if it has none."""
    sums = [checksum(tensor) for tensor in tensors_in(batch)]
    if not sums:
        return None
    if len({one.device for one in sums}) > 1:
        sums = [one.cpu() for one in sums]
    return combined(torch.stack(sums))


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Name → parameter or buffer of a model, without those that have no values yet."""
    found: dict[str, torch.Tensor] = {}
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            is_lazy = isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin)
            if not is_lazy and tensor.layout == torch.strided:
                found[name] = tensor
    return found


def checksums_of(model: torch.nn.Module) -> dict[str, int]:
    """Name → checksum of each parameter and buffer; waits for the device once."""
    sums = {name: checksum(tensor) for name, tensor in weights_of(model).items()}
    if not sums:
        return {}
    if len({one.device for one in sums.values()}) > 1:
        sums = {name: one.cpu() for name, one in sums.items()}
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
