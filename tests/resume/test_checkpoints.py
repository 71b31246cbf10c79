"""The callback Checkpoints: when it saves, what it keeps, how it tells, and how a run ends; and warm starts."""

import ctypes
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from chain import rows_without_times
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, LearningRateMonitor
from small_disk import no_file_larger_than
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.aggregation import RunningMean
from torchmetrics.classification import BinaryAccuracy

from lightning_hpc import signals
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.survive import checkpoints as module
from lightning_hpc.survive.checkpoint_files import CheckpointError, find_checkpoint, read_meta, step_files
from lightning_hpc.survive.checkpoint_io import unusable
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.survive.exact_resume import ExactResume
from lightning_hpc.survive.metrics_file import MetricsFile
from lightning_hpc.survive.monitor import direction_of_name
from lightning_hpc.sweeps.creation import check_goal
from lightning_hpc.sweeps.sweep_file import Sweep
from lightning_hpc.training.averaging import EMA


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
        accelerator="cpu", max_epochs=epochs, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[ExactResume(), checkpoints, *callbacks],
        **dict(logger=False) | settings,
    )  # fmt: skip
    trainer.fit(model or Model(), loader, loader, ckpt_path=resume, weights_only=True)
    return trainer


def test_saves_by_steps_keeps_the_newest_and_describes_them(tmp_path):
    told = []
    checkpoints = Checkpoints(every_n_steps=3, every_n_minutes=None, config="abcd1234", keep=3)
    checkpoints.on_save.append(told.append)
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
    assert find_checkpoint(folder).epoch == last["epoch"] == 3
    assert [entry["epoch"] for entry in told] == [0, 1, 1, 2, 2, 3]  # each best is saved when the next epoch begins


def test_says_when_a_checkpoint_was_saved_and_how_long_it_took(tmp_path):
    before = datetime.now().astimezone().replace(microsecond=0)
    fit(tmp_path, Checkpoints())
    last = read_meta(tmp_path / "checkpoints")["last"]
    saved = datetime.fromisoformat(last["saved"])
    assert saved.tzinfo is not None
    assert before <= saved <= datetime.now().astimezone()
    assert 0 < last["seconds"] < 60
    assert last["seconds"] == round(last["seconds"], 3)


def test_who_can_not_note_a_checkpoint_does_not_end_the_run(tmp_path):
    def quota(entry):
        raise OSError("disk quota exceeded")

    checkpoints = Checkpoints(every_n_steps=100, monitor=None)
    checkpoints.on_save.append(quota)
    with pytest.warns(UserWarning, match="the checkpoint of step 12 is written but could not be noted: disk quota"):
        fit(tmp_path, checkpoints)
    assert find_checkpoint(tmp_path / "checkpoints").step == 12


class Clock(Callback):
    """Each step takes twenty seconds."""

    seconds = 0

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.seconds += 20


def test_saves_by_minutes(tmp_path, monkeypatch):
    clock, told = Clock(), []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.seconds)
    checkpoints = Checkpoints(every_n_steps=None, every_n_minutes=2, monitor=None)
    checkpoints.on_save.append(told.append)
    fit(tmp_path, checkpoints, callbacks=[clock])
    assert [entry["step"] for entry in told] == [6, 12]


def test_saves_the_best_and_the_last_if_neither_steps_nor_minutes_count(tmp_path):
    told = []
    checkpoints = Checkpoints(every_n_steps=None, every_n_minutes=None, keep=1)
    checkpoints.on_save.append(told.append)
    fit(tmp_path, checkpoints)
    assert [entry["step"] for entry in told] == [4, 8, 12]
    assert list(step_files(tmp_path / "checkpoints")) == [12]


def test_at_least_one_is_kept():
    with pytest.raises(ValueError, match="keep=0: at least 1 checkpoint must be kept"):
        Checkpoints(keep=0)


