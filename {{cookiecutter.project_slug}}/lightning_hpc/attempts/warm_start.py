"""Weights to start from: of another run, a checkpoint, or a file of weights alone, whose names may have other prefixes.

A run that continues has weights of its own; this is for the first attempt only. The optimizer, schedules and counters
of the other training are not taken over.
"""

import pickle
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..survive.checkpoint_files import CheckpointError, find_checkpoint
from ..survive.checkpoint_io import reason_of

# Under which key training code keeps the weights in a file that has more; the first one wins.
KEYS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params")

# Attributes in which a module is wrapped: names of its weights begin with them in one program, and not in another.
WRAPPERS = ("module", "model", "network", "net", "backbone", "encoder")

COMPILED = "_orig_mod."  # torch.compile adds it, at any place in a name

MOST_NAMED = 5  # in an error; the log file has all


@dataclass
class Match:
    """Which of a file's tensors go where in a model.

    Attributes:
        fits: name in the model → value.
        missing: names in the model that nothing in the file has.
        unexpected: names in the file that nothing in the model has.
        other_shape: both have it, and what the shapes are.
        change: how the file's names were changed; empty if they were not.
    """

    fits: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    change: str = ""

    def left_out(self) -> dict[str, list[str]]:
        """What does not fit, by kind."""
        kinds = {
            "not in the file": self.missing,
            "not in the model": self.unexpected,
            "of another shape": self.other_shape,
        }
        return {kind: names for kind, names in kinds.items() if names}


def warm_start(model: nn.Module, path: str | Path, strict: bool = True) -> tuple[str, list[str]]:
    """Load weights of another training into a model.

    Args:
        model: the model, already built.
        path: a run's folder, whose best checkpoint is taken; a checkpoint; or a file of weights, also safetensors.
        strict: True if all names and shapes must match; otherwise what matches is loaded.

    Returns:
        one line that says what was loaded, and lines that name all that was not.

    Raises:
        CheckpointError: the file can't be read, doesn't match (strict), or has nothing that matches.
    """
    file = file_of(Path(path))
    saved, own = weights_of(read(file), file), model.state_dict()
    found = match(saved, own)
    left_out = found.left_out()
    if not found.fits:
        raise CheckpointError(
            f"nothing in {file} fits the model: it has {shortened(saved)}; the model has {shortened(own)}"
        )
    if strict and left_out:
        kinds = "; ".join(f"{kind}: {shortened(names)}" for kind, names in left_out.items())
        raise CheckpointError(f"{file} does not fit the model: {kinds}. --init_strict false loads what fits")

    model.load_state_dict(found.fits, strict=False)
    line = f"weights from {file}: {len(found.fits)} of {len(own)} tensors"
    if found.change:
        line += f", {found.change}"
    if left_out:
        counted = ", ".join(f"{len(names)} {kind}" for kind, names in left_out.items())
        line += f"; left out: {counted}, which the log file names"
    return line, [f"{kind}: {', '.join(names)}" for kind, names in left_out.items()]


