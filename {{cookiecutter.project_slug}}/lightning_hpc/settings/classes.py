"""Class names: where the class is that a setting names, the class itself, and which settings it has.

A class may be named without its module: `SGD` for `torch.optim.SGD`. Where it is, is found by reading Python files, not
by importing them, so that planning needs no torch and a user's file runs only if it has the class. The first one wins:

    1. the user's model.py, networks.py and data.py
    2. any other Python file of theirs, in their package or beside Train.py
    3. what the machine room offers: lightning_hpc.training, .trackers, .data, .cka
    4. Lightning's and torch's optimizers, schedules, callbacks and loggers
    5. a class that a file of the user's imports
"""

import functools
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import places
from .errors import SettingsError, did_you_mean
from .reading.names import module_file, names_in
from .reading.signatures import Kinds, argument_kinds

MAIN_MODULES = ("data", "networks", "model")  # the user's own; the first one that has a class wins

# What stands beside Train.py and is not the user's to name classes in.
NOT_OWN = {"Train", "CreateSweep", "SweepAgent", "SlurmTrain", "Report", "conftest", "setup", "tests", "lightning_hpc"}

LIBRARIES = (
    "lightning_hpc.training",
    "lightning_hpc.trackers",
    "lightning_hpc.data",
    "lightning_hpc.cka",
    "lightning.pytorch.loggers",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.strategies",
    "lightning.pytorch.profilers",
    "torch.optim",
    "torch.optim.lr_scheduler",
)

# Sections in which a text may be the name of a class, at any depth.
CLASS_SECTIONS = ("model", "data", "cka")

# Lightning's own knows what to monitor; torch's has the same name.
EXCEPTIONS = {"ReduceLROnPlateau": "lightning.pytorch.cli.ReduceLROnPlateau"}

# The machine room was a part of the user's package once: module in PACKAGE → the module that has its classes now.
OLD_MODULES = {
    "training.schedules": "lightning_hpc.training",
    "training.stopping": "lightning_hpc.training",
    "training.averaging": "lightning_hpc.training",
    "training.trackers": "lightning_hpc.trackers",
    "datasets.module": "lightning_hpc.data",
    "cka": "lightning_hpc.cka",
    "cka.callback": "lightning_hpc.cka",
}

# The other package of Lightning has the same classes, which are not these.
OLD_LIGHTNING = "pytorch_lightning"
USE_LIGHTNING = "here it is `import lightning.pytorch as pl`"

_root: Path | None = None
_renamings_said: set[str] = set()


def work_in(root: Path) -> None:
    """From now on, this is the folder of the code, in the whole process.

    Classes without a module are looked for in its files, and paths in settings count from the project that it is of.
    """
    global _root
    _root = root
    places.count_from(root)


def full_name(name: str) -> str:
    """A class name in full, as far as that is known: `SGD` → `torch.optim.SGD`; a name of an earlier version → today's.

    Raises:
        SettingsError: several files of the user's have such a class.
    """
    # Whoever gives a module has said where the class is; only an earlier version's module has moved.
    if "." in name:
        return renamed(name) or name
    return find_class(name) or name


def renamed(path: str) -> str | None:
    """What a class path of an earlier version is called now, said once; None if it is no such path."""
    package, _, rest = path.partition(".")
    module, _, leaf = rest.rpartition(".")

    # Only in the user's package: another library may have a module called `cka`, too.
    if module not in OLD_MODULES or _root is None or not (_root / package / "__init__.py").is_file():
        return None

    # A path of today, or a module that the user has written under the old name.
    if package == "lightning_hpc" or f"{package}.{module}" in own_modules(_root):
        return None

    new = f"{OLD_MODULES[module]}.{leaf}"
    if path not in _renamings_said:
        _renamings_said.add(path)
        print(f"note: {path} is called {new} now; the next version will not know the old name", file=sys.stderr)

    return new


def find_class(name: str) -> str | None:
    """The class path of a class named without its module; None if no file that is looked into has one.

    Raises:
        SettingsError: several files of the user's have one.
    """
    # Most texts among the settings are no class names, such as `relu` or `data/cifar10`.
    if not (name.isidentifier() and name[0].isupper()):
        return None
    return search(name, _root)


@functools.cache  # a plan of 1,000 runs names the same few classes in each
def search(name: str, root: Path | None) -> str | None:
    """What find_class does, in the project of this folder."""
    own = {module: names_in(module, file) for module, file in own_modules(root).items()}

    # A name that a main module imports was put there to be used: it counts as if it were defined there.
    for main in MAIN_MODULES:
        for module, names in own.items():
            if module.rpartition(".")[2] != main:
                continue
            if name in names.defined:
                return f"{module}.{name}"
            if name in names.imported:
                return names.imported[name]

    # Other files have no order, so two classes of a name are a question to the user.
    others = sorted(f"{module}.{name}" for module, names in own.items() if name in names.defined)
    if len(others) > 1:
        raise SettingsError(f"there are several classes {name}, give one in full: {', '.join(others)}")
    if others:
        return others[0]

    if name in EXCEPTIONS:
        return EXCEPTIONS[name]
    for library in LIBRARIES:
        if name in library_names(library):
            return f"{library}.{name}"

    # Last of all, since the imports of a file are mostly for its own use.
    origins = {names.imported[name] for names in own.values() if name in names.imported}
    return min(origins, default=None)