@pytest.mark.parametrize(
    "mode, values, best",
    [
        ("min", (3.0, 10.0, 9.0), 0),  # as text, "10.0" would be the smallest
        ("max", (9.0, 10.0, 3.0), 1),
        ("min", (math.nan, 2.0, math.nan), 1),
        ("max", (math.nan, math.inf, 2.0), 1),
        ("min", (2.0, 2.0, 3.0), 0),  # of equal ones the first
    ],
)
def test_best_is_by_value_and_never_nan(tmp_path, mode, values, best):
    fit(tmp_path, Checkpoints(mode=mode), Model(values))
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["global_step"] == 4 * (best + 1)
    entry = read_meta(tmp_path / "checkpoints")["best"]
    value = values[best] if math.isfinite(values[best]) else None  # JSON has no word for infinity
    assert (entry["step"], entry["value"], entry["mode"]) == (4 * (best + 1), value, mode)


class Scored(Model):
    """Logs val/acc, which grows, as a number or as an object of torchmetrics, and other metrics."""

    def __init__(self, name="val/acc", as_object=False):
        super().__init__()
        self.name, self.metric = name, BinaryAccuracy() if as_object else None

    def validation_step(self, batch, batch_idx):
        value = torch.tensor([self.current_epoch / 4])
        if self.metric is not None:
            self.metric.update((torch.arange(4) < self.current_epoch).float(), torch.ones(4, dtype=int))
            self.log(self.name, self.metric)
        else:
            self.log(self.name, value.mean())


@pytest.mark.parametrize("name, as_object", [("val/acc", False), ("val/quality", True)])
def test_the_direction_follows_from_the_metric(tmp_path, caplog, name, as_object):
    with caplog.at_level(logging.INFO):
        fit(tmp_path, Checkpoints(monitor=name), Scored(name, as_object))
    assert f"best.ckpt gets the largest {name}" in caplog.text
    best = read_meta(tmp_path / "checkpoints")["best"]
    assert (best["step"], best["value"], best["mode"]) == (12, 0.5, "max")


def test_a_direction_that_is_typed_counts_with_a_warning(tmp_path):
    with pytest.warns(
        UserWarning, match="mode is min, so best.ckpt gets the smallest val/acc, which usually is the wor"
    ):
        fit(tmp_path, Checkpoints(monitor="val/acc", mode="min"), Scored())
    assert read_meta(tmp_path / "checkpoints")["best"]["step"] == 4


@pytest.mark.parametrize(
    "monitor, message",
    [
        ("val/quality", "neither the name of val/quality nor its torchmetrics object says"),
        ("val/qualty", r"val/qualty, which nothing logs \(did you mean val/quality\?\); there are val/quality"),
    ],
)
def test_a_monitor_that_says_nothing_stops_at_the_first_validation(tmp_path, monitor, message):
    with pytest.raises(CheckpointError, match=message):
        fit(tmp_path, Checkpoints(monitor=monitor), Scored("val/quality"), num_sanity_val_steps=1)


@pytest.mark.parametrize(
    "name, direction",
    [
        ("val/loss", "min"), ("val_loss", "min"), ("loss_epoch", "min"), ("val/top5_error", "min"),
        ("val/error_rate", "min"), ("val_ema/acc", "max"), ("val/f1_macro", "max"), ("val/acc/dataloader_idx_0", "max"),
        ("AUROC", "max"), ("val/accuracy_gap", None), ("val/energy", None), ("val/neg_log_likelihood", None),
        ("val/negative_mse", None), ("", None),
    ],
)  # fmt: skip
def test_what_a_name_says(name, direction):
    assert direction_of_name(name) == direction


