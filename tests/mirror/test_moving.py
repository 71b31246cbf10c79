"""`fit` with a mirror: stopped on one machine, continued on another, with nothing in common but the mirror."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from same import unequal

ALL_STEPS = 12
MORE = "more about it: mirror.md#how-a-run-begins in the documentation"


def weights(folder: Path) -> dict:
    import torch

    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what is measured of the machine."""
    measured = ("seconds", "time/", "memory/", "usage/")
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: row[key] for key in row if not key.startswith(measured)} for row in csv.DictReader(file)]


def same_run(one: Path, other: Path) -> None:
    """Both have the same weights, optimizer and counters to the bit, and the same rows."""
    first, second = weights(one), weights(other)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "epoch"):
        assert not list(unequal(first[key], second[key], key))
    assert rows(one) == rows(other)


def test_a_run_moves_between_two_machines_and_is_the_same_to_the_bit(fit_on, mirror, capsys):
    code, undisturbed = fit_on("undisturbed", "--mirror.url=null")
    assert code == 0
    assert fit_on("a", stop_at=3)[0] == 75
    code, b = fit_on("b", stop_at=6)
    told = "".join(capsys.readouterr())
    assert code == 75 and "the mirror is ahead, at step 3" in told and "attempt 2: resuming from" in told
    assert fit_on("a", stop_at=9, reason="time limit")[0] == 76
    code, b = fit_on("b")
    assert (code, b.status["state"], b.status["step"], b.status["attempt"]) == (0, "done", ALL_STEPS, 4)
    same_run(undisturbed.folder, b.folder)
    assert b.status["mirror"]["step"] == ALL_STEPS and b.status["mirror"]["problem"] is None

    # Done there is done here: nothing is trained again.
    capsys.readouterr()
    code, a = fit_on("a")
    assert code == 0 and a.status["state"] == "done" and a.status["attempt"] == 4
    assert "This run is done already" in "".join(capsys.readouterr())
    same_run(undisturbed.folder, a.folder)


def test_what_is_newer_here_wins_and_goes_up(fit_on, mirror, capsys):
    fit_on("a", stop_at=3)
    fit_on("a", "--mirror.url=null", stop_at=7)
    capsys.readouterr()
    assert fit_on("a", stop_at=8)[0] == 75
    told = "".join(capsys.readouterr())
    assert "the mirror is ahead" not in told and "(step 7" in told
    (pointer,) = mirror.glob("*/latest.json")
    assert json.loads(pointer.read_text())["step"] == 8


def test_a_damaged_checkpoint_here_is_replaced_from_the_mirror(fit_on, mirror, capsys):
    _, a = fit_on("a", stop_at=5)
    for file in a.folder.glob("checkpoints/*.ckpt"):
        file.write_bytes(file.read_bytes()[:5000])
    capsys.readouterr()
    assert fit_on("a")[0] == 0
    assert "(step 5" in "".join(capsys.readouterr())


def test_a_damaged_copy_is_the_previous_one(fit_on, mirror, capsys):
    fit_on("a", stop_at=3)
    fit_on("a", stop_at=5)  # what is saved in between may not go up: the newest does
    (pointer,) = mirror.glob("*/latest.json")
    newest, older = json.loads(pointer.read_text())["checkpoints"]
    for file in mirror.glob(f"*/checkpoints/step-{newest['step']:08d}-*"):
        file.write_bytes(b"half")
    capsys.readouterr()
    assert fit_on("b")[0] == 0
    told = "".join(capsys.readouterr())
    assert "is damaged: 4 of" in told and "an earlier one is used" in told and f"(step {older['step']}," in told


def test_could_not_look_is_not_the_same_as_none(fit_on, mirror, capsys):
    _, a = fit_on("a", stop_at=5)
    mirror.rename(mirror.with_name("unmounted"))
    before = a.status
    for resume in ("auto", "must", "never", "best"):
        capsys.readouterr()
        assert fit_on("a", f"--resume={resume}")[0] == 2
        told = capsys.readouterr().err
        error, *more = told.splitlines()
        assert "could not look into the mirror" in error and "Is the disk mounted?" in error and more == [MORE]
    assert a.status == before
    assert fit_on("b")[0] == 2 and not list(mirror.parent.glob("b/*"))
    assert fit_on("a", "--mirror.url=null")[0] == 0

    # It is back: what is missing goes up, although the run is done.
    mirror.with_name("unmounted").rename(mirror)
    assert fit_on("a")[0] == 0
    (pointer,) = mirror.glob("*/latest.json")
    assert json.loads(pointer.read_text())["step"] == ALL_STEPS


def test_files_without_a_pointer_are_no_fresh_start(fit_on, mirror, capsys):
    fit_on("a", stop_at=5)
    (pointer,) = mirror.glob("*/latest.json")
    pointer.unlink()
    capsys.readouterr()
    assert fit_on("b")[0] == 2
    assert "has checkpoints of this run and no latest.json" in capsys.readouterr().err


def test_never_and_must(fit_on, mirror, capsys):
    assert fit_on("a", "--resume=must")[0] == 2
    fit_on("a", stop_at=5)
    code, b = fit_on("b", "--resume=never", stop_at=3)
    assert code == 75 and b.status["attempt"] == 1 and b.status["step"] == 3
    assert fit_on("c", "--resume=must")[0] == 0
    assert "(step 3" in "".join(capsys.readouterr())


