"""`Train.py reproduce`: what a run keeps for it, and its three answers, from real trainings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lightning_hpc.provenance.environment import read_environments
from lightning_hpc.provenance.fingerprints import FILE, read_fingerprints

LONGER = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=4", "--checkpoints.every_n_steps=2")

# A library that a run uses: its data, which are in a file beside it, and a model with a constant of its version.
LIBRARY = """
import pathlib

import numpy as np
import torch
from torch.utils.data import TensorDataset

from my_research_project.data import Digits
from my_research_project.model import Classifier


class Samples(Digits):
    def load(self):
        kept = np.load(pathlib.Path(__file__).with_name("samples.npz"))
        return {{"train": TensorDataset(torch.from_numpy(kept["images"]), torch.from_numpy(kept["targets"]))}}


class Scaled(Classifier):
    def forward(self, inputs):
        return {scale} * super().forward(inputs)
"""


@pytest.fixture
def reproduce(project, capfd):
    """Runs `Train.py reproduce …`, whose training is a process of its own; returns exit code and what was printed."""
    from lightning_hpc import signals
    from lightning_hpc.entrance import train as main

    def run(*arguments):
        signals.reset()
        capfd.readouterr()
        code = main(["reproduce", *map(str, arguments)], root=project)
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def library(tmp_path):
    """Installs the library in some version into a folder, as `pip install --target` does; returns the folder."""
    from my_research_project.data import Digits

    images, targets = Digits().load()["train"].tensors

    def install(version, scale=1.0):
        folder = tmp_path / f"scaled-library-{version}"
        (folder / f"scaled_library-{version}.dist-info").mkdir(parents=True)
        (folder / "scaled_library.py").write_text(LIBRARY.format(scale=scale))
        np.savez(folder / "samples.npz", images=images.numpy(), targets=targets.numpy())
        return folder

    return install


@pytest.fixture
def in_library(train, monkeypatch):
    """Trains with the library in some folder, and gives that folder to later processes."""

    def run(folder, *arguments):
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "scaled_library", raising=False)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return train("fit", "--data=scaled_library.Samples", "--model=scaled_library.Scaled", *arguments)

    return run


def test_a_run_keeps_what_it_was_made_with(train):
    import torch

    run = train("fit", "--trainer.max_epochs=2", "--trial=3")
    (record,) = read_environments(run.folder)
    assert record["packages"]["torch"] == torch.__version__.partition("+")[0] or record["packages"]["torch"]
    assert (record["device"], record["threads"], record["ranks"]) == ("cpu", torch.get_num_threads(), 1)
    assert record["settings"]["seed_everything"] == 3 and "trainer.logger" not in record["settings"]

    prints = read_fingerprints(run.folder)
    assert [(one.epoch, one.step) for one in prints] == [(0, 0), (1, 2), (2, 4)]
    assert [len(one.batches) for one in prints] == [0, 2, 0]
    weights = run.checkpoint()["state_dict"]
    assert set(prints[0].tensors) == set(weights) and len({one.weights for one in prints}) == 3


def test_fingerprints_change_no_result_and_no_identity(train, monkeypatch):
    from lightning.pytorch import Callback
    from same import unequal

    from lightning_hpc.training import trainer

    run = train("fit", *LONGER)
    rows = [{key: cell for key, cell in row.items() if "/loss" in key or "/acc" in key} for row in run.rows]
    checkpoint, folder = run.checkpoint(), run.folder
    shutil.rmtree(folder)
    monkeypatch.setattr(trainer, "KeepProvenance", lambda settings: Callback())
    again = train("fit", *LONGER)
    assert again.folder == folder and not (folder / FILE).exists()
    assert [{key: row[key] for key in rows[0]} for row in again.rows] == rows
    assert not list(unequal(again.checkpoint(), checkpoint, ""))


@pytest.mark.parametrize("at", [1, 3, 5, 9])
def test_a_resumed_run_has_the_fingerprints_of_an_undisturbed_one(train, monkeypatch, at):
    from lightning_hpc import signals
    from lightning_hpc.survive.checkpoints import Checkpoints

    whole = train("fit", *LONGER, "--name=whole").folder
    start = Checkpoints.on_train_batch_start

    def at_some_batch(self, trainer, *batch):
        if trainer.fit_loop.total_batch_idx == at:
            patch.setattr(signals, "received", lambda: "preempted")
        start(self, trainer, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_start", at_some_batch)
        assert train("fit", *LONGER, "--name=stopped").code == 75
    resumed = train("fit", *LONGER, "--name=stopped")
    assert resumed.code == 0 and resumed.status["attempt"] == 2
    assert (resumed.folder / FILE).read_text() == (whole / FILE).read_text()
    assert len(read_environments(resumed.folder)) == 1


def test_a_run_resumed_on_another_machine_has_two_environments(train, monkeypatch):
    from lightning_hpc.provenance import callback

    run = train("fit", *LONGER, "--canary=true")
    assert run.code == 130
    monkeypatch.setattr(callback, "of_machine", lambda: dict(cpu="another one"))
    run = train("fit", *LONGER)
    first, second = read_environments(run.folder)
    assert second["cpu"] == "another one" != first["cpu"]
    assert (first["from_step"], second["from_step"]) == (0, 4)


def test_the_same_to_the_bit(train, project, reproduce):
    run = train("fit", "--trainer.max_epochs=2")
    before = {file: file.stat().st_mtime_ns for file in run.folder.rglob("*") if file.is_file()}
    code, said = reproduce(run.folder, "--dry-run")
    assert code == 0 and "fit --run" in said and "different here" not in said
    assert not (run.folder.parent.parent / ".reproduced").exists()

    # Its own code is used, not today's.
    with edited(project / "my_research_project" / "model.py", "raise RuntimeError('today')\n"):
        code, said = reproduce(run.folder)
    assert code == 0, said
    assert "\nthe same to the bit\n" in said and "model.py has changed since" in said
    assert {file: file.stat().st_mtime_ns for file in run.folder.rglob("*") if file.is_file()} == before


class edited:
    """A file with a line more, inside `with`."""

    def __init__(self, file, line):
        self.file, self.line, self.before = file, line, file.read_text()

    def __enter__(self):
        self.file.write_text(self.before + self.line)

    def __exit__(self, *_):
        self.file.write_text(self.before)


@pytest.mark.slow
def test_a_flipped_seed_is_named(train, reproduce):
    run = train("fit", "--trainer.max_epochs=2")
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    code, said = reproduce(run.folder)
    assert code == 1, said
    assert "first difference: the initial weights (step 0): network.block1.0.weight and 5 more tensors" in said
    assert "different here: setting seed_everything 0 then, 1 now" in said


@pytest.mark.slow
def test_one_changed_sample_is_named(library, in_library, reproduce):
    folder = library("1.0")
    run = in_library(folder, "--trainer.limit_train_batches=1.0")
    samples = dict(np.load(folder / "samples.npz"))
    one = np.load(run.folder / "splits.npz")["train"][500]
    samples["images"][one, 0, 3, 3] += 0.001
    np.savez(folder / "samples.npz", **samples)

    code, said = reproduce(run.folder)
    assert code == 1, said
    batch = re.search(r"first difference: batch (\d+) of epoch 1 \(step (\d+)\) has other data", said)
    assert batch and int(batch[1]) == int(batch[2]) + 1, said
    assert "the initial weights" not in said and "also: the weights after epoch 1 (step 17)" in said
    assert "nothing that is kept is different here" in said


@pytest.mark.slow
def test_one_changed_sample_of_the_validation_is_told_from_one_of_the_training(library, in_library, reproduce):
    folder = library("1.0")
    run = in_library(folder)
    samples = dict(np.load(folder / "samples.npz"))
    samples["images"][np.load(run.folder / "splits.npz")["val"][0]] += 0.5
    np.savez(folder / "samples.npz", **samples)

    code, said = reproduce(run.folder)
    assert code == 1, said
    assert "first difference: the metric val/loss at step 1" in said or "first difference: the metric val/acc" in said
    assert "the weights are the same all along" in said


@pytest.mark.slow
def test_samples_that_are_gone_leave_no_answer(library, in_library, reproduce):
    folder = library("1.0")
    run = in_library(folder)
    samples = dict(np.load(folder / "samples.npz"))
    np.savez(folder / "samples.npz", **{name: values[:-10] for name, values in samples.items()})
    code, said = reproduce(run.folder)
    assert code == 3, said
    assert "don't know: the training here has failed" in said and "the data have changed since this run began" in said


@pytest.mark.slow
def test_another_version_of_a_library_is_named(library, in_library, monkeypatch, reproduce):
    run = in_library(library("1.0"))
    monkeypatch.setenv("PYTHONPATH", str(library("2.0", scale=1.5)))
    code, said = reproduce(run.folder)
    assert code == 1, said
    assert "first difference: the metric" in said or "first difference: the weights after epoch 1" in said
    assert "different here: scaled-library 1.0 then, 2.0 now" in said


# Ten runs of different seeds, models and options; in each, something else could be forgotten.
TEN = {
    "another seed": ("--trial=7",),
    "seeds of weights and training": ("--seed_everything=3", "--init_seed=11"),
    "another network": ("--model.network=MLP", "--model.network.hidden=[32,16]"),
    "SGD with momentum": ("--model.optimizer=SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9"),
    "averaged weights": ("--config=experiments/ema.yaml",),
    "accumulation": ("--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=5"),
    "workers": ("--data.num_workers=2",),
    "a fold": ("--data.mode=cross-validation", "--data.folds=3", "--data.fold=1"),
    "double precision": ("--trainer.precision=64-true",),
    "CKA, steps and label smoothing": ("--trainer.max_steps=5", "--model.label_smoothing=0.1", "--cka=CKACallback"),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", TEN.values(), ids=TEN)
def test_ten_runs_are_reproduced(train, reproduce, options):
    run = train("fit", "--trainer.max_epochs=2", "--trainer.limit_train_batches=4", *options)
    assert run.code == 0
    code, said = reproduce(run.folder)
    assert code == 0 and "\nthe same to the bit\n" in said, said


@pytest.mark.slow
def test_a_run_that_was_killed_is_reproduced_and_so_is_a_reproduction(project, tmp_path, train, reproduce):
    """SIGKILL for the run; SIGTERM for what trains it again, which the same command continues."""
    environment = os.environ | {"PYTHONPATH": ""}
    options = ["--runs_dir=runs", "--trainer.max_epochs=40", "--trainer.limit_train_batches=6", "--cka=null"]
    command = [sys.executable, str(project / "Train.py"), "fit", *options, "--checkpoints.every_n_steps=5"]
    killed_at(signal.SIGKILL, command, tmp_path, environment, "runs/default/*")
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=600).returncode == 0
    (run,) = tmp_path.glob("runs/default/*")
    assert json.loads((run / "status.json").read_text())["attempt"] == 2
    assert [one.epoch for one in read_fingerprints(run)] == list(range(41))

    again = [sys.executable, str(project / "Train.py"), "reproduce", str(run)]
    assert killed_at(signal.SIGTERM, again, tmp_path, environment, "runs/.reproduced/*") == 75
    code, said = reproduce(run)
    assert code == 0, said
    assert "which goes on" in said and "\nthe same to the bit\n" in said
    (second,) = tmp_path.glob("runs/.reproduced/*/status.json")
    assert json.loads(second.read_text())["attempt"] == 2


def killed_at(number, command, folder, environment, pattern):
    """Start a command, send it a signal once its run has saved something, and return its exit code."""
    process = subprocess.Popen(command, cwd=folder, env=environment)
    for _ in range(1200):
        saved = list(folder.glob(f"{pattern}/checkpoints/meta.json"))
        if saved or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(number)
    return process.wait(120)


# Where nobody can say


def test_what_cannot_be_compared_is_said_in_one_line(train, reproduce):
    run = train("fit")
    status = run.folder / "status.json"
    whole = status.read_text()

    def answer():
        code, said = reproduce(run.folder)
        status.write_text(whole)
        assert code == 3 and len(said.splitlines()) == 1 and said.startswith("don't know: "), said
        return said

    status.write_text(whole.replace('"done"', '"failed"'))
    assert "is not done, but failed" in answer()
    status.write_text(json.dumps(json.loads(whole) | dict(code_before=["0123456789abcdef"])))
    assert "was continued with other code" in answer()
    status.write_text(json.dumps(json.loads(whole) | dict(code="0123456789abcdef")))
    assert "is not kept" in answer()
    (run.folder / FILE).rename(run.folder / "elsewhere")
    assert "has no fingerprints: it was trained by an earlier version" in answer()


def test_a_run_that_is_still_running_is_left_alone(train, reproduce):
    from lightning_hpc.runs.folder import RunFolder

    run = train("fit")
    folder = RunFolder(run.folder)
    folder.update(state="running")
    holds = "import sys, time; sys.path[:0] = sys.argv[2:]; from lightning_hpc.runs.folder import RunFolder\n"
    holds += "with RunFolder(sys.argv[1]).locked(): print(flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", holds, run.folder, *sys.path], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        code, said = reproduce(run.folder)
    finally:
        holder.kill()
        holder.wait()
    assert code == 3 and "is still running" in said


def test_wrong_usage_is_one_line(train, reproduce, tmp_path):
    for arguments in ((), (tmp_path,), ("here", "--run", "there")):
        code, said = reproduce(*arguments)
        assert code == 2 and len(said.splitlines()) == 1 and said.startswith("error: "), said
    run = train("fit")
    file = run.folder / "environment.json"
    records = json.loads(file.read_text())
    records[0]["settings"]["trainer.num_nodes"] = 2
    file.write_text(json.dumps(records))
    code, said = reproduce(run.folder)
    assert code == 2 and "was trained on 2 nodes" in said


def test_a_fingerprint_that_is_dear_waits_but_the_last_weights_have_one(train, monkeypatch):
    from lightning_hpc.provenance import callback

    monkeypatch.setattr(callback, "FREE", 0.0)
    monkeypatch.setattr(callback, "SHARE", 1e-9)
    run = train("fit", "--trainer.max_epochs=4")
    assert [(one.epoch, one.step) for one in read_fingerprints(run.folder)] == [(0, 0), (4, 8)]


def test_fingerprints_that_can_not_be_written_do_not_end_a_run(train, monkeypatch, caplog):
    from lightning_hpc.provenance.fingerprints import FingerprintsFile

    def full(self, one):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FingerprintsFile, "add", full)
    run = train("fit")
    assert run.code == 0 and "continues without fingerprints" in caplog.text
