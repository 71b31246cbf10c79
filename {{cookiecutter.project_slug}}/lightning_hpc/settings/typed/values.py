"""Merged settings as the parser takes them: what the layers had to leave open, since it takes types to decide it."""

import enum
import json
import os
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from ..classes import CLASS_SECTIONS, class_settings, import_class, setting_types
from ..errors import SettingsError
from ..flat import Flat, unflatten
from ..layers import Settings
from .messages import class_of, parent_of

# The full name of a class: words with dots between them, the last with a capital letter.
CLASS_PATH = re.compile(r"(\w+\.)+[A-Z]\w*")

# Types whose values are words, numbers or lists of them, and no classes that could be named.
PLAIN = (str, int, float, bool, type(None), list, tuple, set, frozenset, bytes, os.PathLike, enum.Enum)


def types_of(parser: ArgumentParser) -> dict[str, Any]:
    """The settings of a parser itself, such as trainer.max_epochs or model → their types."""
    return {action.dest: getattr(action, "_typehint", None) for action in parser._actions}


def drop_inherited(settings: Settings) -> None:
    """Forget defaults that were made for another model or data class and that the one now chosen does not have."""
    for key in sorted(settings.inherited):
        section, name = key.split(".")[:2]
        if name not in class_settings(class_of(section, settings)):
            settings.drop(key)


def give_types(settings: Settings, own: Mapping[str, Any]) -> None:
    """Put texts, class names and mappings into the form that the type of their setting asks for.

    Args:
        settings: the merged settings, which are changed.
        own: the settings of the parser itself, with their types.
    """
    for key in list(settings.flat):
        gather_mapping(key, settings)

    for key, value in list(settings.flat.items()):
        if settings.below(key):
            settings.texts.pop(key, None)  # it is a class
        elif isinstance(value, str):
            text = settings.texts.pop(key, value)
            settings.flat[key] = text_or_class(key, value, text, settings, own)
        elif key in settings.texts and takes_value(alternatives_of(type_of(key, settings, own)), value):
            del settings.texts[key]

    # What is left of the texts was typed for a number, true, false or null: the parser knows if that is meant.


def text_or_class(key: str, value: str, text: str, settings: Settings, own: Mapping[str, Any]) -> Any:
    """A text as its setting takes it: as it was written, or as a class.

    Args:
        key: the setting.
        value: its value: the class's full name, if the text is the name of a class.
        text: what was written.
        settings: all settings.
        own: the settings of the parser itself, with their types.
    """
    if value == text and not CLASS_PATH.fullmatch(value):
        return value

    # A class's name in full is a text as well: only a mapping is always taken for the class.
    alternatives = alternatives_of(type_of(key, settings, own))
    if takes_class(alternatives, value):
        return {"class_path": value} if str in alternatives else value
    return text


def type_of(key: str, settings: Settings, own: Mapping[str, Any]) -> Any:
    """The type of a setting; None if it has none."""
    if key in own:
        return own[key]

    # Only right below a class the setting is that class's; further down it is in a mapping, of any type.
    parent, _, name = key.rpartition(".")
    if not isinstance(settings.flat.get(parent), str):
        return None
    return setting_types(class_of(parent, settings)).get(name)


def alternatives_of(kind: Any) -> tuple[Any, ...]:
    """The types that a union consists of; a type alone is its only alternative."""
    if get_origin(kind) not in (Union, types.UnionType):
        return (kind,)

    alternatives: list[Any] = []
    for part in get_args(kind):
        alternatives += alternatives_of(part)
    return tuple(alternatives)


def takes_class(alternatives: tuple[Any, ...], class_path: str) -> bool:
    """True if one of these types is meant by the name of a class."""
    classes = [kind for kind in alternatives if is_class(kind)]
    if not classes:
        return False

    # Without text as an alternative, a class was meant, and the parser says what is wrong with it.
    has_text = any(kind is str or get_origin(kind) is Literal for kind in alternatives)
    if not has_text:
        return True

    try:
        thing = import_class(class_path)
    except SettingsError:
        return False
    if not isinstance(thing, type):
        return True
    return any(not isinstance(kind, type) or issubclass(thing, kind) for kind in classes)


def takes_value(alternatives: tuple[Any, ...], value: Any) -> bool:
    """True if a number, true, false or null is meant, though the setting takes texts, too: they come last."""
    if str not in alternatives:
        return False
    if isinstance(value, int) and not isinstance(value, bool) and float in alternatives:
        return True
    return type(value) in alternatives


def is_class(kind: Any) -> bool:
    """True for a type whose values are objects of a class, or functions that make them."""
    if get_origin(kind) in (type, Callable):
        return True
    if kind in (Any, object) or not isinstance(kind, type):
        return False
    return not issubclass(kind, (*PLAIN, Mapping))


def gather_mapping(key: str, settings: Settings) -> None:
    """Put a key back together that is below a mapping of plain values: there, dots are part of a name."""
    if key not in settings.flat or key.partition(".")[0] not in CLASS_SECTIONS:
        return
    parent = parent_of(key, settings)
    if not parent or not isinstance(settings.flat[parent], str):
        return

    # A setting with a key below it, such as lrs.block1.conv of a network.
    name, dot, _ = key.removeprefix(f"{parent}.").partition(".")
    if not dot or not is_plain_mapping(setting_types(class_of(parent, settings)).get(name)):
        return

    whole = f"{parent}.{name}"
    gathered = {}
    source = settings.source[key]
    for below in settings.below(whole):
        gathered[below.removeprefix(f"{whole}.")] = settings.texts.get(below, settings.flat[below])
        settings.drop(below)
    settings.put(whole, gathered, source)


def is_plain_mapping(kind: Any) -> bool:
    """True for a type such as dict[str, float], whose values have no keys of their own."""
    for alternative in alternatives_of(kind):
        origin, arguments = get_origin(alternative), get_args(alternative)
        if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
            values = alternatives_of(arguments[1])
            return all((get_origin(value) or value) in (*PLAIN, Literal) for value in values)
    return False


def as_object(settings: Settings) -> dict[str, Any]:
    """Settings in jsonargparse's own form, as plain data. A typed value is the text that was typed: types decide."""
    flat: Flat = {**settings.flat, **settings.texts}
    return json.loads(json.dumps(unflatten(flat), default=str))
