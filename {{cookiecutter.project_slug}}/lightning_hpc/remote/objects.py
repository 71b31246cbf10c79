"""Object stores through fsspec: a file appears there whole, when the last byte has arrived.

Two habits of fsspec's own are not used here. `exists` answers False on any error. And `with fs.open(path, "wb")` puts
what was written so far under the name when the block ends with an exception. So a finished file is put, and only
FileNotFoundError says that there is none.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..settings.errors import SettingsError
from .store import Missing, relative, whole


class Memory:
    """memory://…: files in this process's memory, for tests; all such places of a process are one.

    Raises:
        SettingsError: fsspec is not installed.
    """

    seconds_between_puts = 0.0

    def __init__(self, address: str) -> None:
        self.address = address
        self.root = "/" + address.removeprefix("memory://").strip("/")
        self.files: Any = _file_system("memory")

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`."""
        for name, source in files.items():
            self.files.pipe_file(f"{self.root}/{relative(name)}", source.read_bytes())

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        try:
            content = self.files.cat_file(f"{self.root}/{relative(name)}")
        except FileNotFoundError:
            raise Missing(self.address, name) from None
        with whole(target) as part:
            part.write_bytes(content)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`."""
        start = f"{self.root}/{relative(folder)}" if folder else self.root
        found = self.files.find(start, detail=True)
        return {path.removeprefix(f"{self.root}/"): entry["size"] for path, entry in found.items()}

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(f"{self.root}/{relative(name)}")


def _file_system(kind: str, **options: Any) -> Any:
    """fsspec's file system of a kind.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import fsspec

        return fsspec.filesystem(kind, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        raise SettingsError(f'{kind}:// needs {error.name}: pip install -e ".[remote]"') from None
