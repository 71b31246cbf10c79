"""What another machine does to a run while this one has it in hand: between two looks at the mirror."""

import pytest
from fake_run import IDENTITY, make_run, send, upload_of

from lightning_hpc.mirror.fence import Taken
from lightning_hpc.mirror.run_mirror import RunMirror
from lightning_hpc.remote import open_store


@pytest.fixture
def address(tmp_path):
    (tmp_path / "mirror").mkdir()
    return f"file://{tmp_path}/mirror"


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "here" / "000-base-01234567")


@pytest.fixture
def elsewhere(tmp_path):
    return make_run(tmp_path / "elsewhere" / "000-base-01234567")


def there(address: str) -> RunMirror:
    return RunMirror(open_store(address), IDENTITY)


def test_a_machine_that_takes_over_during_an_upload_keeps_what_it_has_done(folder, elsewhere, address, monkeypatch):
    first, put = upload_of(folder, address), RunMirror.put
    send(first, 10)

    def taken_over_meanwhile(mirror, files):
        if mirror is first.mirror:  # the network hangs, so this takes hours
            elsewhere.update(state="done")
            send(upload_of(elsewhere, address), 100, released=True)
        put(mirror, files)

    monkeypatch.setattr(RunMirror, "put", taken_over_meanwhile)
    with pytest.raises(Taken):
        send(first, 20)
    pointer = there(address).read()
    assert (pointer.state, pointer.step, pointer.released) == ("done", 100, True)
