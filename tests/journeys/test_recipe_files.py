"""The recipes of docs/recipes: each is copied into a project's package, as a reader does, and its commands are run."""

import ast
import csv
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
NAMES = sorted(file.stem for file in RECIPES.glob("*.py"))

# Recipe → what its first command must reach: a metric, and the least and the largest value.
REACHED = {
    "contrastive": ("val/match", 0.5, 1),
    "fine_tuning": ("val/acc", 0.8, 1),
    "gan": ("val/loss", 0, 0.3),
    "imbalance": ("val/balanced_acc", 0.7, 1),
    "look": ("val/acc", 0.9, 1),
    "multi_label": ("val/f1", 0.6, 1),
    "own_metric": ("val/brier", 0, 0.2),
    "pictures": ("val/acc", 0.7, 1),
    "regression": ("val/r2", 0.2, 1),
    "segmentation": ("val/iou", 0.8, 1),
    "texts": ("val/acc", 0.9, 1),
}

HERE = "--data.data_dir=data"  # the project is everybody's, the folder of the test is not

# These have learnt enough after half of the epochs.
HALF = {"fine_tuning", "imbalance", "look", "own_metric", "pictures"}


@pytest.fixture
def copied(project):
    """Copies a recipe into the project's package; afterwards it is gone, for the tests that follow."""
    from lightning_hpc.settings import classes

    package = project / "my_research_project"
    names = []

    def copy(name: str) -> None:
        shutil.copy(RECIPES / f"{name}.py", package / f"{name}.py")
        names.append(name)
        classes.search.cache_clear()

    yield copy
    for name in names:
        (package / f"{name}.py").unlink()
        sys.modules.pop(f"my_research_project.{name}", None)
    classes.search.cache_clear()


def commands(name: str) -> list[list[str]]:
    """The commands in a recipe's docstring, without what is said beside them."""
    text = ast.get_docstring(ast.parse((RECIPES / f"{name}.py").read_text()))
    lines = [line.strip() for line in text.splitlines() if line.startswith("    python Train.py ")]
    return [shlex.split(line.partition("   ")[0])[2:] for line in lines]


def newest(folder: Path) -> Path:
    """The run that was started last."""
    runs = folder.glob("runs/*/*/status.json")
    return max(runs, key=lambda file: json.loads(file.read_text())["started"]).parent


def filled_in(words: list[str], folder: Path) -> list[str]:
    """A command with the newest run and a folder in the place of RUN and FOLDER."""
    if not any("RUN" in word or word == "FOLDER" for word in words):
        return words
    run = newest(folder)
    named = {"RUN": str(run), "FOLDER": "new_pictures"}
    return [named.get(word, word.replace("RUN", run.name)) for word in words]


