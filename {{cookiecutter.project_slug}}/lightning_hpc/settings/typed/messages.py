"""Errors of the command line as one line: what is wrong, where it was written, what was probably meant."""

import re
from collections.abc import Sequence
from typing import Any

from ..classes import OLD_LIGHTNING, USE_LIGHTNING, class_settings, import_class, of_old_lightning
from ..errors import SettingsError, did_you_mean
from ..layers import Settings, where, written
from .suggestions import near_settings

# What jsonargparse knows of every class, beside the class's own settings.
OF_EVERY_CLASS = ("class_path", "init_args", "dict_kwargs")

# What `crossvalidate` and folds set, in a DataModule that can split.
SPLITTING = ("data.mode", "data.folds", "data.fold")
INHERIT = "; what can be split into folds inherits from lightning_hpc.data.DataModule"


def check_keys(settings: Settings, known: set[str]) -> None:
    """Stop at the first key that nothing reads, naming it, where it was written, and the nearest right one.

    Args:
        settings: the merged settings.
        known: the parser's own keys, such as trainer.max_epochs, model, data.

    Raises:
        SettingsError: a key is not known.
    """
    for key in settings.flat:
        check_key(key, settings, known)


def check_key(key: str, settings: Settings, known: set[str]) -> None:
    """Stop if nothing reads this key; see check_keys."""
    parent = parent_of(key, settings)

    # No class above it is chosen, so the key must be one of the parser's own.
    if not parent:
        if key not in known:
            raise unknown_setting(key, "Train.py", near_settings(key, "", settings, known), settings)
        return

    # A setting in a mapping or a list: the parser checks it.
    owner = settings.flat[parent]
    if not isinstance(owner, str):
        return

    # Only the word right below the class: what is below that belongs to a default class, which the parser knows.
    word = key.removeprefix(f"{parent}.").partition(".")[0]
    names = class_settings(class_of(parent, settings))
    if word in OF_EVERY_CLASS or word in names:
        return

    advice = INHERIT if key in SPLITTING else near_settings(f"{parent}.{word}", parent, settings, known)
    raise unknown_setting(key, owner, advice, settings)


def parent_of(key: str, settings: Settings) -> str:
    """The nearest key above a key that is set; '' if none is."""
    parent = key.rpartition(".")[0]
    while parent and parent not in settings.flat:
        parent = parent.rpartition(".")[0]
    return parent


def unknown_setting(key: str, owner: str, near: str, settings: Settings) -> SettingsError:
    """The error of a key that nothing reads."""
    return SettingsError(f"unknown setting {written(key, settings)}: {owner} has no such setting{near}")


def class_of(key: str, settings: Settings) -> Any:
    """The class or function that a setting names.

    Raises:
        SettingsError: there is none; the message says where the name was written.
    """
    try:
        return import_class(settings.flat[key])
    except SettingsError as error:
        raise SettingsError(f"{written(key, settings)}: {error}") from None


def located(error: SettingsError, settings: Settings) -> SettingsError:
    """The parser's error about a setting, with where that setting was written."""
    # The parser has seen one object: only the settings still know which file or option a value comes from.
    key, colon, text = str(error).partition(": ")
    if not colon:
        return error

    # What is in a list or a mapping was written together with that; a mapping may have been written key by key.
    nearest = key
    while nearest and nearest not in settings.source:
        nearest = nearest.rpartition(".")[0]
    nearest = nearest or next(iter(settings.below(key)), "")
    if not nearest:
        return error
    return SettingsError(f"{where(key, settings.source[nearest])}: {text}")


def one_line(message: str) -> str:
    """jsonargparse's message, up to 20 lines of alternatives, as one: the setting, a colon, what is wrong with it."""
    # An object that is parsed for a question comes as a file: `config` is no setting of the user's.
    message = message.removeprefix('Parser key "config":').strip()
    if "\n" not in message:
        return message

    # A class's parser reports to the one around it, and each adds its part of the key, the outermost first.
    key = ".".join(re.findall(r'Parser key "([\w.+]+)"', message))

    # A message has a paragraph for each type that was tried, so several of these may fit: the most telling come first.
    for explain in EXPLANATIONS:
        explanation = explain(message, key)
        if explanation:
            return f"{key}: {explanation}"

    # None fits: everything that jsonargparse has said, on one line.
    return f"{key}: {' '.join(message.split())}"


def about_setting(message: str) -> str:
    """The part of the parser's message that is about the setting itself, and not about the classes around it."""
    return re.split(r'Parser key "[\w.+]+":', message)[-1]


def given_value(message: str) -> str | None:
    """The value that the parser complains about."""
    # Three wordings. What follows a second `Got value` is the parser's own way of writing the same thing.
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value|\n|$)|val='(.*)'\)", message)
    if not given:
        return None

    value = next(group for group in given.groups() if group is not None)

    # A class with all its settings is longer than anybody reads.
    value = re.sub(r"Namespace\(class_path='([\w.]+)'(, init_args=Namespace\([^()]*\))?\)", r"\1", value)
    return value if len(value) <= 100 else f"{value[:100]}…"


# Each of these takes jsonargparse's message and the key, and returns what is wrong, or None if it is something else.


