"""file:///…: a folder, of another file system, of a disk that moves, or of a service that is mounted."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..settings.errors import SettingsError
from .store import ABANDONED, Missing, StoreError, check_size, is_part, part_of, relative, whole

FULL = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class Folder:
    """A folder as a place for files.

    Args:
        address: file:///PATH; the folder has to be there, since a disk that is not mounted looks like an empty one.

    Raises:
        SettingsError: it is no absolute path.
    """

    seconds_between_puts = 0.0

    def __init__(self, address: str) -> None:
        path = address.removeprefix("file://")
        if not path.startswith("/"):
            raise SettingsError(f"{address}: the path has to be absolute, such as file:///scratch/me/mirror")
        self.address = address
        self.root = Path(path)

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`; file by file."""
        self._check_there()
        for name, source in files.items():
            self._put(relative(name), source)

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        self._check_there()
        try:
            source = (self.root / relative(name)).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Missing(self.address, name) from None
        except OSError as error:
            raise self._explain(error) from None

        with source, whole(target) as part:
            size = os.fstat(source.fileno()).st_size
            with part.open("xb") as file:
                shutil.copyfileobj(source, file)
            check_size(self.address, name, part, size)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`; parts of files are not shown."""
        self._check_there()
        start = self.root / relative(folder) if folder else self.root
        found = {}
        try:
            for place, _, names in os.walk(start, onerror=_raise_unless_gone):
                for path in (Path(place, name) for name in names if not is_part(name)):
                    with contextlib.suppress(FileNotFoundError):  # it has gone since its name was read
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        except OSError as error:
            raise self._explain(error) from None
        return found

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`, with what is left of uploads of these files; a folder that is empty then goes, too."""
        self._check_there()
        try:
            for name in map(relative, names):
                path = self.root / name
                path.unlink(missing_ok=True)
                for part in _parts(path):
                    part.unlink(missing_ok=True)
                self._remove_empty(path.parent)
        except OSError as error:
            raise self._explain(error) from None

    def _put(self, name: str, source: Path) -> None:
        """Write a part beside the file, then give it the name: what is there before and after is whole."""
        path = self.root / name
        part = self.root / part_of(name)
        with source.open("rb") as reading:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with part.open("xb") as file:
                    shutil.copyfileobj(reading, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, path)
                _remove_abandoned(path)
            except OSError as error:
                raise self._explain(error) from None
            finally:
                part.unlink(missing_ok=True)

    def _remove_empty(self, folder: Path) -> None:
        """Remove empty folders up to the place itself, which stays."""
        with contextlib.suppress(OSError):  # it is not empty, or not there
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def _check_there(self) -> None:
        """A folder that is not there is no empty one: its disk may be missing.

        Raises:
            StoreError: it is not there, or can't be looked at.
        """
        try:
            os.scandir(self.root).close()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{self.address}: there is no such folder. Is the disk mounted? To make it: mkdir -p {self.root}",
                permanent=True,
            ) from None
        except OSError as error:
            raise self._explain(error) from None

    def _explain(self, error: OSError) -> StoreError:
        """What an error of the file system means for who mirrors a run."""
        if error.errno in FULL:
            return StoreError(f"{self.address}: no space or quota is left; make room there", permanent=True)
        if error.errno in FORBIDDEN:
            return StoreError(f"{self.address}: {error.strerror}: {error.filename} (look whose it is)", permanent=True)
        return StoreError(f"{self.address}: {error.strerror or error}")


def _parts(path: Path) -> list[Path]:
    """What uploads of a file have left beside it."""
    try:
        return [entry for entry in path.parent.iterdir() if is_part(entry.name, of=path.name)]
    except FileNotFoundError:
        return []


def _remove_abandoned(path: Path) -> None:
    """Remove parts beside a file that were left long before it was written: of it, or of one that never came."""
    written = path.stat().st_mtime
    for part in path.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # somebody else has finished or removed it
            if is_part(part.name) and part.stat().st_mtime < written - ABANDONED:
                part.unlink()


def _raise_unless_gone(error: OSError) -> None:
    """os.walk leaves out what it can't read, unless it is told; a folder that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
