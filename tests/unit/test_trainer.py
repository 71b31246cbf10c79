"""The Trainer of a run: its callbacks are in order, and lengths in steps and samples become its own settings."""

import os
from types import SimpleNamespace

import pytest
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lightning_hpc.cka import CKACallback
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.training.trainer import OTHER_LAUNCHERS, all_callbacks, set_length, take_place_in_slurm


def fake_trainer(devices=1, accumulation=1):
    return SimpleNamespace(
        world_size=devices,
        accumulate_grad_batches=accumulation,
        val_check_interval=1.0,
        check_val_every_n_epoch=1,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=-1)),
    )


def length(trainer, batch_size=32, **chosen):
    names = ("total_batch_size", "max_samples", "val_every_steps", "val_every_samples")
    data = SimpleNamespace() if batch_size is None else SimpleNamespace(batch_size=batch_size)
    set_length(Namespace(**{name: chosen.get(name) for name in names}), trainer, data)
    return trainer


def test_nothing_asked_nothing_changed():
    assert length(fake_trainer(), batch_size=None) == fake_trainer()


@pytest.mark.parametrize("devices, total, accumulation", [(1, 32, 1), (1, 128, 4), (4, 128, 1), (4, 512, 4)])
def test_accumulation_follows_from_the_total_batch_size(devices, total, accumulation):
    assert length(fake_trainer(devices), total_batch_size=total).accumulate_grad_batches == accumulation


@pytest.mark.parametrize("devices, total, nearest", [(4, 200, "128 or 256"), (4, 100, "128"), (1, 33, "32 or 64")])
def test_a_total_that_does_not_divide_is_refused_with_all_numbers(devices, total, nearest):
    with pytest.raises(SettingsError) as error:
        length(fake_trainer(devices), total_batch_size=total)
    assert str(error.value) == (
        f"total_batch_size {total} is not a multiple of {32 * devices}: "
        f"data.batch_size 32 × {devices} devices; nearest: {nearest}"
    )


@pytest.mark.parametrize("samples, steps", [(1, 1), (128, 1), (129, 2), (1280, 10)])
def test_samples_are_counted_in_whole_optimizer_steps(samples, steps):
    trainer = length(fake_trainer(2), total_batch_size=128, max_samples=samples)
    assert trainer.fit_loop.epoch_loop.max_steps == steps


def test_the_interval_between_validations_is_counted_over_the_whole_run():
    trainer = length(fake_trainer(2, accumulation=3), val_every_steps=10)
    assert (trainer.val_check_interval, trainer.check_val_every_n_epoch) == (
        30,
        None,
    )  # in batches
    trainer = length(fake_trainer(2, accumulation=2), val_every_samples=1280)
    assert (trainer.val_check_interval, trainer.check_val_every_n_epoch) == (20, None)
    assert length(fake_trainer(), val_every_samples=1).val_check_interval == 1


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"max_samples": 0}, "must be at least 1"),
        ({"val_every_steps": -5}, "must be at least 1"),
        ({"val_every_steps": 1, "val_every_samples": 1}, "say the same thing twice"),
        ({"max_samples": 10, "batch_size": None}, "SimpleNamespace has no attribute batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(chosen, message):
    with pytest.raises(SettingsError, match=message):
        length(fake_trainer(), **chosen)


def callbacks(command="fit", shows_bar=False, mode="train", chosen=(), canary=False):
    """Names of a run's callbacks, in order."""
    config = Namespace(seed_everything=0, canary=canary, checkpoints={}, data=Namespace(init_args=Namespace(mode=mode)))
    made = Namespace(cka=CKACallback(), trainer=Namespace(callbacks=list(chosen)))
    cli = SimpleNamespace(config=config, config_init=made, resolved={})
    run = SimpleNamespace(command=command, identity="0123456789abcdef", folder=RunFolder("runs/one"))
    return [type(callback).__name__ for callback in all_callbacks(cli, run, shows_bar)]


def test_callbacks_stand_in_the_order_in_which_they_have_to_act():
    assert callbacks(shows_bar=True, chosen=[EarlyStopping("val/loss")], canary=True) == [
        "ExactResume", "Checkpoints", "FolderIsThere", "StartUp", "ContinueAnother", "RecordSettings", "KeepSplit",
        "EarlyStopping", "NamedSets", "CKACallback", "BestSoFar", "EpochReport", "KeepProvenance", "Bar", "Canary",
    ]  # fmt: skip
    assert callbacks("test") == ["ExactResume", "Checkpoints", "NamedSets"]


def test_there_is_one_progress_bar_at_a_terminal_and_none_elsewhere():
    chosen = [TQDMProgressBar()]
    assert [name for name in callbacks(shows_bar=True, chosen=chosen) if "Bar" in name] == ["TQDMProgressBar"]
    assert not [name for name in callbacks(shows_bar=False, chosen=chosen) if "Bar" in name]


def test_without_a_validation_nothing_stops_early():
    assert "EarlyStopping" not in callbacks(mode="final", chosen=[EarlyStopping("val/loss")])


@pytest.fixture
def in_slurm(monkeypatch):
    """Sets SLURM's variables; takes them all away at the end, with those that the code has set."""
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in OTHER_LAUNCHERS]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")  # so that it is put back, whoever sets or deletes it

    def put(**variables):
        monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
        for name, value in dict(JOB_ID="7", JOB_NAME="mine", PROCID="0", **variables).items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))

    return put


ALONE = dict(STEP_ID=0, STEP_NUM_TASKS=1, NTASKS=1)


@pytest.mark.parametrize(
    "variables, devices",
    [
        (dict(NTASKS=2), 2),  # salloc --ntasks=2, and a job's own shell
        (dict(NTASKS=2, NTASKS_PER_NODE=2), 1),
        (dict(NTASKS=1), 2),  # trained on one, as if there were two
        (ALONE, 2),
        (ALONE | dict(NTASKS_PER_NODE=2), 1),  # srun --ntasks=1 in a job with two tasks
        (dict(NTASKS=1), "auto"),
        (dict(NTASKS=1), [0, 1]),
    ],
)
def test_a_process_alone_in_a_job_starts_its_own_ranks(in_slurm, variables, devices):
    in_slurm(**variables)
    take_place_in_slurm(devices, 1)
    assert not SLURMEnvironment.detect() and os.environ["SLURM_JOB_ID"] == "7"


def test_processes_that_srun_has_started_are_the_ranks(in_slurm):
    in_slurm(STEP_ID=0, STEP_NUM_TASKS=4, NTASKS=4)
    take_place_in_slurm(2, 2)
    assert SLURMEnvironment.detect() and os.environ["SLURM_NTASKS_PER_NODE"] == "2"
    SLURMEnvironment()  # which refuses tasks of which it does not know how many a node has
    with pytest.raises(SettingsError, match="srun has started 4 processes, and trainer.devices 1 × .* 2 needs 2"):
        take_place_in_slurm(1, 2)


def test_one_task_for_one_device_stays_slurms(in_slurm):
    in_slurm(**ALONE)
    take_place_in_slurm(1, 1)
    assert SLURMEnvironment.detect()
    with pytest.raises(SettingsError, match="num_nodes is 2, and this process is alone"):
        take_place_in_slurm(1, 2)
