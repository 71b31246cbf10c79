"""On a full disk, checkpoints matter and nothing else does: how runs end whose disk fills while they train."""

import errno
from pathlib import Path

import pytest
from small_disk import no_file_larger_than

from lightning_hpc.runs import folder as module
from lightning_hpc.runs.folder import RESERVE, RunFolder

# From a step on, no file can become larger than a status.json; later on, somebody may ask the run to stop.
FULL = """
import os, resource, signal
from lightning.pytorch import Callback

class Full(Callback):
    def __init__(self, step: int, stop: bool = False):
        self.step, self.stop = step, stop

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.step and os.path.exists("disk-gets-full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def on_validation_end(self, trainer, pl_module):
        if self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def fit_on_a_full_disk(train, tmp_path: Path, *arguments: str):
    (tmp_path / "full.py").write_text(FULL)
    (tmp_path / "disk-gets-full").touch()
    with no_file_larger_than(2**30):  # for now; it puts back what was before
        return train(
            "fit", "--cka=lightning_hpc.cka.CKACallback", "--trainer.max_epochs=2", "--checkpoints.every_n_steps=1",
            "--trainer.callbacks=full.Full", *arguments,
        )  # fmt: skip


def test_a_signal_on_a_full_disk_is_still_a_signal(train, tmp_path, capsys):
    """The picture of CKA, rows and log lines fail too, and so does the save."""
    run = fit_on_a_full_disk(train, tmp_path, "--trainer.callbacks.step=2", "--trainer.callbacks.stop=true")
    assert run.code == 75, capsys.readouterr().err
    assert (run.status["state"], run.status["exit_code"], run.status["step"]) == ("preempted", 75, 1)
    assert not list(run.folder.glob("cka/*.png"))
    assert not (run.folder / ".reserve").exists()


def test_the_last_checkpoint_is_part_of_being_done(train, tmp_path, capsys):
    run = fit_on_a_full_disk(train, tmp_path, "--trainer.callbacks.step=3")
    assert run.code == 1, capsys.readouterr().err
    assert run.status["state"] == "failed"
    assert "checkpoint of step 4 could not be written: File too large" in run.status["reason"]

    (tmp_path / "disk-gets-full").unlink()
    again = train("fit", "--run", str(run.folder))
    assert (again.code, again.status["state"], again.status["step"]) == (0, "done", 4)


def test_a_status_is_written_to_a_disk_that_is_really_full(small_disk):
    folder = RunFolder(small_disk / "run")
    folder.start()
    with pytest.raises(OSError, match="No space left"), (small_disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    folder.update(step=7)
    assert (folder.end("time limit"), folder.status()["state"], folder.status()["step"]) == (76, "time limit", 7)


def test_the_reserve_makes_room_once_and_comes_back(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.update(state="planned")
    assert not folder.reserve.exists()  # it is for a run that runs
    folder.start()
    assert folder.reserve.stat().st_size == RESERVE

    write = module.write_json

    def write_if_there_is_room(path, content, **options):
        if folder.reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, **options)

    monkeypatch.setattr(module, "write_json", write_if_there_is_room)
    folder.update(step=7)
    assert folder.status()["step"] == 7 and folder.reserve.exists()
    assert folder.end("done") == 0
    assert folder.status()["state"] == "done" and not folder.reserve.exists()


def test_a_state_that_can_not_be_written_is_in_the_exit_code(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.start()
    with no_file_larger_than(10):
        code = folder.end("preempted")
    assert code == 75 and folder.status()["state"] == "running"
    assert "the state preempted could not be written" in capsys.readouterr().err
