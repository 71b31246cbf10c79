"""Options and settings of a command line, before any parser with types is asked."""

from collections.abc import Iterable, Sequence
from typing import Any

from .errors import SettingsError
from .flat import Flat, flatten, set_in_last_item
from .yaml_files import parse_value


def take_options(arguments: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """Take an option that may be repeated (`--name value`, `--name=value`) out of a command line: values, the rest."""
    values: list[str] = []
    rest: list[str] = []
    tokens = iter(arguments)

    for token in tokens:
        name, equals, value = token.partition("=")
        if name not in names:
            rest.append(token)
            continue

        # Without `=`, the value is the next token, which the loop must not see again.
        if not equals:
            value = next(tokens, "")

        # `--run --canary` has forgotten the folder; no folder or file is called --canary.
        if not value or value.startswith("--"):
            raise SettingsError(f"{name} needs a value")
        values.append(value)

    return values, rest


def take_questions(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Take what asks about settings, and sets none, out of a command line: the questions, the rest.

    They are --help, --print_config, and --KEY.help for a class that KEY may be; the last two may have a value.
    """
    questions: list[str] = []
    rest: list[str] = []
    previous_is_open = False  # a question that a value may follow

    for token in arguments:
        name, equals, _ = token.partition("=")
        asks_for_help = token in ("-h", "--help")
        asks_for_class = name.startswith("--") and name.endswith(".help")
        is_question = asks_for_help or asks_for_class or name == "--print_config"

        # A value is joined to its question by `=`: alone, it would look like the value of a setting.
        if is_question:
            questions.append(token.replace(".init_args.", "."))
        elif previous_is_open and not token.startswith("-"):
            questions[-1] = f"{questions[-1]}={token}"
        else:
            rest.append(token)

        # --help takes no value: what follows it is left in the rest, and refused there.
        previous_is_open = is_question and not equals and not asks_for_help

    return questions, rest


def split_arguments(arguments: Iterable[str]) -> list[tuple[str, str | None]]:
    """Keys and texts of a command line of `--key value` or `--key=value`, in order; None for a key without a value.

    Raises:
        SettingsError: a value has no key.
    """
    pairs: list[tuple[str, str | None]] = []

    for token in arguments:
        if token.startswith("--"):
            # `--key=` gives the empty text, `--key` no text yet: the next token may be it.
            key, equals, text = token[2:].partition("=")
            if equals:
                pairs.append((key, text))
            else:
                pairs.append((key, None))
            continue

        # Only two dashes make a key, so that a negative number can be a value.
        if not pairs or pairs[-1][1] is not None:
            raise SettingsError(f"unrecognized arguments: {token}")
        key, _ = pairs[-1]
        pairs[-1] = (key, token)

    return pairs


def parse_arguments(arguments: Iterable[str]) -> Flat:
    """Settings of a command line; classes given as YAML are flattened, a key without a value is true.

    `--key+ value` appends to a list, and what follows for a key below the list belongs to its last item.

    Raises:
        SettingsError: a value has no key.
    """
    flat: Flat = {}

    for key, text in split_arguments(arguments):
        if text is None:
            value: Any = True
        else:
            value = parse_value(text)

        # A key below a list is for the list's last item so far: the class that was typed before it.
        list_key = list_above(key, flat)
        if list_key:
            below = key.removeprefix(list_key.removesuffix("+") + ".")
            flat[list_key] = set_in_last_item(flat[list_key], below, value)
            continue

        # The plus stays in the key: which list this is added to is known only when the layers are merged.
        if key.endswith("+"):
            items = flat.get(key, [])
            if isinstance(value, list):
                flat[key] = [*items, *value]
            else:
                flat[key] = [*items, value]
            continue

        flat |= flatten({key: value})

    return flat


def list_above(key: str, flat: Flat) -> str | None:
    """The key of the list, `key` or `key+`, to whose last item a short key belongs; None if there is none."""
    parts = key.split(".")

    # From the nearest key upwards: `a.b.c` is for the list `a.b` rather than for a list `a`.
    for length in range(len(parts) - 1, 0, -1):
        above = ".".join(parts[:length])

        # What `key+` has just added comes after the items of `key`, so the last item of all is there.
        for list_key in (f"{above}+", above):
            items: Any = flat.get(list_key)
            if isinstance(items, list) and items:
                return list_key

    return None


def typed_texts(arguments: Iterable[str]) -> dict[str, str]:
    """Short key → text, of values that YAML reads as something other than text: 1.10, null, true.

    Where a setting's type is text, the text is what was meant, not the number.
    """
    texts: dict[str, str] = {}
    for key, text in split_arguments(arguments):
        (name,) = flatten({key: None})  # the key as the settings have it, without init_args

        # A key that is typed twice has its last value.
        texts.pop(name, None)
        if text is not None and isinstance(parse_value(text), bool | int | float | None):
            texts[name] = text

    return texts


def keys_without_value(arguments: Iterable[str]) -> list[str]:
    """The keys of a command line that no value follows."""
    return [key for key, text in split_arguments(arguments) if text is None]
