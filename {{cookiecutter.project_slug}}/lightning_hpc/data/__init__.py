"""Data: downloads that arrive whole, splits that are right, and a DataModule that makes a new data set twenty lines."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .download import fetch, fetch_all
    from .module import DataModule
    from .source import Source
    from .staging import DownloadError
    from .unpack import extract

_HOME = {
    "DataModule": "module",
    "DownloadError": "staging",
    "Source": "source",
    "extract": "unpack",
    "fetch": "download",
    "fetch_all": "download",
}
__all__ = ["DataModule", "DownloadError", "Source", "extract", "fetch", "fetch_all"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds, and help and planning need none."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
