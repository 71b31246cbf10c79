"""Places where files can be put: real servers on the loopback interface, each started once."""

from pathlib import Path

import pytest
from places import FolderPlace, MemoryPlace, Place


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of place in turn, empty."""
    kinds = {"folder": FolderPlace, "memory": MemoryPlace}
    return kinds[request.param](tmp_path)
