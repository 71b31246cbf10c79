"""How a run trains, by configuration alone: each test would fail if the setting did nothing."""

import json
import math
import subprocess
import sys

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


def test_the_use_of_the_cores_is_logged(train):
    run = train("fit", "--data.num_workers=1")
    assert 0 < run.column("usage/cpu_percent")[0] < 150  # the system counts in hundredths of a second
    assert "usage/gpu_percent" not in run.rows[0] or torch.cuda.is_available()


def test_a_gpus_use_is_the_mean_of_what_it_has_said(monkeypatch):
    """With answers made up, since no GPU need be here; one that can't answer is not asked again."""
    from lightning_hpc.training import usage

    answers = iter([40, 80])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(answers))
    monkeypatch.setattr(usage, "EVERY", 0.0)
    gpu, measured = torch.device("cuda", 0), usage.Usage()
    measured.start()
    measured.look(torch.device("cpu"))
    for _ in range(3):
        measured.look(gpu)  # the third time: an error
    assert measured.values()["usage/gpu_percent"] == 60

    measured.start()
    measured.look(gpu)
    assert "usage/gpu_percent" not in measured.values()


def test_cpu_time_counts_processes_that_run_and_those_that_have_ended():
    from lightning_hpc.training.usage import cpu_seconds

    before = cpu_seconds()
    busy = [sys.executable, "-c", "sum(range(20_000_000)); print(flush=True); input()"]
    with subprocess.Popen(busy, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        running = cpu_seconds() - before
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.wait()
    ended = cpu_seconds() - before
    assert running > 0.05 and ended >= running - 0.05


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


def test_a_checkpoint_that_becomes_the_best_while_a_test_begins_is_the_one_it_tells_of(train, monkeypatch, capsys):
    """The run goes on: best.ckpt was looked up, and is another one when it is read."""
    from lightning_hpc.survive.checkpoint_files import give_name
    from lightning_hpc.training import evaluate

    run = train("fit", "--trainer.max_epochs=2", "--checkpoints.every_n_steps=1", FULL)
    checkpoints, make = run.folder / "checkpoints", evaluate.make
    (before,) = {file for file in checkpoints.glob("step-*.ckpt")} - {checkpoints / f"step-{2 * PER_EPOCH:08d}.ckpt"}
    meta = json.loads((checkpoints / "meta.json").read_text())
    (checkpoints / "meta.json").write_text(json.dumps(meta | dict(best=meta["kept"][0])))
    give_name(before, checkpoints / "best.ckpt")

    def becomes_the_best_now(*arguments):
        give_name(checkpoints / "last.ckpt", checkpoints / "best.ckpt")
        return make(*arguments)

    monkeypatch.setattr(evaluate, "make", becomes_the_best_now)
    assert train("test", "--run", str(run.folder)).code == 0
    assert json.loads((run.folder / "test.json").read_text())["step"] == 2 * PER_EPOCH
    assert f"best.ckpt is that of step {2 * PER_EPOCH} by now" in "".join(capsys.readouterr())


def test_a_wandb_mode_left_empty_is_none_where_it_is_used_last(train, project, tmp_path, monkeypatch):
    """.env.example has `WANDB_MODE=`. The means of a cross-validation reach W&B only after all folds have trained."""
    import wandb

    from lightning_hpc import entrance
    from lightning_hpc.training import crossvalidation

    def train_fold(run, root, *_):
        return entrance.train(["fit", *run.typed, "--trainer.logger=false"], root)

    wandb.teardown()  # it has read the environment of an earlier test, and would not look again
    monkeypatch.setenv("HOME", str(tmp_path))  # no key, so W&B's run is recorded offline
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setattr(crossvalidation, "train", train_fold)
    assert train("crossvalidate", "--folds=2", "--name=folds").code == 0
    (record,) = tmp_path.glob("runs/folds/cross-validation-*/wandb/offline-run-*")


@pytest.mark.parametrize("setting", ["trainer.limit_train_batches", "trainer.max_epochs", "trainer.max_steps"])
def test_a_run_that_would_do_nothing_is_an_error_before_it_starts(train, capsys, setting):
    run = train("fit", f"--{setting}=0")
    assert run.code == 2 and run.folder is None
    assert f"{setting} is 0, so there is nothing to train" in capsys.readouterr().err


def test_a_run_that_found_no_batch_is_not_done(train, tmp_path, capsys):
    (tmp_path / "drops_the_last.py").write_text(
        "from torch.utils.data import DataLoader\n\n"
        "from my_research_project.data import Digits\n\n\n"
        "class Data(Digits):\n"
        "    def train_dataloader(self):\n"
        "        return DataLoader(self.train_set, batch_size=4096, drop_last=True)\n"
    )
    run = train("fit", "--data=drops_the_last.Data", "--model.lr_scheduler=null")
    assert run.code == 1 and run.status["state"] == "failed" and "nothing was trained" in run.status["reason"]
    assert "error: nothing was trained" in "".join(capsys.readouterr())
    assert not (run.folder / "checkpoints").exists()


def test_metrics_of_classes_and_of_a_second_loader_are_seen_and_nan_is_no_word_of_json(train, tmp_path):
    (tmp_path / "many_metrics.py").write_text(
        "from my_research_project.model import Classifier\n\n\n"
        "class Many(Classifier):\n"
        "    def on_validation_epoch_end(self):\n"
        "        self.log('val/acc/class_0', 0.25)\n"
        "        self.log('val/broken', float('nan'))\n"
    )
    run = train("fit", "--model=many_metrics.Many")
    assert run.code == 0 and run.status["metrics"]["val/acc/class_0"] == 0.25
    assert run.status["metrics"]["val/broken"] is None
    assert "val/acc/class_0 0.25 val/broken nan" in (run.folder / "logs" / "rank-0.log").read_text()


def test_a_finished_run_is_trained_for_longer_in_a_run_of_its_own(train, project, capsys):
    """With a constant learning rate it ends equal to the bit to a run that was as long from the start."""
    constant = ("--model.lr_scheduler=null", "--resume=never")
    short = train("fit", *constant, "--trainer.max_epochs=2")
    whole = train("fit", *constant, "--trainer.max_epochs=4", "--name=whole")
    assert train("fit", "--run", str(short.folder), "--trainer.max_epochs=4").code == 2
    assert f"train it for longer: python {project}/Train.py fit --extend {short.folder} --trainer.max_epochs 4" in (
        capsys.readouterr().err
    )

    longer = train("fit", f"--extend={short.folder.resolve()}", "--trainer.max_epochs=4")
    assert longer.code == 0 and longer.folder.parent == short.folder.parent and longer.folder != short.folder
    assert longer.status["extends"] == longer.config["extend"] == str(short.folder)
    assert longer.status["attempt"] == 1 and longer.status["step"] == 8
    assert [int(row["step"]) for row in longer.rows if row["val/loss"]] == [5, 7]
    for name, value in weights(whole).items():
        assert torch.equal(weights(longer)[name], value), name
    assert longer.checkpoint("best")["global_step"] in (6, 8)

    again = train("fit", f"--extend={short.folder}", "--trainer.max_epochs=4")
    assert again.code == 0 and again.folder == longer.folder and again.status["attempt"] == 1
    assert "done already" in capsys.readouterr().out

    as_long = train("fit", f"--extend={short.folder}", "--trainer.max_epochs=2")
    assert as_long.code == 1 and "is at the end already" in as_long.status["reason"]
    assert train("fit", f"--extend={as_long.folder}", "--trainer.max_epochs=9").code == 2
    assert "that run is not done, but failed" in capsys.readouterr().err


def test_the_schedule_of_a_longer_run_has_its_length(train, capsys):
    monitor = ("--trainer.log_every_n_steps=1", "--trainer.callbacks+=LearningRateMonitor")
    short = train("fit", *monitor, "--trainer.max_epochs=2")
    whole = train("fit", *monitor, "--trainer.max_epochs=4", "--name=whole")
    capsys.readouterr()
    longer = train("fit", f"--extend={short.folder}", "--trainer.max_epochs=4")
    assert longer.column("lr-AdamW") == pytest.approx(whole.column("lr-AdamW")[4:])
    assert "WarmupCosine has the length of this run: at step 4 the learning rate is" in "".join(capsys.readouterr())


def test_the_terminal_says_what_matters_and_the_log_file_says_all(train, capsys):
    run = train("fit")
    assert train("test", "--run", str(run.folder)).code == 0
    shown = capsys.readouterr().err
    assert "epoch 1/1" in shown and "checkpoint: " in shown
    for noise in ("TPU", "srun", "💡", "Loading `train_dataloader`", "Restoring states", "Loaded model weights"):
        assert noise not in shown
    assert "Loading `train_dataloader`" in (run.folder / "logs" / "rank-0.log").read_text()
