"""The callback Checkpoints: when it saves, what it keeps, how it tells, and how a run ends; and warm starts."""

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from test_checkpoint_files import no_file_larger_than
from torch.utils.data import DataLoader, TensorDataset

from package.training import checkpoints as module
from package.training import signals
from package.training.averaging import EMA
from package.training.checkpoint_files import CheckpointError, find, read_meta, step_files
from package.training.checkpoints import Checkpoints, load_weights
from package.training.metrics_file import MetricsFile
from package.training.resume import ExactResume


class Model(LightningModule):
    """Logs the values it is given as val/loss, one per validation."""

    def __init__(self, values=(3.0, 2.0, 1.0), size=4):
        super().__init__()
        self.layer, self.values = torch.nn.Linear(size, 1), list(values)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.values[min(self.current_epoch, len(self.values) - 1)])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, checkpoints, model=None, callbacks=(), resume=None, epochs=3, **settings):
    loader = DataLoader(TensorDataset(torch.ones(8, 4)), 2)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[*callbacks, ExactResume(), checkpoints],
        **settings,
    )  # fmt: skip
    trainer.fit(model or Model(), loader, loader, ckpt_path=resume, weights_only=True)
    return trainer


def test_saves_by_steps_keeps_the_newest_and_describes_them(tmp_path):
    told = []
    checkpoints = Checkpoints(every_n_steps=3, every_n_minutes=None, config="abcd1234", keep=3)
    checkpoints.on_save = told.append
    fit(tmp_path, checkpoints)
    folder = tmp_path / "checkpoints"
    assert list(step_files(folder)) == [8, 11, 12]
    meta = read_meta(folder)
    assert [entry["step"] for entry in meta["kept"]] == [8, 11, 12]
    last = meta["last"]
    assert (last["file"], last["step"], last["config"]) == ("step-00000012.ckpt", 12, "abcd1234")
    assert last["metrics"] == {"val/loss": 1.0}
    assert last["size"] == (folder / "last.ckpt").stat().st_size
    assert (folder / "last.ckpt").samefile(folder / "step-00000012.ckpt")
    assert [entry["step"] for entry in told] == [3, 4, 7, 8, 11, 12]  # every third, and the best of each epoch
    assert find(folder).epoch == last["epoch"]