def own_modules(root: Path | None) -> dict[str, Path]:
    """The user's own modules, beside Train.py and in the packages that stand there, each with its file."""
    if root is None:
        return {}
    files = list(root.glob("*.py"))
    for package in root.glob("*/__init__.py"):
        files += package.parent.rglob("*.py")

    modules = {}
    for file in sorted(files):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and parts[0] not in NOT_OWN:
            modules[".".join(parts)] = file
    return modules


@functools.cache
def library_names(module: str) -> set[str]:
    """Classes that a library's module offers: its own, and those that a package imports from its parts."""
    file = module_file(module)
    if file is None:
        return set()

    # What it imports from elsewhere, such as Path or Tensor, is not its own to offer.
    names = names_in(module, file)
    return names.defined | {name for name, path in names.imported.items() if path.startswith(f"{module}.")}


def with_full_names(key: str, value: Any) -> Any:
    """A value with the class names in it in full: of `model`, `data`, `cka` and below, and the Trainer's callbacks.

    Raises:
        SettingsError: a class name has several meanings.
    """
    section, *below = key.split(".")

    # Of the Trainer's settings, only those at its top name classes: a logger's project is none.
    of_trainer = section == "trainer" and len(below) == 1
    if isinstance(value, str) and (of_trainer or section in CLASS_SECTIONS):
        return full_name(value)

    # In a model's list, such as the names of its layers, a text stays a text.
    if isinstance(value, list) and of_trainer:
        value = list(value)
        for place, item in enumerate(value):
            if isinstance(item, str):
                value[place] = full_name(item)

    return with_full_class_paths(value)


def with_full_class_paths(value: Any) -> Any:
    """A value with each `class_path` in it, at any depth, in full."""
    if isinstance(value, list):
        return [with_full_class_paths(item) for item in value]
    if not isinstance(value, Mapping):
        return value

    full = {}
    for key, item in value.items():
        full[key] = with_full_class_paths(item)

    if isinstance(full.get("class_path"), str):
        full["class_path"] = full_name(full["class_path"])
    return full


def kinds_of_settings(class_path: str) -> Mapping[str, Kinds]:
    """Settings of a class or function → what each takes, read from its file without importing it."""
    return argument_kinds(class_path, _root)


def import_class(name: str) -> Any:
    """The class or function that a class path names, or a class name alone where it is known.

    Raises:
        SettingsError: there is none; the message says which part is missing and what is near.
    """
    path = full_name(name)
    module_name, _, leaf = path.rpartition(".")
    if not module_name:
        near = did_you_mean(leaf, known_names())
        raise SettingsError(f"there is no class {leaf}{near}; a class of your own needs its module: my_file.{leaf}")

    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The missing module may be one that the user's file imports.
        if error.name and not module_name.startswith(error.name):
            advice = USE_LIGHTNING if error.name == OLD_LIGHTNING else "is the package installed?"
            raise SettingsError(f"{path} can't be imported: {error} ({advice})") from None
        raise SettingsError(f"there is no module {error.name} for the class {path}") from None

    if not hasattr(module, leaf):
        names = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
        raise SettingsError(f"there is no class {leaf} in {module_name}{did_you_mean(leaf, names)}")

    return getattr(module, leaf)


def of_old_lightning(name: str) -> bool:
    """True if a class is one of the package pytorch_lightning."""
    parents = getattr(import_class(name), "__mro__", ())
    return any(parent.__module__.startswith(f"{OLD_LIGHTNING}.") for parent in parents)


def known_names() -> set[str]:
    """All class names that are found without their module."""
    names = set(EXCEPTIONS)
    for library in LIBRARIES:
        names |= library_names(library)
    for module, file in own_modules(_root).items():
        names |= names_in(module, file).defined

    # Functions are there as well, and are never meant by a name without a module.
    return {name for name in names if name[0].isupper()}


def class_settings(thing: Any) -> frozenset[str]:
    """Names of the settings of a class or function, as the parser sees them: its arguments and those it passes on."""
    return frozenset(setting_types(thing))


@functools.cache
def setting_types(thing: Any) -> dict[str, Any]:
    """Settings of a class or function → their types; None where the parser has none."""
    from jsonargparse import ArgumentParser  # late: only the names of classes are needed to plan

    parser = ArgumentParser(exit_on_error=False)
    if isinstance(thing, type):
        parser.add_class_arguments(thing, "it", fail_untyped=False)
    else:
        parser.add_function_arguments(thing, "it", fail_untyped=False)

    # The parser has options of its own, such as --help; those of the class are below `it`.
    types = {}
    for action in parser._actions:
        owner, _, name = action.dest.partition(".")
        if owner == "it" and name:
            types[name.split(".")[0]] = getattr(action, "_typehint", None)
    return types