def shortened(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return ", ".join(listed[:MOST_NAMED]) + more


# Reading


def file_of(path: Path) -> Path:
    """The file that is meant: of a run's folder its best checkpoint, or its last one where none is known as the best.

    Raises:
        CheckpointError: there is none.
    """
    checkpoints = path / "checkpoints"
    if checkpoints.is_dir():
        name = "best" if (checkpoints / "best.ckpt").exists() else "last"
        found = find_checkpoint(checkpoints, name)
        path = checkpoints / f"{name}.ckpt" if found is None else found.path
    if path.is_dir() and path.suffix == ".ckpt":
        one_file = "python -m lightning.pytorch.utilities.consolidate_checkpoint"
        raise CheckpointError(
            f"the checkpoint {path} is a folder, which only the strategy that wrote it can read; make one file of it: "
            f"{one_file} {shlex.quote(str(path))}"
        )
    if not path.is_file():
        raise CheckpointError(
            f"no weights to start from: {path} is neither a file nor a run's folder with checkpoints/"
        )
    return path


def read(file: Path) -> Any:
    """What a file holds, on the CPU: plain data and tensors only, as a pickle of more can run any code.

    Raises:
        CheckpointError: it can't be read, or holds something else.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        reason = reason_of(error)
        advice = ""
        if "no plain data" in reason:
            advice = (
                ". If you trust it, write its weights alone to a file, once, in Python: saved = torch.load(FILE, "
                "weights_only=False), then torch.save(saved['model'], 'weights.pt'), under whatever key they are, or "
                "torch.save(saved.state_dict(), 'weights.pt') if it is the model itself"
            )
        raise CheckpointError(f"can't read {file}: {reason}{advice}") from error


def read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the package is not installed, or the file is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"{file} needs the package safetensors: pip install safetensors") from None
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"can't read {file}: {error}") from error


def weights_of(saved: Any, file: Path) -> Mapping[str, Any]:
    """The weights among what a file holds: name → tensor.

    Raises:
        CheckpointError: there are none, or several and none under a name that is known.
    """
    found = find_weights(saved)
    if found is not None:
        return found
    keys = ""
    if isinstance(saved, Mapping):
        keys = f"; it has {shortened(map(str, saved))}"
    raise CheckpointError(f"{file} has no weights, as such or under one of {', '.join(KEYS)}{keys}")


def find_weights(saved: Any) -> Mapping[str, Any] | None:
    """The weights in a mapping, under one of KEYS, as such, or under the only other key that has some; None if none."""
    if not isinstance(saved, Mapping):
        return None
    for key in KEYS:
        within = find_weights(saved.get(key))
        if within is not None:
            return within

    # A state of torch's may have a value that is no tensor, for what a module keeps beside its weights.
    if any(isinstance(value, torch.Tensor) for value in saved.values()):
        return saved
    others = [within for within in map(find_weights, saved.values()) if within is not None]
    return others[0] if len(others) == 1 else None


# Matching


def match(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Match:
    """Find the change of prefixes with which most tensors of a file fit those of a model, and what does not fit.

    Args:
        saved: the file's, by name.
        own: the model's, by name.
    """
    named_own = {name.replace(COMPILED, ""): name for name in own}
    named_saved = {name.replace(COMPILED, ""): name for name in saved}

    best, most = ("", ""), -1
    for change in changes(named_saved, named_own):
        renamed = {rename(name, *change): saved[full] for name, full in named_saved.items()}
        if len(renamed) < len(named_saved):
            continue  # two would have the same name
        fit = sum(name in renamed and same_shape(renamed[name], own[full]) for name, full in named_own.items())
        if fit > most:
            best, most = change, fit

    found = Match(change=in_words(*best) if most > 0 else "")
    renamed = {rename(name, *best): full for name, full in named_saved.items()}
    for name, full in named_own.items():
        if name not in renamed:
            found.missing.append(full)
        elif same_shape(saved[renamed[name]], own[full]):
            found.fits[full] = saved[renamed[name]]
        else:
            shapes = f"{shape_of(saved[renamed[name]])} in the file and {shape_of(own[full])} in the model"
            found.other_shape.append(f"{full} is {shapes}")
    found.unexpected = [full for name, full in renamed.items() if name not in named_own]
    return found


def changes(saved: Iterable[str], own: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Prefixes to take away from a file's names, and to put before them, no change first."""
    saved, own = list(saved), list(own)
    away = dict.fromkeys(["", *common_prefixes(saved), *wrapping_prefixes(saved)])

    # What is put before them is an attribute of the model, of whatever name: a wrapper's first, then in its order.
    attributes = ["".join(f"{part}." for part in name.split(".")[:depth]) for depth in (1, 2) for name in own]
    before = dict.fromkeys(["", *wrapping_prefixes(own), *common_prefixes(own), *attributes])
    for add in before:
        for strip in away:
            yield strip, add


def wrapping_prefixes(names: Iterable[str]) -> Iterator[str]:
    """The beginnings of names that are WRAPPERS alone: `module.`, `module.model.`."""
    for name in names:
        prefix = ""
        for part in name.split(".")[:-1]:
            if part not in WRAPPERS:
                break
            prefix += f"{part}."
            yield prefix


def common_prefixes(names: Sequence[str]) -> Iterator[str]:
    """The beginnings that all names have in common, whatever they are called."""
    prefix = ""
    for part in names[0].split(".")[:-1]:
        prefix += f"{part}."
        if not all(name.startswith(prefix) for name in names):
            return
        yield prefix


def rename(name: str, strip: str, add: str) -> str:
    """A name with another prefix; one that does not begin with what is taken away stays as it is."""
    if not name.startswith(strip):
        return name
    return add + name.removeprefix(strip)


def in_words(strip: str, add: str) -> str:
    """How names were changed; empty if they were not."""
    words = [f"without `{strip}`"] if strip else []
    if add:
        words.append(f"with `{add}` before them")
    return f"the file's names {' and '.join(words)}" if words else ""


def same_shape(saved: Any, own: Any) -> bool:
    """True if a value of the file can take the place of one of the model's."""
    if not (isinstance(saved, torch.Tensor) and isinstance(own, torch.Tensor)):
        return isinstance(saved, torch.Tensor) == isinstance(own, torch.Tensor)
    return is_lazy(own) or saved.shape == own.shape


def shape_of(value: Any) -> str:
    """The shape of a tensor; of something else, what it is."""
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