def test_saves_by_minutes(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    told = []
    checkpoints = Checkpoints(every_n_steps=None, every_n_minutes=1, monitor="none of them")
    checkpoints.on_save = told.append
    with pytest.warns(UserWarning, match="No best checkpoint: nothing logs none of them, only"):
        fit(tmp_path, checkpoints)
    assert len(told) > 2


@pytest.mark.parametrize(
    "mode, values, best",
    [
        ("min", (3.0, 10.0, 9.0), 0),  # as text, "10.0" would be the smallest
        ("max", (9.0, 10.0, 3.0), 1),
        ("min", (math.nan, 2.0, math.nan), 1),
        ("max", (math.nan, math.inf, 2.0), 1),
    ],
)
def test_best_is_by_value_and_never_nan(tmp_path, mode, values, best):
    fit(tmp_path, Checkpoints(mode=mode), Model(values))
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["global_step"] == 4 * (best + 1)
    entry = read_meta(tmp_path / "checkpoints")["best"]
    assert (entry["step"], entry["value"], entry["mode"]) == (4 * (best + 1), values[best], mode)


def test_meta_is_json_that_everybody_reads(tmp_path):
    fit(tmp_path, Checkpoints(), Model((math.nan,)))
    text = (tmp_path / "checkpoints" / "meta.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


class FullDiskAt(Callback):
    """The disk is full from one step to another."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        if trainer.global_step == self.first:
            self.full = no_file_larger_than(500)
            self.full.__enter__()
        if trainer.global_step == self.last:
            self.full.__exit__(None, None, None)


def test_hyperparameters_that_could_not_be_read_again_are_left_out(tmp_path):
    class Saved(Model):
        def __init__(self, width=8, sizes=(1, 2), optimizer=torch.optim.SGD, folder=Path("/")):
            super().__init__()
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match="leave out hyper_parameters that are no plain data: optimizer, folder"):
        fit(tmp_path, Checkpoints(), Saved(), epochs=1)
    saved = torch.load(find(tmp_path / "checkpoints").path, weights_only=True)
    assert saved["hyper_parameters"] == dict(width=8, sizes=(1, 2))


def test_what_else_can_not_be_read_again_stops_the_run_at_its_first_save(tmp_path):
    class Strange(Callback):
        def state_dict(self):
            return dict(folder=Path("/"))

    with pytest.raises(
        CheckpointError, match="can't read checkpoint .* holds a pathlib.PosixPath, which is no plain data"
    ):
        fit(tmp_path, Checkpoints(every_n_steps=1), callbacks=[Strange()])


def test_on_a_full_disk_the_run_goes_on_and_says_so(tmp_path):
    checkpoints = Checkpoints(every_n_steps=1, monitor="none")
    with pytest.warns(UserWarning, match="checkpoint of step 4 could not be written: File too large"):
        fit(tmp_path, checkpoints, callbacks=[FullDiskAt(4, 7)])
    assert list(step_files(tmp_path / "checkpoints")) == [11, 12]


def test_on_a_full_disk_the_run_stops_if_it_shall(tmp_path):
    full = FullDiskAt(4, 99)
    try:
        with pytest.raises(CheckpointError, match="checkpoint of step 4 could not be written: File too large"):
            fit(tmp_path, Checkpoints(every_n_steps=1, full_disk="stop"), callbacks=[full])
    finally:
        full.full.__exit__(None, None, None)
    assert find(tmp_path / "checkpoints").step == 3


def test_going_back_drops_the_future(tmp_path):
    fit(tmp_path, Checkpoints(every_n_steps=2, keep=9))
    folder = tmp_path / "checkpoints"
    damaged = folder / "step-00000012.ckpt"
    damaged.write_bytes(b"half")
    found = find(folder)
    assert (found.step, len(found.damaged)) == (10, 1)
    fit(tmp_path, Checkpoints(every_n_steps=1, keep=9), resume=find(folder, "step-00000004").path, epochs=2)
    assert list(step_files(folder)) == [2, 4, 5, 6, 7, 8]


def test_a_longer_run_goes_on_from_a_finished_one_to_the_bit(tmp_path):
    fit(tmp_path / "short", Checkpoints(), callbacks=[EMA(0.9)], epochs=2)
    resume = tmp_path / "short" / "checkpoints" / "last.ckpt"
    fit(tmp_path / "longer", Checkpoints(), callbacks=[EMA(0.9)], resume=resume, epochs=5)
    fit(tmp_path / "long", Checkpoints(), callbacks=[EMA(0.9)], epochs=5)
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("longer", "long")
    ]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])


def test_it_needs_exact_resume(tmp_path):
    loader = DataLoader(TensorDataset(torch.ones(8, 4)))
    with pytest.raises(CheckpointError, match="needs ExactResume"):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[Checkpoints()]).fit(
            Model(), loader
        )


class Interrupt(Callback):
    def __init__(self, number):
        self.number = number

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        if trainer.global_step == 5:
            os.kill(os.getpid(), self.number)


class Thief(Callback):
    """Takes SIGUSR1 as LLVM does: behind Python's back, and to drop it."""

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        if trainer.global_step == 1:
            ctypes.CDLL(None).signal(signal.SIGUSR1, signal.SIG_IGN)


@pytest.mark.parametrize("number, reason", [(signal.SIGTERM, "preempted"), (signal.SIGUSR1, "time limit")])
def test_a_signal_stops_the_run_with_its_reason(tmp_path, number, reason):
    signals.install()
    try:
        with pytest.raises(signals.Stopped) as stopped:
            fit(tmp_path, Checkpoints(), callbacks=[Interrupt(number), Thief()])
    finally:
        signals.uninstall()
        signals.reset()
    assert stopped.value.reason == reason
    assert find(tmp_path / "checkpoints").step == 5


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path):
    program = (
        "import os, signal, time; from package.training import signals\n"
        "signals.install(at_once=lambda: print('noted', flush=True))\n"
        "for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (130, "noted\n")
    assert "SIGINT: the run saves and stops at its next batch; Ctrl-C again ends it at once" in done.stderr


def test_handlers_need_no_torch():
    program = "import sys; from package.training import signals; signals.install(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_workers_that_are_left_do_not_keep_the_program_from_ending():
    program = (
        "import multiprocessing, time; from package.training import signals; signals.install()\n"
        "multiprocessing.Process(target=time.sleep, args=(60,), daemon=True).start()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_rows_wait_for_no_checkpoint_and_no_row_is_doubled(tmp_path):
    """A run that is killed before its first checkpoint starts anew, and so do its rows."""
    file = MetricsFile(tmp_path)
    file.log_metrics(dict(loss=1.0), 0)
    file.finalize("killed")
    loader = DataLoader(TensorDataset(torch.ones(8, 4)), 2)
    Trainer(
        accelerator="cpu", max_epochs=1, logger=[MetricsFile(tmp_path)], enable_checkpointing=False,
        enable_progress_bar=False, default_root_dir=tmp_path, callbacks=[ExactResume(), Checkpoints()],
    ).fit(Model(), loader, loader)  # fmt: skip
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2  # the header and one validation


def test_warm_start_takes_the_weights_and_tells_what_does_not_fit(tmp_path):
    source = Model()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / "run.ckpt")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    for name in ("run.ckpt", "weights.pt"):
        model = Model()
        assert "2 of 2 tensors" in load_weights(model, tmp_path / name)
        assert torch.equal(model.layer.weight, source.layer.weight)
    wider = Model(size=5)
    with pytest.raises(CheckpointError, match=r"does not fit the model: layer.weight \(other shape\)"):
        load_weights(wider, tmp_path / "run.ckpt")
    assert "1 of 2 tensors, without layer.weight (other shape)" in load_weights(
        wider, tmp_path / "run.ckpt", strict=False
    )
    assert torch.equal(wider.layer.bias, source.layer.bias)
    with pytest.raises(CheckpointError, match="nothing.ckpt is not a file"):
        load_weights(wider, tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(torch.nn.Conv2d(1, 1, 1), tmp_path / "run.ckpt", strict=False)
