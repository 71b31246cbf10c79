"""LightningModules as people paste them (pasted_modules.py) are trained, killed, resumed and tested, unchanged."""

import csv
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LENGTH = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2",
          "--trainer.log_every_n_steps=1", "--checkpoints.every_n_steps=2")  # fmt: skip

# Differs between two runs that are equal.
MEASURED = ("seconds", "time/", "memory/", "usage/")


@dataclass(frozen=True)
class Way:
    """How one of the modules is used.

    Attributes:
        settings: what its user types, beside --model.
        monitor: the metric that decides about the best checkpoint; None: none does.
        can_test: False if it has no test_step.
        kills: optimizer steps of the first two attempts, after which they are killed.
    """

    settings: tuple[str, ...] = ()
    monitor: str | None = "val_loss"
    can_test: bool = True
    kills: tuple[int, int] = (3, 3)


TWICE = ("--trainer.limit_train_batches=8",)  # since every second batch makes no step
CONTRASTIVE = ("--data=pasted_modules.ContrastiveDigits",)
WAYS = {
    "LitMNIST": Way(("--model.learning_rate=0.01",)),
    "LitAutoEncoder": Way(("--model.lr=0.01",), None, can_test=False),
    "GAN": Way((), None, can_test=False),
    "WGANGP": Way((), None, can_test=False),
    "VAE": Way((), "valid/loss"),
    "SkipsSteps": Way(TWICE, "validation_loss"),
    "SimCLR": Way((*CONTRASTIVE, "--model.max_epochs=2")),
    "MoCo": Way(CONTRASTIVE, None, can_test=False),
    "MeanTeacher": Way(("--model.network=MLP",), "val/loss"),
    "TruncatedRNN": Way(),
    "FineTuner": Way(),
    "ManyLoaders": Way(("--data=pasted_modules.TwoValidationSets",), "val_loss/dataloader_idx_0"),
    "Collections": Way(),
    "LBFGSRegression": Way(("--checkpoints.monitor=val_ce_loss",), "val_ce_loss"),
    "AsksTheTrainer": Way((), "eval/loss"),
    "OwnClipping": Way((), "loss/val"),
    "KeepsState": Way(),
    "Plateau": Way((), "valid_loss"),
    "OldConfig": Way((), "val/loss_epoch"),
    "OwnCallbacks": Way(),
    "ManualAccumulation": Way(TWICE, "val/loss"),
    "Distillation": Way(("--model.student=MLP", "--model.student.classes=10", "--model.student.input_shape=[64]"),
                        "val/loss"),
    "WandbStyle": Way((), "val/loss"),
    "DDPM": Way(("--checkpoints.monitor=val/simple_loss",), "val/simple_loss"),
    "OwnLoaders": Way(),
    "LitMNIST and EarlyStopping": Way(("--config=experiments/early_stopping.yaml", "--trainer.max_epochs=4")),
    "Transfer": Way(("--trainer.callbacks+=BackboneFinetuning", "--trainer.callbacks.unfreeze_backbone_at_epoch=1",
                     "--trainer.max_epochs=4"), kills=(7, 4)),
    "LitMNIST and LearningRateFinder": Way((
        "--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=8",
        "--trainer.callbacks.early_stop_threshold=null",
        "--trainer.callbacks.attr_name=learning_rate"), kills=(11, 3)),
    "LitMNIST and BatchSizeFinder": Way((
        "--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.mode=power", "--trainer.callbacks.max_trials=1",
        "--trainer.callbacks.steps_per_trial=1", "--trainer.callbacks.init_val=8"), kills=(4, 3)),
}  # fmt: skip


# Each of these has something of its own to lose. All of them need minutes.
FIRST = (
    "LitMNIST", "GAN", "VAE", "MoCo", "TruncatedRNN", "FineTuner", "ManyLoaders", "KeepsState", "ManualAccumulation",
    "OwnLoaders", "Transfer", "LitMNIST and EarlyStopping", "LitMNIST and BatchSizeFinder",
)  # fmt: skip


@pytest.fixture
def started(train):
    """Runs `fit` in a process of its own, a fork, that gets a signal right after its N-th optimizer step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def start(arguments, number, steps):
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        code, done = 1, 0
        try:

            def count(*_):
                nonlocal done
                done += 1
                if done == steps:
                    os.kill(os.getpid(), number)

            register_optimizer_step_post_hook(count)
            code = train("fit", *arguments).code
        finally:
            os._exit(code)

    return start


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in WAYS]
)
def test_a_pasted_module_is_trained_killed_resumed_and_tested(train, started, name, tmp_path, capfd):
    way = WAYS[name]
    name = name.split()[0]
    arguments = (f"--model=pasted_modules.{name}", *LENGTH, *way.settings, "--trainer.logger=false")
    whole = train("fit", *arguments)
    assert whole.code == 0 and whole.status["state"] == "done"
    kept = shutil.move(whole.folder, tmp_path / "whole")

    assert started(arguments, signal.SIGKILL, way.kills[0]) == -signal.SIGKILL
    assert started(arguments, signal.SIGTERM, way.kills[1]) == 75
    run = train("fit", *arguments)
    assert run.code == 0 and run.folder == whole.folder and run.status["attempt"] == 3
    assert differences(kept, run.folder) == []

    best = json.loads((run.folder / "checkpoints" / "meta.json").read_text())["best"]
    assert (best and best["monitor"]) == way.monitor
    said = "".join(capfd.readouterr())
    assert ("test it" in said) == way.can_test
    tested = train("test", "--run", str(run.folder))
    errors = capfd.readouterr().err
    if way.can_test:
        assert tested.code == 0 and (run.folder / "test.json").exists()
    else:
        assert tested.code == 2 and f"error: {name} has no test_step" in errors and "Traceback" not in errors


def test_what_does_not_resume_exactly_is_named_at_the_start(train):
    with pytest.warns(UserWarning, match="ModelPruning does not resume exactly: Lightning's checkpoints have no masks"):
        train("fit", "--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn=l1_unstructured")


def test_one_cycle_is_as_long_as_the_run(train):
    schedule = ("--model.lr_scheduler=OneCycleLR", "--model.lr_scheduler.max_lr=0.01", "--trainer.max_epochs=2")
    run = train("fit", *schedule, "--trainer.log_every_n_steps=1", "--trainer.callbacks+=LearningRateMonitor")
    assert run.code == 0 and run.checkpoint()["lr_schedulers"][0]["total_steps"] == 4


def test_average_of_a_module_with_other_names(train):
    run = train("fit", "--config=experiments/ema.yaml", "--model=pasted_modules.Plateau", "--trainer.logger=false")
    assert run.code == 0 and run.status["monitor"] == "valid_ema_loss" and run.column("valid_ema_loss")


def differences(one, other):
    """Where two runs differ, to the bit."""
    import torch
    from same import unequal

    found = []
    for name in ("last.ckpt", "best.ckpt"):
        files = [folder / "checkpoints" / name for folder in (one, other)]
        if files[0].exists() != files[1].exists():
            found.append(f"{name} is missing")
        elif files[0].exists():
            found += unequal(*(torch.load(file, weights_only=True) for file in files), name)

    tables = []
    for folder in (one, other):
        with (folder / "metrics.csv").open(newline="") as file:
            rows = [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in csv.DictReader(file)]
        tables.append(rows)
    found += unequal(*tables, "metrics.csv")
    return found
