"""A consistent copy of values in memory: what a thread writes while training changes the values themselves."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

IMMUTABLE = (str, bytes, int, float, bool, type(None), torch.Size, torch.dtype)

# What must stay free beside a copy: training itself takes more at some steps than at others.
MARGIN = 1.25

SMALL = 2**26  # bytes of a copy for which it takes longer to ask for room than to make it

# Where the kernel says how much memory a group of processes may have, and has: version 2 of cgroups, and version 1.
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


class NotCopied(ValueError):
    """A value is of a kind that can't be copied so that it is saved as the value itself would be."""


class Copier:
    """Copies plain data; tensors come to the CPU. What shares memory shares it in the copy, too, and is saved once.

    Attributes:
        size: bytes of the tensors that were copied.
    """

    def __init__(self) -> None:
        self.size = 0
        self._storages: dict[tuple[torch.device, int, int], torch.UntypedStorage] = {}

    def copied(self, value: Any) -> Any:
        """A value with nothing in it that still changes.

        Raises:
            NotCopied: it holds a tensor of a rare kind, such as a sparse or a distributed one.
        """
        kind = type(value)
        if kind in IMMUTABLE:
            return value
        if kind in (list, tuple, set):
            return kind([self.copied(item) for item in value])
        if kind in (dict, OrderedDict):
            return self._of_dict(value)
        if isinstance(value, torch.Tensor):
            return self._of_tensor(value)

        try:
            return copy.deepcopy(value)
        except Exception as error:  # a class of the user's may raise anything
            raise NotCopied(f"a {kind.__qualname__} can't be copied: {error}") from error

    def _of_dict(self, values: dict[Any, Any]) -> dict[Any, Any]:
        same = type(values)((key, self.copied(item)) for key, item in values.items())
        if isinstance(values, OrderedDict):
            same.__dict__.update(copy.deepcopy(values.__dict__))  # state_dict() keeps the versions of modules there
        return same

    def _of_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        kind = type(tensor)
        if not is_usual(tensor):
            raise NotCopied(f"a {kind.__qualname__} of this kind is not copied")

        same = torch.empty(0, dtype=tensor.dtype)
        same.set_(self._of_storage(tensor), tensor.storage_offset(), tensor.size(), tensor.stride())
        if kind is torch.nn.Parameter:
            return torch.nn.Parameter(same, requires_grad=tensor.requires_grad)
        return same.requires_grad_(tensor.requires_grad)

    def _of_storage(self, tensor: torch.Tensor) -> torch.UntypedStorage:
        storage = tensor.untyped_storage()
        place = (storage.device, storage.data_ptr(), storage.nbytes())
        if place not in self._storages:
            # .cpu() of what is there already is no copy.
            self._storages[place] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
            self.size += storage.nbytes()
        return self._storages[place]


def is_usual(tensor: torch.Tensor) -> bool:
    """True for a plain tensor with memory of its own: neither sparse, quantized, distributed, nor a lazy conjugate."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg())
        and not vars(tensor)
    )


def bytes_of(value: Any) -> int:
    """How much memory the tensors in plain data take, each storage once."""
    storages: dict[int, int] = {}
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list | tuple | set):
            pending += item
        elif isinstance(item, torch.Tensor) and is_usual(item):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def has_room(size: int) -> bool:
    """True if a copy of so many bytes fits into memory, also by what the batch system allows; True if nobody tells."""
    return size < SMALL or all(size * MARGIN <= free for free in _free_bytes())


def _free_bytes() -> Iterator[int]:
    """Bytes that are free on this machine, and in each group of processes in which the kernel counts this one."""
    for line in _lines(PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024

    for line in _lines(PROC / "self" / "cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = CGROUPS / controllers / place.lstrip("/")
        for group in (folder, *folder.parents):
            if group == CGROUPS.parent:
                break
            yield from _free_in(group)


def _free_in(group: Path) -> Iterator[int]:
    """What a group may still take; files that are only cached don't count, as the kernel drops them when it must."""
    for limit, used in LIMITS:
        most, taken = _lines(group / limit), _lines(group / used)
        if not (most and taken and most[0].isdigit()):  # `max`: no limit
            continue
        cached = [line.split()[1] for line in _lines(group / "memory.stat") if line.startswith("inactive_file ")]
        yield int(most[0]) - int(taken[0]) + sum(map(int, cached))


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's; none where there is no such file, as on macOS."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