def test_each_recipe_is_on_the_page_and_says_what_it_must_reach():
    page = (RECIPES.parent / "recipes.md").read_text()
    assert all(f"```{{literalinclude}} recipes/{name}.py" in page for name in NAMES)
    assert sorted(REACHED) == NAMES
    assert all(commands(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_recipe(name, copied, train, tmp_path):
    """The first one trains to its end and learns; the others run, in less time."""
    copied(name)
    metric, least, largest = REACHED[name]
    for number, words in enumerate(commands(name)):
        if "birds" in " ".join(words) or "new_pictures" in filled_in(words, tmp_path):
            prepare_pictures(tmp_path)
        command, *arguments = filled_in(words, tmp_path)
        length = [] if "--run" in arguments else [HERE]
        if name in HALF:
            length.append("--trainer.max_epochs=5")
        learns = command == "fit" and (number == 0 or name == "fine_tuning")
        if command == "fit" and not learns:
            length = [HERE, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
            length.append("--trainer.limit_val_batches=2")
        run = train(command, *arguments, *length, defaults=True)
        assert run.code == 0, words
        if learns:
            reached = max(run.column(metric)) if least else min(run.column(metric))
            assert least <= reached <= largest, f"{metric} is {reached}"
    if name == "pictures":
        check_predictions(newest(tmp_path))
    if name == "look":
        check_pictures_and_histograms(tmp_path)


def prepare_pictures(folder: Path) -> None:
    """What the reader has: folders of pictures, a table of pictures, and new ones; here those of the first command."""
    (data,) = folder.glob("data/example_pictures")
    files = sorted(data.rglob("*.png"))
    if not (folder / "data" / "birds").exists():
        for file in files:
            copy = folder / "data" / "birds" / f"bird-{file.parent.name}" / "deeper" / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        with (folder / "data" / "birds.csv").open("w", newline="") as table:
            rows = [(file.relative_to(folder / "data"), f"bird {file.parent.name}") for file in files]
            csv.writer(table).writerows([("file", "label"), *rows])

    (folder / "new_pictures").mkdir(exist_ok=True)
    for file in files[:7]:
        shutil.copy(file, folder / "new_pictures" / f"new {file.name}")


def check_predictions(run: Path) -> None:
    """A table says of each file what the model says of it; the predictions for the test set are others."""
    with (run / "predictions-new_pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and "target" not in rows[0]
    assert [Path(row["file"]).name for row in rows] == sorted(Path(row["file"]).name for row in rows)
    assert all(row["file"].startswith("new_pictures/new ") for row in rows)
    assert sum(float(rows[0][f"prediction_{number}"]) for number in range(10)) == pytest.approx(1, abs=1e-4)
    assert not (run / "predictions.csv").exists()


def check_pictures_and_histograms(folder: Path) -> None:
    """The run's folder has pictures; TensorBoard has them, too, and histograms of the weights."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert list(folder.glob("runs/*/*/look/epoch-005.png"))
    (events,) = folder.rglob("events.out.tfevents.*")
    kept = EventAccumulator(str(events))
    kept.Reload()
    assert kept.Tags()["images"] == ["look/wrong"]
    assert "weights/network.head.2.weight" in kept.Tags()["histograms"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gan", ["--model=GAN", "--trainer.gradient_clip_val=null"]),
        ("texts", ["--data=Reviews", "--model.network=Reader"]),
        ("imbalance", ["--data=RareDigits", "--data.balanced=true", "--model=WeightedClassifier"]),
        ("fine_tuning", ["--model=FineTuner", "--model.frozen_epochs=1"]),
        ("contrastive", ["--data=TwoViews", "--model=Contrastive"]),
        ("pictures", ["--data=ExamplePictures"]),
    ],
)
def test_a_recipe_that_is_killed_ends_as_if_it_had_not_been(name, arguments, copied, train, monkeypatch):
    copied(name)
    quick = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=6", "--checkpoints.every_n_steps=4", HERE]
    whole = train("fit", *arguments, *quick, "--name=whole")
    assert whole.code == 0

    # The ninth batch of twelve, in the second epoch: after a checkpoint, and not at one.
    child = os.fork()
    if child == 0:
        kill_at_batch(9)
        train("fit", *arguments, *quick, "--name=killed")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL

    again = train("fit", *arguments, *quick, "--name=killed")
    assert again.code == 0 and again.folder.parent.name == "killed" and again.status["attempt"] == 2
    ours, theirs = again.checkpoint(), whole.checkpoint()
    assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())
    timeless = [key for key in whole.rows[0] if not key.startswith(("seconds", "time/", "memory/", "usage/"))]
    assert [{key: row[key] for key in timeless} for row in again.rows] == [
        {key: row[key] for key in timeless} for row in whole.rows
    ]


def kill_at_batch(number: int) -> None:
    """Let this process be killed at the start of a training batch."""
    from lightning_hpc.survive.checkpoints import Checkpoints

    start = Checkpoints.on_train_batch_start

    def at_some_batch(self, trainer, *batch):
        if trainer.fit_loop.total_batch_idx == number:
            os.kill(os.getpid(), signal.SIGKILL)
        start(self, trainer, *batch)

    Checkpoints.on_train_batch_start = at_some_batch


def test_class_weights_and_drawn_classes_are_what_they_say(copied, train):
    copied("imbalance")
    run = train("fit", "--data=RareDigits", "--model=WeightedClassifier")
    weights = run.checkpoint()["state_dict"]["weights"]
    assert (weights[5:] > 5 * weights[:5].mean()).all()

    from my_research_project.imbalance import RareDigits

    data = RareDigits(balanced=True)
    data.setup("fit")
    drawn = torch.cat([targets for _, targets in data.train_dataloader()]).bincount(minlength=10)
    assert drawn.min() > 0.4 * drawn.float().mean()


def test_the_brier_score_is_that_of_its_definition(copied, project):
    copied("own_metric")
    from my_research_project.own_metric import BrierScore

    score = BrierScore()
    score.update(torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0, 0]))
    score.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert float(score.compute()) == pytest.approx((0.04 + 0.04 + 0.36 + 0.36 + 0) / 3)


def test_predicting_a_folder_needs_a_folder_and_data_that_can_read_one(train, copied, tmp_path, capsys):
    copied("pictures")
    run = train("fit")
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "nowhere is no folder"), ("empty", "Digits has no method load_folder")):
        assert train("predict", "--run", str(run.folder), f"--data.predict_dir={folder}").code == 2
        assert f"error: data.predict_dir: {message}" in capsys.readouterr().err

    # What was trained on need not be there any more, and a folder without pictures is said to have none.
    run = train("fit", "--data=ExamplePictures", HERE)
    shutil.rmtree(tmp_path / "data" / "example_pictures")
    (tmp_path / "data" / "example_pictures").mkdir()
    assert train("predict", "--run", str(run.folder), "--data.predict_dir=empty").code == 2
    assert "there is no sample to predict" in capsys.readouterr().err