def test_meta_is_json_that_everybody_reads(tmp_path):
    fit(tmp_path, Checkpoints(), Model((math.nan,)))
    text = (tmp_path / "checkpoints" / "meta.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


class FullDiskAt(Callback):
    """The disk is full from one step to another."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        if trainer.global_step in (self.first, self.last):
            trainer.callbacks[1].settle(wait=True)  # what a thread still writes is of before
        if trainer.global_step == self.first:
            self.full = no_file_larger_than(500)
            self.full.__enter__()
        if trainer.global_step == self.last:
            self.full.__exit__(None, None, None)


def test_hyperparameters_that_could_not_be_read_again_are_left_out(tmp_path):
    class Saved(Model):
        def __init__(self, width=8, sizes=(1, 2), optimizer=torch.optim.SGD, folder=Path("/data")):
            super().__init__()
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match="hyper_parameters/optimizer holds a builtins.type.* and is left out"):
        fit(tmp_path, Checkpoints(), Saved(), epochs=1)
    saved = torch.load(find_checkpoint(tmp_path / "checkpoints").path, weights_only=True)
    assert saved["hyper_parameters"] == dict(width=8, sizes=(1, 2), folder="/data")


class Changing(Callback):
    """Has a state that is None first, then a number of numpy and a path, then something that can't be saved at all."""

    def __init__(self):
        self.step, self.loaded = 0, None

    def on_train_batch_end(self, trainer, *arguments):
        self.step = trainer.global_step

    def state_dict(self):
        if self.step < 3:
            return dict(best=None, folder=None)
        if self.step < 6:
            return dict(best=np.float64(self.step), folder=Path("/data"))
        return dict(lock=threading.Lock())

    def load_state_dict(self, state):
        self.loaded = state


def test_every_checkpoint_can_be_read_whatever_a_callback_puts_into_it(tmp_path):
    with pytest.warns(UserWarning) as warned:
        fit(tmp_path, Checkpoints(every_n_steps=1, keep=9), callbacks=[Changing()], epochs=2)
    texts = [str(warning.message) for warning in warned if "plain data" in str(warning.message)]
    assert len(texts) == 2  # each thing once, not at each save
    assert "callbacks/Changing/best is a numpy.float64 and saved as a float" in texts[0]
    assert "callbacks/Changing/lock holds a _thread.lock, which is no plain data, and is left out: this" in texts[1]

    folder, again = tmp_path / "checkpoints", Changing()
    assert all(unusable(path) is None for path in step_files(folder).values())
    resumed_from = find_checkpoint(folder, "step-00000004").path
    fit(tmp_path, Checkpoints(), callbacks=[again], resume=resumed_from, epochs=2)
    assert again.loaded == dict(best=4.0, folder="/data") and type(again.loaded["best"]) is float


def test_a_run_stops_when_its_optimizer_can_not_be_saved(tmp_path):
    class Strange(torch.optim.SGD):
        def state_dict(self):
            return super().state_dict() | dict(of=object())

    class WithIt(Model):
        def configure_optimizers(self):
            return Strange(self.parameters(), 0.1)

    with pytest.raises(CheckpointError, match="optimizer_states/0/of holds a builtins.object, which is no plain data"):
        fit(tmp_path, Checkpoints(every_n_steps=1), WithIt())


def test_a_checkpoint_that_can_not_be_read_is_passed_over(tmp_path):
    fit(tmp_path, Checkpoints(every_n_steps=2), epochs=1)
    folder = tmp_path / "checkpoints"
    newest = list(step_files(folder).values())[-1]
    newest.unlink()
    torch.save(dict(trap=Path("/")), newest)
    assert find_checkpoint(folder).path == newest  # whole, as far as one can see without torch
    found = find_checkpoint(folder, check=unusable)
    assert found.step == 2
    assert "which is no plain data" in found.damaged[0]


@pytest.mark.parametrize("background", [True, False])
def test_on_a_full_disk_the_run_goes_on_and_says_so(tmp_path, background):
    checkpoints = Checkpoints(every_n_steps=1, monitor=None, background=background)
    with pytest.warns(UserWarning, match="checkpoint of step 4 could not be written: File too large"):
        fit(tmp_path, checkpoints, callbacks=[FullDiskAt(4, 7)])
    assert list(step_files(tmp_path / "checkpoints")) == [11, 12]


@pytest.mark.parametrize(
    "from_step, earlier", [(10, "the one of step 9 is still there"), (1, "there is no earlier one")]
)
def test_a_run_without_its_last_checkpoint_is_not_done(tmp_path, from_step, earlier):
    full = FullDiskAt(from_step, 99)
    try:
        with (
            pytest.warns(UserWarning, match="could not be written"),
            pytest.raises(CheckpointError, match=f"of step 12 could not be written: File too large .*; {earlier}"),
        ):
            fit(tmp_path, Checkpoints(every_n_steps=1), callbacks=[full])
    finally:
        full.full.__exit__(None, None, None)


@pytest.mark.parametrize("background", [True, False])
def test_after_a_failed_save_the_best_stays_what_it_was(tmp_path, background):
    """It is not written at each step from then on, and never with weights that were not validated."""
    values = (2.0, 1.0, 1.5)
    with pytest.warns(UserWarning, match="could not be written") as warned:
        checkpoints = Checkpoints(every_n_steps=100, background=background)
        fit(tmp_path, checkpoints, Model(values), callbacks=[FullDiskAt(8, 11)])
    assert len([warning for warning in warned if "could not be written" in str(warning.message)]) == 1
    best = read_meta(tmp_path / "checkpoints")["best"]
    assert (best["step"], best["value"]) == (12, 1.5)  # better than 2.0; the weights that scored 1.0 are gone
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 12


@pytest.mark.parametrize("background", [True, False])
def test_on_a_full_disk_the_run_stops_if_it_shall(tmp_path, background):
    full = FullDiskAt(4, 99)
    try:
        with pytest.raises(CheckpointError, match="checkpoint of step 4 could not be written: File too large"):
            checkpoints = Checkpoints(every_n_steps=1, full_disk="stop", background=background)
            fit(tmp_path, checkpoints, callbacks=[full])
    finally:
        full.full.__exit__(None, None, None)
    assert find_checkpoint(tmp_path / "checkpoints").step == 3


def test_going_back_drops_the_future(tmp_path):
    fit(tmp_path, Checkpoints(every_n_steps=2, keep=9))
    folder = tmp_path / "checkpoints"
    damaged = folder / "step-00000012.ckpt"
    damaged.write_bytes(b"half")
    found = find_checkpoint(folder)
    assert (found.step, len(found.damaged)) == (10, 1)
    fit(tmp_path, Checkpoints(every_n_steps=1, keep=9), resume=find_checkpoint(folder, "step-00000004").path, epochs=2)
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


def test_double_precision_loses_no_digits(tmp_path):
    class Double(Model):
        def training_step(self, batch, batch_idx):
            return self.layer(batch[0].double() / 3).square().mean()

    torch.manual_seed(0)
    fit(tmp_path / "whole", Checkpoints(), Double(), precision="64-true")
    torch.manual_seed(0)
    fit(tmp_path, Checkpoints(), Double(), precision="64-true", epochs=1)
    resume = find_checkpoint(tmp_path / "checkpoints").path
    fit(tmp_path, Checkpoints(), Double(), precision="64-true", resume=resume)
    ends = [
        torch.load(place / "checkpoints" / "last.ckpt", weights_only=True) for place in (tmp_path, tmp_path / "whole")
    ]
    assert torch.equal(ends[0]["state_dict"]["layer.weight"], ends[1]["state_dict"]["layer.weight"])


def test_a_new_attempt_removes_what_a_killed_save_has_left(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    left, other = folder / ".step-00000003.ckpt.4711.part", folder / ".notes.txt"
    left.write_bytes(b"half"), other.write_bytes(b"of the user")
    Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[ExactResume(), Checkpoints()],
    ).validate(Model(), DataLoader(TensorDataset(torch.ones(8, 4))), verbose=False)  # fmt: skip
    assert left.exists()  # a run that trains may write it right now
    fit(tmp_path, Checkpoints(), epochs=1)
    assert not left.exists() and other.exists()


@pytest.mark.parametrize("order", ["Other ExactResume Checkpoints", "ExactResume Other Checkpoints", "Checkpoints"])
def test_the_order_of_callbacks_is_checked(order):
    kinds = dict(Other=Callback, ExactResume=ExactResume, Checkpoints=Checkpoints)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[kinds[name]() for name in order.split()],
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="ExactResume must be the first and Checkpoints the second .* which are:"):
        trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(8, 4))))


