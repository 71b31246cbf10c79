"""What stands for a class or a module until it is used, and how it answers while a package is imported."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class LateClass(type):
    """The type of classes that stand for a class of a package not imported yet: their module and name say which."""

    def real(cls) -> Any:
        """The class itself, from its package, which is imported."""
        return getattr(real_module(cls.__module__), cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):  # what `typing` asks of everything
            raise AttributeError(name)
        return getattr(cls.real(), name)

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        return cls.real()(*arguments, **keywords)

    def __instancecheck__(cls, thing: Any) -> bool:
        module = sys.modules.get(cls.__module__)
        imported = module is not None and not isinstance(module, LateModule)
        return imported and isinstance(thing, cls.real())  # else there is none of it yet


def late_class(module: str, name: str) -> LateClass:
    """A class that stands for `module.name`."""
    return LateClass(name, (), {"__module__": module})


class LateModule(ModuleType):
    """Stands for a module. What it has not been given is asked of the module itself, which is then imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks
            raise AttributeError(name)
        return getattr(real_module(self.__name__), name)


def real_module(name: str) -> ModuleType:
    """The module of this name, also while a stand-in answers for it: another thread may need it then."""
    if isinstance(sys.modules.get(name), LateModule):
        del sys.modules[name]
    return importlib.import_module(name)


def late(name: str, **known: Any) -> LateModule:
    """A stand-in for the module of this name.

    Args:
        known: what it answers without importing the module.
    """
    module = LateModule(name)
    module.__dict__.update(known)
    return module


@contextmanager
def standing_in(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Let stand-ins answer by these names; those of a package that is imported already, or not installed, do not."""
    put = {}
    for name, module in modules.items():
        package = name.partition(".")[0]
        if name not in sys.modules and importlib.util.find_spec(package) is not None:
            put[name] = module
    for name, module in put.items():
        module.__spec__ = importlib.util.find_spec(name) if "." not in name else None
    sys.modules.update(put)
    try:
        yield
    finally:
        for name, module in put.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
