"""Errors of the command line as one line: what is wrong, where it was written, what was probably meant."""

import functools
import importlib
import re
from typing import Any

from jsonargparse import ArgumentParser

from ..runs.request import COMMAND_LINE
from ..runs.settings import Settings, SettingsError, did_you_mean

# Where a class name without its module, such as SGD, is looked for.
CLASS_MODULES = (
    "torch.optim",
    "torch.optim.lr_scheduler",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.cli",  # its ReduceLROnPlateau, which knows what to monitor, instead of torch's
    *(f"{__package__.rpartition('.')[0]}.{name}" for name in ("model", "networks", "data", "training.schedules")),
)

SPECIAL = ("class_path", "init_args", "dict_kwargs", "help", "print_config")


def import_class(name: str) -> Any:
    """The class or function that a class path names, or a class name alone where it is one of CLASS_MODULES.

    Raises:
        SettingsError: there is none; the message says which part is missing and what is near.
    """
    module_name, _, leaf = (full_path(name) or name).rpartition(".")
    if not module_name:
        known = {n for module in CLASS_MODULES for n in vars(importlib.import_module(module)) if n[0].isupper()}
        near = did_you_mean(leaf, known)
        raise SettingsError(f"there is no class {leaf}{near}; a class of your own needs its module: my_file.{leaf}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise SettingsError(f"{name} can't be imported: {error} (is the package installed?)") from None
        raise SettingsError(f"there is no module {error.name} for the class {name}") from None
    if not hasattr(module, leaf):
        names = [n for n, thing in vars(module).items() if callable(thing) and not n.startswith("_")]
        raise SettingsError(f"there is no class {leaf} in {module_name}{did_you_mean(leaf, names)}")
    return getattr(module, leaf)


def full_path(name: str) -> str | None:
    """The class path of a class named without its module, if it is in one of CLASS_MODULES; the last of them wins."""
    found = [module for module in CLASS_MODULES if hasattr(importlib.import_module(module), name)]
    return f"{found[-1]}.{name}" if found and name[0].isupper() else None


@functools.cache
def class_settings(thing: Any) -> frozenset[str]:
    """Names of the settings of a class or function, as the parser sees them: its arguments and those it passes on."""
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if isinstance(thing, type) else parser.add_function_arguments
    add(thing, "it", fail_untyped=False)
    return frozenset(action.dest.split(".")[1] for action in parser._actions if action.dest.startswith("it."))


def check_keys(settings: Settings, known: set[str]) -> None:
    """Stop at the first key that nothing reads, naming it, where it was written, and the nearest right one.

    Args:
        settings: the merged settings.
        known: the parser's own keys, such as trainer.max_epochs, model, data.

    Raises:
        SettingsError: a key is not known.
    """
    for key in [key for key in settings.flat if key not in settings.inherited]:
        parent = key.rpartition(".")[0]
        while parent and parent not in settings.flat:
            parent = parent.rpartition(".")[0]
        if not parent:
            owner, word, names = "Train.py", key, known
        elif isinstance(owner := settings.flat[parent], str):
            word, _, below = key.removeprefix(f"{parent}.").partition(".")
            names = class_settings(class_of(parent, settings))
            if word in SPECIAL or below and word in names:
                continue  # a setting of a setting, whose class is the default: the parser checks it
        else:
            continue  # a mapping or a list: the parser checks it
        if word not in names:
            near = did_you_mean(word, names, prefix=f"{parent}." if parent else "")
            raise SettingsError(f"unknown setting {written(key, settings)}: {owner} has no such setting{near}")


def written(key: str, settings: Settings) -> str:
    """A setting as it was written, and in which file: `--data.batch_size`, or "`data.batch_size` in gpu.yaml"."""
    where = settings.source.get(key, COMMAND_LINE)
    return f"--{key}" if where == COMMAND_LINE else f"`{key}` in {where}"


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
    key, colon, text = str(error).partition(": ")
    return SettingsError(f"{written(key, settings)}: {text}") if colon and key in settings.source else error


def one_line(message: str) -> str:
    """jsonargparse's message, up to 20 lines of alternatives, as one: the setting, a colon, what is wrong with it."""
    message = message.removeprefix('Parser key "config":').strip()
    if "\n" not in message:
        return message
    key = ".".join(re.findall(r'Parser key "([\w.+]+)"', message))
    given = re.search(r"Got value: (.*?)(?:\. Got value|\n|$)|val='(.*)'\)|Given value: (.*)", message)
    value = next(group for group in given.groups() if group is not None) if given else ""
    if unknown := re.search(r"given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message):
        near = did_you_mean(unknown[2], class_settings(import_class(unknown[1])))
        return f"{key}: {unknown[1]} has no setting {unknown[2]}{near}"
    if name := re.search(r"Expected a dot import path string: ([A-Z]\w*)", message):
        return f"{key}: {why_not(name[1])}"
    if several := re.search(r"Multiple subclasses with name (\w+)\. .*ambiguity: (.+)\.\n", message):
        return f"{key}: there are several classes {several[1]}, give one in full: {several[2]}"
    types = re.findall(r"Expected an? <class '(?:\w+\.)*(\w+)'>", message)
    literals = re.findall(r"Expected a typing.Literal\[(.*?)\]", message)
    choices = [choice.strip(" '") for literal in literals for choice in literal.split(",")]
    expected = dict.fromkeys([name for name in types if name != "NoneType"] + choices)
    if expected and given:
        return f"{key}: expected {' or '.join(expected)}, got {value}{did_you_mean(value, choices)}"
    if required := re.search(r"arguments are required: ([\w, ]+)", message):
        return f"{key}: set {', '.join(f'--{key}.{name}' for name in required[1].split(', '))}, there is no default"
    if wrong := re.search(r"Import path(?: ([\w.]+))? does not correspond to a subclass of (\w+)", message):
        return f"{key}: {wrong[1] or value} is no {wrong[2]}"
    if wrong := re.search(r"Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", message):
        return f"{key}: {wrong[1]} is no {wrong[2]}"
    if name := re.search(r"Expected a path but ([\w.]+) either", message):
        return f"{key}: {why_not(name[1])}"
    return f"{key}: {' '.join(message.split())}"


def why_not(name: str) -> str:
    """Why a class name is not accepted."""
    try:
        import_class(name)
    except SettingsError as error:
        return str(error)
    return f"{name} is not of the right kind"
