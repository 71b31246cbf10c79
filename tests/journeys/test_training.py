"""How a run trains, by configuration alone: each test would fail if the setting did nothing."""

import json
import math

import pytest
import torch

FULL = "--trainer.limit_train_batches=1.0"
PER_EPOCH = 17  # optimizer steps of an epoch: 1,077 training images, 64 a batch


def weights(run, name="last"):
    return run.checkpoint(name)["state_dict"]


def test_total_batch_size_sets_the_accumulation(train):
    run = train("fit", "--total_batch_size=256", FULL)
    assert run.checkpoint()["global_step"] == math.ceil(PER_EPOCH / 4)


def test_an_impossible_total_batch_size_names_all_numbers(train, capsys):
    run = train("fit", "--total_batch_size=100")
    assert run.code == 2 and run.folder is None
    line = capsys.readouterr().err.splitlines()[-1]
    assert all(number in line for number in ("100", "64", "× 1 devices", "128"))


def test_the_length_in_steps_replaces_the_default_epochs(train):
    run = train("fit", "--trainer.max_steps=12", "--total_batch_size=1024", defaults=True)
    assert run.checkpoint()["global_step"] == 12  # two an epoch: more than the default ten epochs of 1 step would be


def test_the_length_in_samples(train):
    run = train("fit", "--max_samples=1000", "--total_batch_size=128", defaults=True)
    assert run.checkpoint()["global_step"] == math.ceil(1000 / 128)


def test_validation_every_so_many_steps(train):
    run = train("fit", "--trainer.max_steps=12", "--val_every_steps=4", defaults=True)
    assert [int(row["step"]) for row in run.rows if row["val/acc"]] == [3, 7, 11]  # steps are counted from 0
    run = train("fit", "--trainer.max_steps=9", "--val_every_steps=4", "--total_batch_size=128", defaults=True)
    assert [int(row["step"]) for row in run.rows if row["val/acc"]] == [3, 7]


def test_validation_every_so_many_samples(train):
    run = train("fit", "--trainer.max_steps=8", "--val_every_samples=256", defaults=True)
    assert [int(row["step"]) for row in run.rows if row["val/acc"]] == [3, 7]


def test_gradients_are_clipped(train):
    """With SGD the first step is learning rate × clipped gradient, so its length is known."""
    optimizer = ["--model.optimizer=SGD", "--model.optimizer.lr=1.0", "--model.lr_scheduler=null"]
    settings = [*optimizer, "--trainer.max_steps=1"]
    start = train("fit", *settings, "--trainer.gradient_clip_val=1.0e-12", "--name=start")
    moved = train("fit", *settings, "--trainer.gradient_clip_val=0.01", "--name=moved")
    steps = [
        (weights(moved)[name] - weights(start)[name]).norm() ** 2
        for name in weights(start)
        if name.startswith("network") and "running" not in name and "tracked" not in name
    ]
    assert math.sqrt(sum(steps)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/acc", "max")])
def test_early_stopping_either_way(train, monitor, mode):
    """A learning rate of 0 never improves anything, so the run ends when patience does: after 1 + 2 validations."""
    run = train(
        "fit", "--config=experiments/early_stopping.yaml", "--model.optimizer.lr=0", "--trainer.max_epochs=9",
        "--model.network=my_research_project.networks.MLP",  # nothing random in it: the same value every time
        f"--trainer.callbacks.monitor={monitor}", f"--trainer.callbacks.mode={mode}", "--trainer.callbacks.patience=2",
    )  # fmt: skip
    assert run.status["state"] == "done" and len(run.column(monitor)) == 3


def test_a_run_that_diverges_fails_and_says_why(train, capsys):
    run = train("fit", "--model.optimizer=SGD", "--model.optimizer.lr=1e30", "--model.lr_scheduler=null", FULL,
                "--trainer.gradient_clip_val=null", "--trainer.max_epochs=9")  # fmt: skip
    assert run.code == 1 and run.status["state"] == "failed" and run.status["exit_code"] == 1
    assert "the training loss is" in run.status["reason"] and "lr" in run.status["reason"]
    assert "error: Diverged" in capsys.readouterr().err


def test_warm_up_and_cosine(train):
    run = train(
        "fit", "--trainer.max_steps=20", "--model.lr_scheduler.warmup=0.25", "--model.lr_scheduler.final=0.1",
        "--trainer.log_every_n_steps=1", "--trainer.callbacks+=LearningRateMonitor", defaults=True,
    )  # fmt: skip
    rates = [rate / 0.003 for rate in run.column("lr-AdamW")]
    rising = [(step + 1) / 5 for step in range(5)]
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(15)]
    assert rates == pytest.approx(rising + falling)


