"""Places for files as the tests of drivers need them: a URL, and a way to break what is behind it."""

from pathlib import Path

from lightning_hpc.remote import Store, open_store


class Place:
    """A place, and what can go wrong there.

    A child says what it can break; a test of a fault that it can't have is not made for it.

    Attributes:
        url: what a user would write in `mirror.url`.
        secrets: words that no message may hold.
        faults: names of what `break_with` knows.
    """

    url: str
    secrets: tuple[str, ...] = ()
    faults: frozenset[str] = frozenset()

    def open(self) -> Store:
        """The store that the driver makes of the URL."""
        return open_store(self.url)

    def break_with(self, fault: str, **how: object) -> None:
        """Break it until `mend`."""
        raise NotImplementedError

    def mend(self) -> None:
        """Whole again."""


class FolderPlace(Place):
    """A folder of this file system."""

    faults = frozenset({"unreachable", "quota", "forbidden"})

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mirror"
        self.folder.mkdir()
        self.url = f"file://{self.folder}"


class MemoryPlace(Place):
    """This process's memory."""

    def __init__(self, folder: Path) -> None:
        self.url = f"memory://{folder}"
