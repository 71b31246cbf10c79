"""Places where files can be put: real servers on the loopback interface, each started once."""

import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from artifacts_stand_in import ArtifactsStandIn
from faulty import FaultyProxy
from google_stand_in import GoogleStandIn
from hub_stand_in import HubStandIn
from places import KINDS, FolderPlace, GooglePlace, HubPlace, MemoryPlace, Place, S3Place, SftpPlace, WandbPlace


@pytest.fixture(scope="session")
def s3() -> Iterator[FaultyProxy]:
    """moto's server, in this process, behind a proxy."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the terminal belongs to the tests
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with FaultyProxy(f"http://{host}:{port}") as proxy:
        yield proxy
    server.stop()


@pytest.fixture(scope="session")
def google() -> Iterator[GoogleStandIn]:
    """Google Cloud Storage."""
    with GoogleStandIn(GooglePlace.TOKEN) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def google_proxy(google: GoogleStandIn) -> Iterator[FaultyProxy]:
    """Google Cloud Storage behind a proxy."""
    with FaultyProxy(google.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def hub() -> Iterator[HubStandIn]:
    """The Hub."""
    with HubStandIn({HubPlace.TOKEN: "write", "hf_reader": "read", "hf_narrow": "fineGrained"}) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def hub_proxy(hub: HubStandIn) -> Iterator[FaultyProxy]:
    """The Hub behind a proxy."""
    with FaultyProxy(hub.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def wandb_server() -> Iterator[ArtifactsStandIn]:
    """W&B."""
    with ArtifactsStandIn() as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def wandb_proxy(wandb_server: ArtifactsStandIn) -> Iterator[FaultyProxy]:
    """W&B behind a proxy."""
    with FaultyProxy(wandb_server.url) as proxy:
        wandb_server.address = proxy.url
        yield proxy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to put somewhere."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def told_the_client(place: HubPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads its environment when it is imported, and another test of this process can have done that."""
    from huggingface_hub import constants

    address = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place.proxy.url + address)
    monkeypatch.setattr(constants, "ENDPOINT", place.proxy.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


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
            case "google":
                bucket = f"bucket-{uuid.uuid4().hex}"
                request.getfixturevalue("google").buckets[bucket] = {}
                place = GooglePlace(request.getfixturevalue("google_proxy"), bucket, tmp_path)
            case "hub":
                place = HubPlace(request.getfixturevalue("hub_proxy"), f"project-{uuid.uuid4().hex}")
                told_the_client(place, monkeypatch)
            case "sftp":
                place = SftpPlace(request.getfixturevalue("sshd"), tmp_path)
            case "wandb":
                place = WandbPlace(request.getfixturevalue("wandb_proxy"), f"project-{uuid.uuid4().hex}")
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
