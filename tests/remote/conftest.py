"""Places where files can be put: real servers on the loopback interface, each started once."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import FaultyProxy
from places import FolderPlace, MemoryPlace, Place, S3Place, SftpPlace

KINDS = ["folder", "memory", "s3", "sftp"]


@pytest.fixture(scope="session")
def s3() -> Iterator[FaultyProxy]:
    """moto's server, in this process, behind a proxy."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with FaultyProxy(f"http://{host}:{port}") as proxy:
        yield proxy
    server.stop()


@pytest.fixture
def make_place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Place]]:
    """A function that makes an empty place of a kind, and tells this process's environment of it."""
    made: list[Place] = []

    def make(kind: str) -> Place:
        match kind:
            case "folder":
                place = FolderPlace(tmp_path)
            case "memory":
                place = MemoryPlace(tmp_path)
            case "s3":
                place = S3Place(request.getfixturevalue("s3"), f"bucket-{uuid.uuid4().hex}")
            case "sftp":
                place = SftpPlace(request.getfixturevalue("sshd"), tmp_path)
        for name, value in place.variables.items():
            monkeypatch.setenv(name, value)
        made.append(place)
        return place

    yield make
    for place in made:
        place.mend()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, make_place) -> Place:
    """Each kind of place in turn."""
    return make_place(request.param)
