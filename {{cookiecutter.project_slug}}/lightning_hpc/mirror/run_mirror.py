"""A run's folder in the mirror: what is there, and the pointer that says what counts."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..remote import Missing, Store, StoreError, open_store
from .fence import Taken
from .pointer import POINTER, Piece, Pointer, read_pointer
from .settings import Mirror


class RunMirror:
    """The files of one run in a mirror, by their names in the run's folder there.

    Args:
        store: the mirror.
        identity: the run's identity, which is its folder's name.
    """

    def __init__(self, store: Store, identity: str) -> None:
        self.store, self.identity = store, identity
        self.address = f"{store.address.rstrip('/')}/{identity}"

    def read(self) -> Pointer | None:
        """The pointer; None if there really is none.

        Raises:
            StoreError: nobody knows.
            MirrorError: it can't be understood.
        """
        with tempfile.TemporaryDirectory(prefix="mirror-") as folder:
            file = Path(folder) / POINTER
            try:
                self.store.get(f"{self.identity}/{POINTER}", file)
            except Missing:
                return None
            return read_pointer(file, f"{self.address}/{POINTER}")

    def write(self, pointer: Pointer) -> None:
        """Replace the pointer, and read it back.

        Raises:
            StoreError: it is not there as it was written.
            Taken: another machine has written its own at the same time.
        """
        with tempfile.TemporaryDirectory(prefix="mirror-") as folder:
            file = Path(folder) / POINTER
            file.write_text(pointer.text(), encoding="utf-8")
            self.store.put({f"{self.identity}/{POINTER}": file})

        there = self.read()
        if there is not None and there.owner["token"] != pointer.owner["token"]:
            raise Taken(there)
        if there != pointer:
            raise StoreError(f"{self.address}/{POINTER} is not what has been written there; it is tried again")

    def sizes(self) -> dict[str, int]:
        """Name → size in bytes of all files that are there."""
        start = f"{self.identity}/"
        return {name.removeprefix(start): size for name, size in self.store.list(self.identity).items()}

    def put(self, files: Mapping[str, Path]) -> None:
        """Put files there: name there → file here."""
        self.store.put({f"{self.identity}/{name}": file for name, file in files.items()})

    def get(self, piece: Piece, target: Path) -> None:
        """Fetch a file, which is not checked yet."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store.get(f"{self.identity}/{piece.name}", target)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files."""
        self.store.delete([f"{self.identity}/{name}" for name in names])


def open_run(settings: Mirror, identity: str) -> RunMirror:
    """A run's folder in the mirror that the settings name.

    Raises:
        SettingsError: there is no such kind of mirror, or a package for it is missing.
        StoreError: the mirror refuses.
    """
    assert settings.url is not None
    return RunMirror(open_store(settings.url, public=settings.public), identity)
