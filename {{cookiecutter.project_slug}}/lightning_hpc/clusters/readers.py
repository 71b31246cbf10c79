"""How each kind of value of a resource is read: a reader returns it, or raises ValueError with what it is not."""

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from .presets import seconds


def word(value: Any) -> str:
    """Text for a #SBATCH line. YAML's numbers are meant as text here: account 12345, GPU type 2080."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and re.fullmatch(r"[^\s\"'\\]+", value):
        return value
    raise ValueError("is not a word without spaces and quotes")


def whole_number(least: int, most: int | None = None) -> Callable[[Any], int]:
    """The reader of a number within limits, both included."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value, re.ASCII):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("is not a whole number")
        if value < least:
            raise ValueError(f"is less than {least}")
        if most is not None and value > most:
            raise ValueError(f"is more than {most}")
        return value

    return read


def yes_or_no(value: Any) -> bool:
    """True or false, also as it is typed."""
    if str(value).lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return str(value).lower() == "true"


def memory_size(value: Any) -> str:
    """A number with a unit; 0 is all the memory of a node. Without a unit SLURM would take it for megabytes."""
    text = str(value).upper()
    if re.fullmatch(r"\d+[KMGT]|0", text, re.ASCII):
        return text
    raise ValueError("is not a number with a unit, K, M, G or T")


def time_limit(value: Any) -> str:
    """A time limit in one of sbatch's forms."""
    seconds(str(value))
    return str(value)


def moment(value: Any) -> str:
    """A point in time as sbatch reads it: now+1hour, 16:00, 2026-02-03T04:05; or a date or time of YAML."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:  # sbatch knows the cluster's own time only
            value = value.astimezone().replace(tzinfo=None)
        return value.isoformat(timespec="seconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return word(value)


def address(value: Any) -> str:
    """An address for mail."""
    if isinstance(value, str) and re.fullmatch(r"[^\s@\"'\\]+@[^\s@\"'\\]+", value):
        return value
    raise ValueError("is not a mail address")


def line(value: Any) -> str:
    """One line of bash."""
    if isinstance(value, str) and "\n" not in value and "\r" not in value:
        return value
    raise ValueError("is not one line of text")


def lines(value: Any) -> tuple[str, ...]:
    """Lines of bash; a single one may be written without a list."""
    if isinstance(value, list | tuple):
        return tuple(line(each) for each in value)
    return (line(value),)


def sbatch_lines(value: Any) -> tuple[str, ...]:
    """Options as they stand on sbatch's command line."""
    options = lines(value)
    for option in options:
        if not re.match(r"--[a-z]", option):
            raise ValueError(f"holds {option}, which is not an option --name=value")
    return options


def variables(value: Any) -> dict[str, Any]:
    """Environment variables."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a mapping of names to values")
    for name, content in value.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", str(name), re.ASCII):
            raise ValueError(f"has a name that bash can't use, {name}")
        if isinstance(content, bool) or not isinstance(content, str | int | float):
            raise ValueError(f"has no text or number for {name}")
    return dict(value)
