"""Pasted LightningModules with trackers: what they tell their logger arrives where it can be shown."""

import shutil
from pathlib import Path

import pytest

PASTED = Path(__file__).parents[1] / "journeys" / "pasted_modules.py"


@pytest.fixture
def pasted(train, tmp_path):
    """Trains one of the pasted modules."""
    shutil.copy(PASTED, tmp_path)

    def run(name, *arguments):
        return train("fit", f"--model=pasted_modules.{name}", "--trainer.limit_val_batches=2", *arguments)

    return run


@pytest.mark.parametrize("name", ["VAE", "GAN", "WandbStyle"])
def test_what_is_written_for_any_tracker_is_in_wandb(wandb_env, pasted, name):
    import wandb

    run = pasted(name)
    assert run.code == 0
    wandb.teardown()  # its service writes the last part of the file when it ends
    (record,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    tags = dict(VAE=[b"kl_weight"], GAN=[b"validation/generated_images"], WandbStyle=[b"my/loss", b"samples"])[name]
    assert all(tag in record.read_bytes() for tag in tags)
    pictures = dict(VAE=0, GAN=1, WandbStyle=2)[name]
    assert len(list(record.parent.glob("files/media/images/**/*.png"))) == pictures


def test_tensorboard_beside_wandb_gets_what_only_it_knows(pasted, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = pasted("VAE", "--config=trackers/tensorboard.yaml")
    assert run.code == 0
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert "encoder.1.weight" in tags["histograms"] and "kl_weight" in tags["scalars"]
    assert "valid/loss" in tags["scalars"]
