"""Lengths in steps and samples become the Trainer's own settings; numbers that don't go together are all named."""

from types import SimpleNamespace

import pytest
from jsonargparse import Namespace

from package.runs.request import BASE, COMMAND_LINE
from package.runs.settings import Settings, SettingsError
from package.training.length import replace_default_length, set_length


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


@pytest.mark.parametrize("chosen", [{"trainer.max_steps": 10}, {"max_samples": 100}])
def test_a_length_in_steps_or_samples_replaces_the_default_one_in_epochs(chosen):
    wanted = request_for(chosen)
    replace_default_length(wanted)
    assert wanted.files.flat["trainer.max_epochs"] == -1


@pytest.mark.parametrize(
    "chosen", [{}, {"trainer.max_steps": -1}, {"max_samples": None}, {"trainer.max_steps": 10, "trainer.max_epochs": 2}]
)
def test_a_length_in_epochs_that_was_asked_for_stays(chosen):
    wanted = request_for(chosen)
    replace_default_length(wanted)
    assert wanted.files.flat["trainer.max_epochs"] == 15


def request_for(typed):
    settings, files = Settings(), Settings()
    for each in (settings, files):
        each.add({"trainer.max_epochs": 15}, BASE)
    settings.add(typed, COMMAND_LINE)
    return SimpleNamespace(settings=settings, files=files)
