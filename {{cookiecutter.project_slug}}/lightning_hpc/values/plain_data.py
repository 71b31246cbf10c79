"""What a checkpoint may hold: numbers, strings, tensors, lists and dicts. A pickle of anything else can run any code.

Callbacks and models may put what they like into a checkpoint, and other things later than at first. What has a plain
counterpart is converted. What has none is left out, and the run continues; only without the parts in NEEDED it could
not be resumed.
"""

import io
from collections import OrderedDict
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

PLAIN_TYPES = (str, int, float, bool, type(None), torch.Tensor, torch.Size, torch.dtype)

# What Lightning, its averaging of weights and ExactResume write. Anything else is of a callback, a model or its data.
NEEDED = (
    "epoch",
    "global_step",
    "state_dict",
    "loops",
    "optimizer_states",
    "lr_schedulers",
    "current_model_state",
    "averaging_state",
    "exact_resume",
)

# Of these, what is not plain is left out value by value.
HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


class NotPlain(ValueError):
    """A value has no plain counterpart; the message says where it is and what."""


def is_plain(value: Any) -> bool:
    """True if a value is made of numbers, strings, tensors, lists and dicts alone, which torch.load reads safely."""
    # The exact types: a class of the user's that is derived from one of them is not plain.
    if type(value) is dict:
        return all(is_plain(item) for item in (*value.keys(), *value.values()))
    if type(value) in (list, tuple):
        return all(is_plain(item) for item in value)
    return type(value) in PLAIN_TYPES


def plain_checkpoint(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint with plain data alone.

    Args:
        checkpoint: as Lightning has put it together; it is not changed.

    Returns:
        the checkpoint, and a line for each thing that was converted or left out.

    Raises:
        NotPlain: a part in NEEDED has no plain counterpart.
    """
    plain: dict[str, Any] = {}
    lines: list[str] = []
    for key, value in checkpoint.items():
        if key in HYPER_PARAMETERS or key == "callbacks":
            plain[key] = _plain_items(value, key, lines)
            continue

        try:
            plain[key] = _whole_value(value, key, lines)
        except NotPlain as error:
            if key in NEEDED:
                raise
            lines.append(f"{error}, and is left out")
    return plain, lines


def _plain_items(values: dict[str, Any], where: str, lines: list[str]) -> dict[str, Any]:
    """The items that are, or become, plain. A callback whose state is left out begins anew after a restart."""
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = _whole_value(value, f"{where}/{name}", lines)
        except NotPlain as error:
            after_restart = ": this callback begins anew after a restart" if where == "callbacks" else ""
            lines.append(f"{error}, and is left out{after_restart}")
    return plain


def _whole_value(value: Any, where: str, lines: list[str]) -> Any:
    """A value as plain data, and its lines; no line if it has no plain counterpart as a whole."""
    new_lines: list[str] = []
    try:
        plain = plain_value(value, where, new_lines)
    except RecursionError:
        raise NotPlain(f"{where} holds itself or is nested too deep") from None
    lines += new_lines
    return plain


def plain_value(value: Any, where: str, lines: list[str]) -> Any:
    """A value as plain data: the same object if it is plain already.

    Args:
        value: anything.
        where: its place in the checkpoint, for messages.
        lines: gets a line for each part that is converted.

    Raises:
        NotPlain: a part of it has no plain counterpart.
    """
    kind = type(value)
    if kind in PLAIN_TYPES or isinstance(value, torch.Tensor):
        return value
    if kind in (dict, OrderedDict):
        return _plain_dict(value, where, lines)

    if kind in (list, tuple, set):
        parts = [plain_value(item, f"{where}/{number}", lines) for number, item in enumerate(value)]
        same = all(part is item for part, item in zip(parts, value, strict=True))
        return value if same else kind(parts)

    if _is_read(value):
        return value

    converted = _converted(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if converted is None:
        raise NotPlain(f"{where} holds a {name}, which is no plain data")
    lines.append(f"{where} is a {name} and saved as a {type(converted).__name__}")
    return plain_value(converted, where, lines)


def _plain_dict(values: dict[Any, Any], where: str, lines: list[str]) -> dict[Any, Any]:
    """A dict with plain keys and values."""
    items = {}
    same = True
    for key, item in values.items():
        plain_key = plain_value(key, f"{where}/{key}", lines)
        items[plain_key] = plain_value(item, f"{where}/{key}", lines)
        same = same and plain_key is key and items[plain_key] is item
    if same:
        return values

    copied = type(values)(items)
    if isinstance(values, OrderedDict):
        copied.__dict__.update(values.__dict__)  # state_dict() keeps the versions of modules there
    return copied


def _is_read(value: Any) -> bool:
    """True if torch reads this back as it is, such as bytes, or a class that was declared safe."""
    stream = io.BytesIO()
    try:
        torch.save(value, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:  # a class of the user's may raise anything when it is pickled
        return False
    return True


def _converted(value: Any) -> Any:
    """The plain counterpart of a value, with the same meaning; None if it has none."""
    if isinstance(value, PurePath):
        return str(value)

    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return value.tolist()
        try:
            return torch.from_numpy(value.copy())
        except (TypeError, ValueError):  # more digits, or another order of bytes, than torch has
            return None

    if isinstance(value, np.generic):
        number = value.item()
        return None if isinstance(number, np.generic) else number  # more digits than Python's float has

    # Classes derived from plain ones: named tuples, default dicts, enumerations of numbers.
    for plain_type in (int, float, str, dict, list, tuple):
        if isinstance(value, plain_type):
            return plain_type(value)
    if isinstance(value, set | frozenset):
        return set(value)
    return None
