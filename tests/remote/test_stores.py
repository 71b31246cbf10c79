"""What each place for files does, whichever it is: one list of expectations for all drivers."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from places import Place

from lightning_hpc.remote import Missing, StoreError

LARGE = 3_000_000


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """A function that makes a local file."""

    def make(name: str, content: bytes) -> Path:
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def read(place: Place, name: str, tmp_path: Path) -> bytes:
    """A file's content there."""
    target = tmp_path / "fetched"
    place.open().get(name, target)
    return target.read_bytes()


def test_what_is_put_can_be_listed_fetched_and_deleted(place, made, tmp_path):
    store = place.open()
    large = random.Random(1).randbytes(LARGE)
    files = {
        "run/checkpoints/step-1.ckpt": large,
        "run/config.yaml": b"a: 1\n",
        "run/empty": b"",
        "other/x y": b"x",
    }

    store.put({name: made(name, content) for name, content in files.items()})

    assert store.list("") == {name: len(content) for name, content in files.items()}
    assert store.list("run") == {name: len(c) for name, c in files.items() if name.startswith("run/")}
    assert store.list("run/checkpoints") == {"run/checkpoints/step-1.ckpt": LARGE}
    for name, content in files.items():
        assert read(place, name, tmp_path) == content

    store.delete(["run/config.yaml", "run/checkpoints/step-1.ckpt"])
    assert set(place.open().list("")) == {"run/empty", "other/x y"}


def test_what_is_put_again_is_replaced(place, made, tmp_path):
    store = place.open()
    for content in (b"first, and longer", b"second"):
        store.put({"run/latest.json": made("latest.json", content)})
        assert read(place, "run/latest.json", tmp_path) == content
        assert store.list("run") == {"run/latest.json": len(content)}


def test_what_is_not_there_is_missing_and_nothing_else(place, made, tmp_path):
    store = place.open()
    store.put({"run/config.yaml": made("config.yaml", b"a: 1\n")})

    for name in ("run/latest.json", "nowhere/at/all", "run"):
        with pytest.raises(Missing, match=name):
            store.get(name, tmp_path / "target")
    assert not (tmp_path / "target").exists() and not list(tmp_path.glob(".*"))
    assert store.list("ru") == store.list("nowhere") == store.list("run/config") == {}
    store.delete(["run/latest.json", "nowhere/at/all"])
    store.delete([])
    store.put({})
    assert store.list("") == {"run/config.yaml": 5}


def test_an_empty_place_holds_nothing(place, tmp_path):
    assert place.open().list("") == place.open().list("run") == {}
    with pytest.raises(Missing):
        place.open().get("run/latest.json", tmp_path / "target")
    place.open().delete(["run/latest.json"])


def test_a_target_that_is_there_is_replaced_only_by_a_whole_file(place, made, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(Missing):
        place.open().get("run/new", target)
    assert target.read_bytes() == b"old"

    place.open().put({"run/new": made("new", b"new")})
    place.open().get("run/new", target)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "run/../../outside", "", "a\\b"])
def test_no_name_leads_out_of_the_place(place, made, tmp_path, name):
    for act in (
        lambda: place.open().put({name: made("x", b"x")}),
        lambda: place.open().get(name, tmp_path / "target"),
        lambda: place.open().delete([name]),
    ):
        with pytest.raises(StoreError, match="no name of a file"):
            act()


def test_two_who_put_the_same_files_at_once_leave_whole_ones(place, made, tmp_path):
    contents = [bytes([number]) * LARGE for number in range(4)]
    errors, done = [], []

    def put(number: int) -> None:
        files = {"run/step.ckpt": made(f"{number}", contents[number]), f"run/{number}": made(f"small-{number}", b"")}
        for last_try in (False, False, True):
            try:
                place.open().put(files)
                return done.append(number)
            except StoreError as error:  # moto answers 500 at times when a file is replaced while it reads it
                if error.permanent or last_try:
                    errors.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors and len(done) == 4
    assert read(place, "run/step.ckpt", tmp_path) in contents
    assert set(place.open().list("run")) == {"run/step.ckpt", *(f"run/{number}" for number in range(4))}


def test_a_file_here_that_can_not_be_read_is_no_fault_of_the_place(place, tmp_path):
    with pytest.raises(FileNotFoundError):
        place.open().put({"run/x": tmp_path / "not-there"})
    assert place.open().list("run") == {}