def test_finders_may_be_before_exact_resume(tmp_path):
    """Lightning puts them there itself."""
    trainer = fit(tmp_path, Checkpoints(), callbacks=[LearningRateFinder()], epochs=1, fast_dev_run=2)
    assert [type(callback) for callback in trainer.callbacks][:2] == [LearningRateFinder, ExactResume]


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
    assert find_checkpoint(tmp_path / "checkpoints").step == 5


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path):
    program = (
        "import os, signal, time; from lightning_hpc import signals\n"
        "signals.install(at_once=lambda state, reason: print(state, reason, flush=True) or 130)\n"
        "signals.received()  # as at each batch\n"
        "for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (130, "interrupted ended at once by a second Ctrl-C\n")
    assert "SIGINT: the run saves and stops at its next batch; Ctrl-C again ends it at once" in done.stderr


def test_handlers_need_no_torch():
    program = "import sys; from lightning_hpc import signals; signals.install(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_workers_that_are_left_do_not_keep_the_program_from_ending():
    program = (
        "import multiprocessing, time; from lightning_hpc import signals; signals.install()\n"
        "multiprocessing.Process(target=time.sleep, args=(60,), daemon=True).start()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


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


class Remembers(Model):
    """Has what Lightning leaves out: a buffer that is not saved with the weights, a running metric, rows of hooks."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.mean = RunningMean(window=3)

    def on_train_epoch_start(self):
        self.log("epoch/start", float(self.current_epoch))

    def training_step(self, batch, batch_idx):
        self.seen += 1
        self.mean.update(self.seen)
        self.log("train/mean", self.mean.compute())
        return (self.layer(batch[0]) * self.seen).mean()


def test_what_lightning_leaves_out_is_the_same_after_a_restart(tmp_path):
    def train(folder, **options):
        torch.manual_seed(0)
        model = Remembers()
        logger = MetricsFile(folder)
        fit(folder, Checkpoints(every_n_steps=1, keep=99), model, [LearningRateMonitor("epoch")], logger=logger,
            log_every_n_steps=1, **options)  # fmt: skip
        return model, rows_without_times(folder / "metrics.csv")

    model, rows = train(tmp_path, epochs=2)
    for step in (2, 4, 6):
        resumed, resumed_rows = train(tmp_path, epochs=2, resume=tmp_path / "checkpoints" / f"step-{step:08d}.ckpt")
        assert resumed_rows == rows
        assert torch.equal(resumed.layer.weight, model.layer.weight)
        assert float(resumed.seen) == 8


def test_lightnings_own_checkpoint_callbacks_work_beside_ours(train, tmp_path):
    (tmp_path / "added.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: ModelCheckpoint\n      init_args: {save_last: true}\n"
        f"    - class_path: OnExceptionCheckpoint\n      init_args: {{dirpath: {tmp_path}}}\n"
    )
    run = train("fit", "--config", "added.yaml")
    assert (run.code, run.status["state"]) == (0, "done")
    ours, added = run.folder / "checkpoints", run.folder / "added_checkpoints"
    assert [file.name for file in sorted(added.iterdir())] == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert list(step_files(ours)) == [2] and unusable(added / "last.ckpt") is None


@pytest.mark.parametrize(
    "goal, mode, agree", [("minimize", "min", True), ("maximize", "min", False), ("minimize", "max", False)]
)
def test_a_sweep_looks_for_the_same_end_as_its_runs(tmp_path, goal, mode, agree):
    sweep = Sweep(dict(metric=dict(name="val/acc_best", goal=goal)), tmp_path)
    status = dict(monitor="val/acc", mode=mode)
    if agree:
        check_goal(sweep, status)
    else:
        with pytest.raises(SettingsError, match=f"val/acc_best has goal {goal}, but its runs keep the"):
            check_goal(sweep, status)
    check_goal(sweep, dict(monitor="val/loss", mode=mode))  # another metric
