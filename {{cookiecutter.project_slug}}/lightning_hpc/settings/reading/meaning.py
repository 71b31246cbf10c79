"""What was written, in the type of its setting: 1.10 is a text where a text is taken, and 1.1 where a number is."""

import functools
from typing import Any

from ..classes import kinds_of_settings
from ..layers import Settings
from ..yaml_files import parse_value
from .signatures import OTHERS, Kinds

# Settings of Train.py itself whose type is text. A name is not among them: one that is a bare number is refused.
TEXTS = {
    "codeversion": Kinds(words=frozenset(["str", "None"])),
    "init_from": Kinds(words=frozenset(["str", "None"])),
    "resume": Kinds(words=frozenset(["str"])),
    "runs_dir": Kinds(words=frozenset(["str"])),
}


def settle(settings: Settings) -> None:
    """Give texts and numbers the type of their setting, as far as a file says it.

    A run's identity is made of what its settings mean, and so are its name and its overlay.
    """
    for key, value in settings.flat.items():
        if key in settings.texts:
            settings.flat[key] = meant(kinds_of(key, settings), value, settings.texts[key])
        elif isinstance(value, str):
            settings.flat[key] = number_in(value, key, settings)


def kinds_of(key: str, settings: Settings) -> Kinds:
    """What a setting takes, as far as the file of its class says so."""
    if key in TEXTS:
        return TEXTS[key]

    # What has settings below it is a class.
    parent, _, name = key.rpartition(".")
    owner = settings.flat.get(parent)
    if not isinstance(owner, str) or settings.below(key):
        return OTHERS
    return kinds_of_settings(owner).get(name, OTHERS)


def number_in(text: str, key: str, settings: Settings) -> Any:
    """A text, or the number, true, false or null in it where the setting takes no text: '1e3' in quotes."""
    value = word_in(text)
    if isinstance(value, str):
        return text

    kinds = kinds_of(key, settings)
    takes_text = kinds.others or kinds.anything or kinds.choices or "str" in kinds.words
    return text if takes_text or not kinds.words else value


@functools.lru_cache(maxsize=4096)  # a plan of a thousand runs has the same few texts in each
def word_in(text: str) -> bool | int | float | str | None:
    """The number, true, false or null that a text is as YAML; the text itself if it is something else."""
    value = parse_value(text)
    return value if isinstance(value, bool | int | float | None) else text


def meant(kinds: Kinds, value: Any, text: str) -> Any:
    """What a setting is given: what was written, or what it could stand for.

    Args:
        kinds: what the setting takes.
        value: the number, true, false or null that YAML reads, or the full name of the class that is called like that.
        text: what was written.
    """
    if isinstance(value, str):
        return value if kinds.others else text

    # Where that can't be told, what YAML reads is meant.
    if kinds.others or kinds.anything or repr(value) in map(repr, kinds.choices):
        return value
    if text in kinds.choices:
        return text

    # Texts take anything, so all other types come first.
    if "str" not in kinds.words or word_for(value) in kinds.words:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and "float" in kinds.words:
        return value
    return text


def word_for(value: Any) -> str:
    """The word of Kinds for a value's type."""
    return "None" if value is None else type(value).__name__