def test_the_averaged_weights_are_evaluated_beside_the_last(train):
    run = train("fit", "--config=experiments/ema.yaml", "--trainer.max_epochs=3", FULL)
    last, averaged = run.column("val/loss"), run.column("val_ema/loss")
    assert len(last) == len(averaged) == 3 and last != averaged
    best = json.loads((run.folder / "checkpoints" / "meta.json").read_text())["best"]
    assert best["monitor"] == "val_ema/loss" and best["value"] == pytest.approx(min(averaged))
    validated = train("validate", "--run", str(run.folder))
    assert validated.code == 0
    measured = json.loads((run.folder / "validate.json").read_text())["val/loss"]
    assert measured == pytest.approx(min(averaged), rel=1e-4)  # the best checkpoint is the average's


def test_only_the_averaged_weights_are_evaluated(train):
    plain = train("fit", "--name=plain", "--trainer.limit_train_batches=6")
    averaged = train("fit", "--name=averaged", "--trainer.limit_train_batches=6", "--config=experiments/ema.yaml",
                     "--trainer.callbacks.evaluate=averaged", "--checkpoints.monitor=val/loss")  # fmt: skip
    assert "val_ema/loss" not in averaged.rows[0]
    assert averaged.column("val/loss") != plain.column("val/loss")
    assert averaged.column("train/loss") == plain.column("train/loss")  # averaging does not touch training


def test_compile_is_accepted_and_changes_no_name(train, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: calls.append(model) or model)
    run = train("fit", "--compile=true")
    assert run.status["state"] == "done" and len(calls) == 1
    assert all("_orig_mod" not in name for name in weights(run))


def test_precision_is_used(train):
    plain, mixed = train("fit", "--name=plain"), train("fit", "--name=mixed", "--trainer.precision=bf16-mixed")
    assert mixed.column("val/loss") != plain.column("val/loss")
    assert mixed.column("val/loss") == pytest.approx(plain.column("val/loss"), rel=0.1)


def test_initial_weights_have_a_seed_of_their_own(train):
    settings = ["--model.optimizer.lr=0", "--trainer.limit_train_batches=1"]
    runs = [
        train("fit", *settings, "--name=a", "--init_seed=5", "--seed_everything=1"),
        train("fit", *settings, "--name=b", "--init_seed=5", "--seed_everything=2"),
        train("fit", *settings, "--name=c", "--init_seed=6", "--seed_everything=1"),
    ]
    a, b, c = (weights(run)["network.head.2.weight"] for run in runs)
    assert torch.equal(a, b) and not torch.equal(a, c)
    losses = [run.column("val/loss") for run in runs]
    assert losses[0] != losses[2]


def test_time_throughput_and_memory_are_logged(train):
    run = train("fit")
    assert run.column("time/epoch_s")[0] > 0
    assert run.column("time/samples_per_s")[0] == pytest.approx(128 / run.column("time/epoch_s")[0], rel=1e-6)
    assert 0.05 < run.column("memory/peak_gib")[0] < 100


def test_the_log_has_time_rank_and_level(train):
    run = train("fit")
    lines = (run.folder / "logs" / "rank-0.log").read_text().splitlines()
    epochs = [line for line in lines if "epoch 1/1" in line]
    assert len(epochs) == 1 and " rank 0 INFO " in epochs[0] and epochs[0][:2] == "20"


def test_the_best_checkpoint_is_chosen_by_value(train):
    run = train("fit", "--trainer.max_epochs=4", FULL)
    meta = json.loads((run.folder / "checkpoints" / "meta.json").read_text())
    assert meta["best"]["value"] == pytest.approx(min(run.column("val/loss")))
    assert meta["last"]["step"] == 4 * PER_EPOCH
    tested = train("test", "--run", str(run.folder))
    record = json.loads((tested.folder / "test.json").read_text())
    assert record["step"] == meta["best"]["step"] and record["checkpoint"] == "checkpoints/best.ckpt"