def unknown_argument(message: str, key: str) -> str | None:
    """A class gets a setting that it does not have."""
    unknown = re.search(r"given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message)
    if not unknown:
        return None

    class_path, name = unknown.groups()
    near = did_you_mean(name, class_settings(import_class(class_path)))
    return f"{class_path} has no setting {name}{near}"


def class_not_found(message: str, key: str) -> str | None:
    """A class name without a module that no class has."""
    # jsonargparse wants a dotted path; a capital letter says that a class was meant and not, say, a number.
    name = re.search(r"Expected a dot import path string: ([A-Z]\w*)", message)
    if not name:
        return None

    return why_not(name[1])


def several_classes(message: str, key: str) -> str | None:
    """A class name without a module that several classes have."""
    several = re.search(r"Multiple subclasses with name (\w+)\. .*ambiguity: (.+)\.\n", message)
    if not several:
        return None

    return f"there are several classes {several[1]}, give one in full: {several[2]}"


def wrong_type(message: str, key: str) -> str | None:
    """A value of another type, or none of the choices."""
    types = re.findall(r"Expected an? <class '(?:\w+\.)*(\w+)'>", message)
    literals = re.findall(r"Expected a typing.Literal\[(.*?)\]", message)

    literals += re.findall(r"Expected a member of <enum '\w+'>: \{(.*?)\}", message)

    choices = []
    for literal in literals:
        choices += [choice.strip(" '") for choice in literal.split(",")]

    # Nobody who mistypes a number wants to hear of NoneType; a type that was tried twice is told once.
    expected = dict.fromkeys([*classes_expected(message), *types, *choices])
    for name in ("NoneType", "Iterable", "list") if classes_expected(message) else ("NoneType",):
        expected.pop(name, None)

    value = given_value(message)
    if not expected or value is None:
        return None

    return f"expected {' or '.join(expected)}, got {value}{hint_for(value, list(expected), choices)}"


def classes_expected(message: str) -> list[str]:
    """The classes that a setting takes: Logger, list of Logger; none if it takes no class."""
    subtypes = re.search(r"Subtypes: \[(.*)\]\n", about_setting(message))
    if not subtypes:
        return []

    classes = []
    for text in re.split(r", (?![^\[]*\])", subtypes[1]):
        name = re.search(r"(\w+)'?>?\]?$", text)
        is_ours = "." in text and name is not None and name[1][0].isupper()
        if is_ours and "[" in text:
            classes.append(f"a list of {name[1]}")
        elif is_ours:
            classes.append(name[1])
    return classes


def hint_for(value: str, expected: list[str], choices: list[str]) -> str:
    """What was probably meant by a value of a wrong type."""
    if "float" in expected and value.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        sign = "-" if value.startswith("-") else ""
        return f" (did you mean {sign}.{value.lower().lstrip('+-')[:3]}?)"
    if expected == ["str"]:
        return " (in a file, put it in quotes)"
    return did_you_mean(value, choices)


def missing(message: str, key: str) -> str | None:
    """A setting without a default that is not set."""
    required = re.search(r"arguments are required: ([\w, ]+)", message)
    if not required:
        return None

    # The parser gives names alone; with the key before it, each can be typed as it stands.
    names = required[1].split(", ")
    options = ", ".join(f"--{key}.{name}" for name in names)
    advice = f"set {options}, there is no default"

    owner = re.findall(r"Problem with given class_path '([\w.]+)':\s+the following arguments", message)
    if not owner:
        return advice
    return f"{owner[-1].rpartition('.')[2]} lacks {', '.join(names)}: {advice}"


def wrong_class(message: str, key: str) -> str | None:
    """A class that is no subclass of what it must be."""
    wrong = re.search(r"Import path(?: ([\w.]+))? does not correspond to a subclass of (\w+)", message)
    if not wrong:
        wrong = re.search(r"Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", message)
    if not wrong:
        return None

    # The first wording may leave the class's name out, and gives the whole value further down.
    class_path, parent = wrong.groups()
    return is_none_of(class_path or given_value(message) or "", parent)


def is_none_of(name: str, kind: str) -> str:
    """That a class is not of a kind, and why, if it is the same class of Lightning's other package."""
    if of_old_lightning(name):
        return f"{name} is of the package {OLD_LIGHTNING}, whose classes don't work here: {USE_LIGHTNING}"
    return f"{name} is no {kind}"


def no_class(message: str, key: str) -> str | None:
    """A class path that leads nowhere."""
    name = re.search(r"Expected a path but ([\w.]+) either", message)
    if not name:
        return None

    if not name[1][0].isalpha():
        return f"expected the name of a class, got {name[1]}"
    return why_not(name[1], classes_expected(message))


def why_not(name: str, kinds: Sequence[str] = ()) -> str:
    """Why a class name is not accepted, where these kinds of classes are."""
    # Importing it once more gives our own message, with what is near.
    try:
        import_class(name)
    except SettingsError as error:
        return str(error)

    return is_none_of(name, " or ".join(kinds) or "class that this setting takes")


def last_words(message: str, key: str) -> str | None:
    """What the parser says about the setting itself, if it is a single sentence."""
    lines = [line.strip() for line in about_setting(message).splitlines() if line.strip()]
    if not lines or lines[0].startswith(("Does not validate", "- ", "Problem with")):
        return None
    return lines[0].replace(". Got value:", ", got").replace("Expected", "expected", 1)


# Those that say the most come first: what a class lacks, rather than which other types were tried.
EXPLANATIONS = (
    unknown_argument,
    class_not_found,
    several_classes,
    missing,
    wrong_class,
    wrong_type,
    no_class,
    last_words,
)
