"""The commands of Train.py, from the settings to the files they leave."""

import csv
import json

import pytest
import torch
import yaml


def test_fit_leaves_a_complete_run_folder(train):
    run = train("fit", "--name", "first", "--data.batch_size", "32")
    assert run.code == 0
    assert run.folder.parent.name == "first" and "batch_size=32" in run.folder.name
    assert run.status["state"] == "done" and run.status["attempt"] == 1
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 32
    assert config["model"]["init_args"]["network"]["init_args"]["classes"] == 10  # filled in from the data
    assert yaml.safe_load((run.folder / "overlay.yaml").read_text())["data.batch_size"] == 32
    with (run.folder / "metrics.csv").open() as file:
        accuracies = [float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"]]
    assert len(accuracies) == 2  # one validation an epoch
    for name in ("last.ckpt", "best.ckpt", "meta.json"):
        assert (run.folder / "checkpoints" / name).is_file()
    assert (run.folder / "logs" / "rank-0.log").read_text()


def test_the_same_command_again_says_that_the_run_is_done(train, capsys):
    train("fit")
    again = train("fit")
    assert again.code == 0 and again.status["attempt"] == 1
    assert "done already" in capsys.readouterr().out


def test_evaluation_uses_the_best_checkpoint(train):
    train("fit")
    run = train("test")
    assert run.code == 0
    record = json.loads((run.folder / "test.json").read_text())
    best = json.loads((run.folder / "checkpoints" / "meta.json").read_text())["best"]
    assert record["checkpoint"] == "checkpoints/best.ckpt" and record["step"] == best["step"]
    assert 0 <= record["test/acc"] <= 1
    assert train("validate", "--run", str(run.folder)).code == 0
    validated = json.loads((run.folder / "validate.json").read_text())
    assert validated["val/loss"] == pytest.approx(best["value"], rel=1e-5)


def test_predict_saves_probabilities(train):
    train("fit")
    run = train("predict")
    saved = torch.load(run.folder / "predictions.pt", weights_only=True)
    assert saved["prediction"].shape == (360, 10) and len(saved["index"]) == len(saved["target"]) == 360
    torch.testing.assert_close(saved["prediction"].sum(dim=1), torch.ones(360))


def test_a_trial_is_a_repetition_with_its_own_seed_and_folder(train):
    first, second = train("fit"), train("fit", "--trial", "1")
    assert second.folder.name.startswith("001-") and second.folder != first.folder
    weights = [torch.load(r.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (first, second)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.labl_smoothing", "0.1"], "did you mean model.label_smoothing"),
        (["--trainer.max_epoch", "3"], "did you mean trainer.max_epochs"),
        (["--data.batch_size", "many"], "data.batch_size: expected int, got many"),
        (["--model.optimizer", "SDG"], "did you mean SGD"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(train, capsys, arguments, message):
    run = train("fit", *arguments)
    assert run.code == 2 and run.folder is None
    first_line = capsys.readouterr().err.splitlines()[0]
    assert first_line.startswith("error: ") and message in first_line


@pytest.mark.parametrize("overlay", ["sgd", "ema", "early_stopping"])
def test_the_overlays_train(train, overlay):
    assert train("fit", "--config", f"experiments/{overlay}.yaml").status["state"] == "done"