def test_a_mirror_that_fails_does_not_end_the_run(fit_on, mirror, monkeypatch, capsys, project):
    from lightning_hpc.entrance import train as main
    from lightning_hpc.mirror import sender
    from lightning_hpc.remote import StoreError
    from lightning_hpc.remote.folder import Folder

    def refuse(self, files):
        raise StoreError("the mirror has caught fire; put it out")

    monkeypatch.setattr(sender, "TRYING", 0.1)
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", refuse)
        code, a = fit_on("a")
    told = "".join(capsys.readouterr())
    assert code == 0 and a.status["state"] == "done"
    assert told.count("warning: mirror: the mirror has caught fire; put it out; the run continues") <= 1
    assert told.count("the run continues, and this is tried again") == 1
    assert f"step 0 is there, and step {ALL_STEPS} here: the mirror has caught fire; put it out. To finish it: " in told
    assert a.status["mirror"]["problem"] == "the mirror has caught fire; put it out"
    assert not list(mirror.iterdir())

    # The command that it has named finishes it.
    assert main(["push", str(a.folder), "--dry-run"], project) == 0
    assert "nothing was sent" in capsys.readouterr().out and not list(mirror.iterdir())
    assert main(["push", str(a.folder)], project) == 0
    assert f"has step {ALL_STEPS}" in capsys.readouterr().out
    code, b = fit_on("b")
    assert code == 0 and b.status["state"] == "done"


def test_another_machine_that_takes_over_ends_the_run(fit_on, mirror, monkeypatch, capsys):
    from lightning_hpc.mirror.sender import Sender
    from lightning_hpc.training.callbacks import FolderIsThere

    taken = []

    def look(self):
        if self.folder.status().get("step") and not taken:
            (pointer,) = mirror.glob("*/latest.json")
            while not (content := json.loads(pointer.read_text()))["step"]:
                time.sleep(0.02)
            time.sleep(0.3)  # this upload has ended, and the next sign of life is not due yet
            content["owner"] = dict(content["owner"], token="another", host="faster")
            pointer.write_text(json.dumps(content))
            taken.append(content)
            (thread,) = [thread for thread in sender if thread.is_alive()]
            thread.join(20)
        self.check()

    sender = []
    offer = Sender.start
    monkeypatch.setattr(Sender, "start", lambda self: (sender.append(self), offer(self)))
    monkeypatch.setattr(FolderIsThere, "look", look)
    code, a = fit_on("a", "--mirror.every_n_minutes=0.03")
    assert code == 1 and a.status["state"] == "failed"
    assert "on faster (attempt 1) has taken over this run, so it ends here" in a.status["reason"]
    (pointer,) = mirror.glob("*/latest.json")
    assert json.loads(pointer.read_text()) == taken[0]


def test_pull_by_identity_and_by_folder(fit_on, mirror, tmp_path, project, capsys):
    from lightning_hpc.entrance import train as main

    _, a = fit_on("a", stop_at=5)
    identity, url = a.status["identity"], f"--mirror.url=file://{mirror}"
    config = tmp_path / "there.yaml"
    config.write_text(f"runs_dir: {tmp_path}/c\nmirror:\n  url: file://{mirror}\n")
    assert main(["pull", identity[:8], "--config", str(config), "--dry-run"], project) == 0
    assert "nothing was fetched" in capsys.readouterr().out and not (tmp_path / "c").exists()
    assert main(["pull", "--all", "--small", "--config", str(config)], project) == 0
    (folder,) = (tmp_path / "c").glob("*/*")
    assert (folder / "metrics.csv").exists() and not list(folder.glob("checkpoints/*.ckpt"))
    assert json.loads((folder / "status.json").read_text())["fetched"]["ended"] is True
    assert main(["pull", str(folder), "--config", str(config)], project) == 0
    assert (folder / "checkpoints" / "best.ckpt").exists()
    same_run(a.folder, folder)
    for wrong, told in (
        (["pull", "ffffffff", url], "has 0 runs whose identity begins with ffffffff"),
        (["pull", "wide", url], "neither a run's folder nor an identity"),
        (["pull", identity], "no mirror is named"),
        (["pull", "--all", identity, url], "name none"),
        (["push", str(tmp_path), url], "is not a run's folder"),
        (["pull", "0" * 16, "--mirror.url=file:///nowhere/at/all"], "could not look"),
    ):
        capsys.readouterr()
        assert main(wrong, project) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_are_killed_and_continued_elsewhere(project, tmp_path, mirror):
    """The real program, killed by SIGKILL at different moments, and started in another folder each time."""
    command = [sys.executable, project / "Train.py", "fit", "--trainer.max_epochs=10", "--trainer.accelerator=cpu"]
    command += ["--checkpoints.every_n_steps=10", "--cka=null", "--trainer.limit_train_batches=10"]
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    subprocess.run([*command, f"--runs_dir={tmp_path}/undisturbed"], env=environment, check=True, timeout=600)
    command += [f"--mirror.url=file://{mirror}", "--mirror.every_n_minutes=0.001"]

    def step() -> int:
        try:
            return json.loads(next(mirror.glob("*/latest.json")).read_text())["step"]
        except (StopIteration, ValueError):
            return 0

    reached = []
    for number, machine in enumerate(("a", "b", "a", "c")):
        before = step()
        process = subprocess.Popen([*command, f"--runs_dir={tmp_path}/{machine}"], env=environment)
        while number < 3 and process.poll() is None and step() <= before:
            time.sleep(0.01 + 0.02 * number)
        if number < 3:
            process.kill()
        reached.append((process.wait(timeout=600), step()))
    assert [code for code, _ in reached] == [-signal.SIGKILL] * 3 + [0]
    assert [moved for _, moved in reached] == sorted({moved for _, moved in reached})
    (whole,), (moved,) = (tmp_path / "undisturbed").glob("*/*-*"), (tmp_path / "c").glob("*/*-*")
    same_run(whole, moved)
