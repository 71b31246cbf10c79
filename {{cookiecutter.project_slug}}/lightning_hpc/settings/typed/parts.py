"""The parts in which a run's settings are checked: what was right in one run is not parsed again in the next."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError
from ..flat import Flat
from ..layers import Settings
from .facts import missing_facts
from .values import alternatives_of, type_of

Part = tuple[Any, ...]


def parts_of(settings: Settings, own: Mapping[str, Any]) -> set[Part]:
    """The parts that the parser checks each by itself: settings are right if each has been in settings that were right.

    A class is checked with its name and the names of its settings, a value with the classes above it, which give it its
    type. Two things go further. A DataModule is made if the model lacks facts about the data, and may then hold its
    settings against each other, so `data` is one part. And the model is told these facts, so what is right in it
    depends on all settings of the data but numbers.

    Args:
        settings: the merged settings of a run.
        own: the settings of the parser itself, with their types, see `types_of`.
    """
    data: Flat = {}
    for key, value in settings.flat.items():
        if key.partition(".")[0] == "data":
            data[key] = value

    # A fact that comes from a number is another number; from null, true or false it may be of another type.
    facts_come_from = as_text({key: value for key, value in data.items() if type(value) not in (int, float)})
    below = names_below(settings.flat)

    # What was made for another DataModule may lapse, and what was asked for may not, though the values are the same.
    defaults = tuple(sorted(settings.inherited & data.keys()))
    texts = as_text({key: text for key, text in settings.texts.items() if key in data})
    parts: set[Part] = {("data", as_text(data), defaults, texts, is_made(settings))}
    for key, value in settings.flat.items():
        if key in data:
            continue

        beside = facts_come_from if key.partition(".")[0] == "model" else ""
        is_default = key in settings.inherited
        text = settings.texts.get(key)
        what = what_of(key, value, settings, own)
        parts.add((key, classes_above(key, settings.flat), beside, below.get(key), is_default, text, what))

    return parts


def is_made(settings: Settings) -> bool:
    """True if the DataModule is made to check the settings, since the model lacks facts about the data."""
    try:
        return bool(missing_facts(settings))
    except SettingsError:  # there is no such class, which the parser will say
        return False


def what_of(key: str, value: Any, settings: Settings, own: Mapping[str, Any]) -> Any:
    """A number's type, where any number of that type is right; or else the value itself, as a text.

    Args:
        key: the setting.
        value: its value.
        settings: the merged settings of a run.
        own: the settings of the parser itself, with their types.
    """
    if not is_number(value):
        return as_text(value)

    try:
        alternatives = alternatives_of(type_of(key, settings, own))
    except SettingsError:  # there is no such class, which the parser will say
        alternatives = ()

    # A whole number may stand for a fraction. Whatever has limits, such as a choice, is none of these types.
    takes_any = type(value) in alternatives or (type(value) is int and float in alternatives)
    if takes_any:
        return type(value)

    # To Python, 1, 1.0 and True are equal; to the parser they are not.
    return type(value), as_text(value)


def is_number(value: Any) -> bool:
    """True for numbers, true, false and null."""
    return value is None or isinstance(value, bool | int | float)


def classes_above(key: str, flat: Flat) -> tuple[str, ...]:
    """What is set above a key, from the top: the classes that give it its type."""
    classes = []
    words = key.split(".")
    for length in range(1, len(words)):
        above = flat.get(".".join(words[:length]))
        if above is not None:
            classes.append(as_text(above))
    return tuple(classes)


def names_below(flat: Flat) -> dict[str, frozenset[str]]:
    """Key → the names right below it: those that a class is given, which it must know and which may be all it needs."""
    below: dict[str, set[str]] = {}
    for key in flat:
        words = key.split(".")
        for length in range(1, len(words)):
            below.setdefault(".".join(words[:length]), set()).add(words[length])
    return {key: frozenset(names) for key, names in below.items()}


def as_text(value: Any) -> str:
    """A value as a text; equal texts mean equal values."""
    return json.dumps(value, default=str)
