"""What servers do wrong while a run trains: the run goes on, says so once, and `push` finishes the rest."""

import re
import threading

import places
import pytest

from lightning_hpc.files import read_json
from lightning_hpc.survive.checkpoints import Checkpoints

TRAINING = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--checkpoints.every_n_steps=2")
FIRST, STEPS = 2, 8

# By the first of its kind; the others are for `make slow`.
FAULTS = [
    pytest.param("s3", places.BROKEN),
    pytest.param("hub", places.BUSY_FOR_7_S),
    pytest.param("sftp", places.UNREACHABLE),
    *(
        pytest.param("s3", fault, marks=pytest.mark.slow)
        for fault in (
            places.UNREACHABLE,
            places.WRONG_KEY,
            places.FORBIDDEN,
            places.QUOTA,
            places.BUSY,
            places.BUSY_FOR_7_S,
            places.STRAY_404,
            places.TRUNCATED,
        )
    ),
    *(
        pytest.param("hub", fault, marks=pytest.mark.slow)
        for fault in (places.BROKEN, places.WRONG_KEY, places.FORBIDDEN, places.QUOTA, places.STRAY_404)
    ),
    pytest.param("sftp", places.WRONG_KEY, marks=pytest.mark.slow),
    pytest.param("sftp", places.BROKEN, marks=pytest.mark.slow),
]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long: not the mirror between two tries, nor the Hub between two commits."""
    from lightning_hpc.mirror import sender
    from lightning_hpc.remote.hub import Hub

    monkeypatch.setattr(sender, "TRYING", 2.0)
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(Hub, "seconds_between_puts", 0.0)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def broken_at_the_second_checkpoint(place, fault, monkeypatch):
    """Break the place when a checkpoint is put that is not the first; no other is saved before the first is there."""
    store = type(place.open())
    put, save = store.put, Checkpoints.save
    seen, first_is_there = [], threading.Event()

    def breaking(self, files):
        if any("step-" in name for name in files):
            seen.append(files)
        if len(seen) == 2 and not place.is_broken:
            place.is_broken = place.break_with(fault)
        put(self, files)
        if seen and any(name.endswith("/latest.json") for name in files):
            first_is_there.set()

    def patient(self, trainer, *arguments, **keywords):
        if trainer.global_step > FIRST:
            assert first_is_there.wait(60)
        save(self, trainer, *arguments, **keywords)

    place.is_broken = False
    monkeypatch.setattr(store, "put", breaking)
    monkeypatch.setattr(Checkpoints, "save", patient)


def pointed_at(place, tmp_path) -> int:
    """The step that the mirror's pointer names."""
    store = place.open()
    (name,) = (name for name in store.list("") if name.endswith("/latest.json"))
    store.get(name, tmp_path / "pointer")
    return read_json(tmp_path / "pointer")["step"]


@pytest.mark.parametrize("kind, fault", FAULTS)
def test_a_server_that_breaks_down_does_not_end_the_run(
    kind, fault, make_place, train, project, tmp_path, monkeypatch, capsys, hurried
):
    from lightning_hpc.entrance import train as main

    place = make_place(kind)
    with monkeypatch.context() as patch:
        broken_at_the_second_checkpoint(place, fault, patch)
        run = train("fit", *TRAINING, f"--mirror.url={place.url}", "--mirror.every_n_minutes=0.0001")
    told = "".join(capsys.readouterr())
    assert place.is_broken and run.code == 0 and run.status["state"] == "done" and run.status["step"] == STEPS
    assert not [secret for secret in place.secrets if secret in told + str(run.status)]
    assert told.count("the run continues") == 1
    command = re.search(r"To finish it: .*Train.py push", told)
    assert command and run.status["mirror"]["problem"]

    place.mend()
    assert pointed_at(place, tmp_path) in range(1, STEPS)
    assert main(["push", str(run.folder)], project) == 0
    assert pointed_at(place, tmp_path) == STEPS


@pytest.mark.parametrize(
    "kind, fault",
    [("s3", places.BROKEN), ("s3", places.STRAY_404), ("hub", places.WRONG_KEY), ("sftp", places.WRONG_KEY)],
)
def test_a_server_that_is_broken_at_the_start_is_no_fresh_start(
    kind, fault, make_place, train, tmp_path, capsys, hurried
):
    place = make_place(kind)
    place.break_with(fault)
    assert train("fit", *TRAINING, f"--mirror.url={place.url}").code == 2
    told = capsys.readouterr().err
    assert "could not look into the mirror" in told and told.count("error: ") == 1
    assert not [secret for secret in place.secrets if secret in told]
    assert not list(tmp_path.glob("runs/*/*"))
