"""The command line: jsonargparse's traps are avoided, what is asked for is done, and a mistake is one clear line."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


@pytest.fixture
def settings(project, tmp_path, monkeypatch):
    """Parses a command line as Train.py does and returns all its settings, without running anything."""
    from lightning_hpc.runs.run import read_command_line
    from lightning_hpc.settings.parser import CLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def parse(*arguments, command="fit"):
        run = read_command_line(command, list(arguments), project)
        return CLI(run.command, run.settings).resolved

    return parse


@pytest.fixture
def mistake(project, tmp_path, monkeypatch, capsys):
    """Runs a wrong command line; returns its error, which must be one line, and must leave nothing behind."""
    from lightning_hpc.entrance import train as main

    monkeypatch.chdir(tmp_path)

    def run(*arguments, command="fit"):
        before = sorted(tmp_path.rglob("*"))
        assert main([command, *arguments], root=project) == 2
        assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.name != "runs"] == []
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    return run


def overlay(name, text):
    Path(name).write_text(text)
    return f"--config={name}"


def optimizer(settings):
    chosen = settings["model"]["init_args"]["optimizer"]
    return chosen["class_path"], chosen["init_args"]


# --- where things are

DATA_ELSEWHERE = """
from pathlib import Path

from lightning.pytorch import LightningDataModule

from my_research_project.data import Digits

class Texts(LightningDataModule):
    classes, input_shape = 10, [1, 8, 8]

    def __init__(self, data_dir: str = "sets"):
        super().__init__()
        self.data_dir = data_dir
        self.prepared = None

class Paths(Texts):
    def __init__(self, data_dir: Path = Path("sets")):
        super().__init__(data_dir)

class Writes(Digits):
    def prepare_data(self):
        self.data_dir.mkdir(exist_ok=True)
        (self.data_dir / "file").touch()
"""


def test_data_are_in_the_projects_folder_and_a_typed_folder_is_where_it_was_typed(project, tmp_path, monkeypatch):
    """Of our DataModule and of any other that has data_dir; `resolved` is what config.yaml has."""
    from lightning_hpc.entrance import train as main
    from lightning_hpc.runs.run import read_command_line
    from lightning_hpc.settings.parser import CLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("data_elsewhere.py").write_text(DATA_ELSEWHERE)

    def folders(*arguments):
        cli = CLI("fit", read_command_line("fit", list(arguments), project).settings)
        return cli.datamodule.data_dir, cli.resolved["data"]["init_args"]["data_dir"]

    assert folders() == (project / "data", "data")
    assert folders("--data.data_dir=mine") == (Path("mine"), str(tmp_path / "mine"))
    assert folders(overlay("sets.yaml", "data.data_dir: a/b")) == (project / "a/b", "a/b")
    assert folders("--data=data_elsewhere.Texts") == (str(project / "sets"), "sets")
    assert folders("--data=data_elsewhere.Paths") == (project / "sets", "sets")
    assert main(["fetch", "--data=data_elsewhere.Writes", "--data.data_dir=fetched"], root=project) == 0
    assert Path("fetched", "file").exists()


# --- what is asked for is what is done


SGD_NESTED = "model:\n  optimizer:\n    class_path: torch.optim.SGD\n    init_args: {lr: 0.5}\n"
SGD_FULL = "model:\n  init_args:\n    optimizer:\n      class_path: torch.optim.SGD\n      init_args: {lr: 0.5}\n"
SGD_DOTTED = "model.optimizer: torch.optim.SGD\nmodel.optimizer.lr: 0.5\n"


@pytest.mark.parametrize(
    "choose",
    [
        lambda: [overlay("sgd.yaml", SGD_NESTED)],
        lambda: [overlay("sgd.yaml", SGD_FULL)],
        lambda: [overlay("sgd.yaml", SGD_DOTTED)],
        lambda: ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5"],
        lambda: ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.5"],
        lambda: ["--model.optimizer.lr=0.5", overlay("sgd.yaml", "model.optimizer: torch.optim.SGD\n")],
        lambda: ["--model.optimizer", "{class_path: SGD, init_args: {lr: 0.5}}"],
    ],
    ids=["nested file", "file with init_args", "dotted file", "command line", "short name", "both", "as YAML"],
)
def test_an_optimizer_inherits_nothing_from_the_one_in_the_base(settings, choose):
    name, values = optimizer(settings(*choose()))
    assert name == "torch.optim.SGD"
    assert (values["lr"], values["weight_decay"], values["momentum"]) == (0.5, 0, 0)  # torch's own defaults
    assert "betas" not in values and "eps" not in values


def test_an_optimizer_inherits_nothing_from_the_one_in_an_overlay(settings):
    sgd = overlay("sgd.yaml", SGD_NESTED.replace("lr: 0.5", "lr: 0.5, momentum: 0.9, weight_decay: 0.1"))
    name, values = optimizer(settings(sgd, "--model.optimizer=Adam"))
    assert (name, values["weight_decay"], values["lr"]) == ("torch.optim.Adam", 0, 0.001)
    name, values = optimizer(settings(sgd, "--model.optimizer.momentum=0.5"))
    assert (name, values["weight_decay"], values["momentum"]) == ("torch.optim.SGD", 0.1, 0.5)


def test_the_optimizer_that_trains_is_the_one_that_was_asked_for(train):
    run = train("fit", "--model.optimizer=SGD", "--model.optimizer.lr=0.5", "--model.lr_scheduler=null")
    (group,) = run.checkpoint()["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.5, 0, 0) and "betas" not in group


def test_a_schedule_inherits_nothing_and_null_means_none(settings):
    model = settings("--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=5")["model"]["init_args"]
    assert model["lr_scheduler"]["class_path"] == "torch.optim.lr_scheduler.StepLR"
    assert "warmup" not in model["lr_scheduler"]["init_args"]
    for null in (["--model.lr_scheduler=null"], [overlay("flat.yaml", "model: {lr_scheduler: null}\n")]):
        assert settings(*null)["model"]["init_args"]["lr_scheduler"] is None


def test_overlays_are_laid_over_the_base_in_order_and_the_command_line_over_all(settings):
    first = overlay("first.yaml", "data: {batch_size: 1, num_workers: 1}\nmodel: {label_smoothing: 0.1}\n")
    second = overlay("second.yaml", "data.batch_size: 2\nmodel: {init_args: {label_smoothing: 0.2}}\n")
    found = settings(first, second, "--model.label_smoothing=0.3")
    data = found["data"]["init_args"]
    assert (data["batch_size"], data["num_workers"]) == (2, 1)
    assert found["model"]["init_args"]["label_smoothing"] == 0.3


@pytest.mark.parametrize(
    "file", ["trainer/debug.yaml", "configs/experiments/sgd.yaml", "experiments/early_stopping.yaml"]
)
def test_the_projects_own_overlays_are_found_by_short_names(settings, file):
    assert settings("--config", file) != settings()


def test_a_list_is_appended_to_with_a_plus_and_replaced_without(settings):
    callback = "{class_path: lightning.pytorch.callbacks.LearningRateMonitor}"
    names = [c["class_path"].rpartition(".")[2] for c in settings()["trainer"]["callbacks"]]
    more = settings(overlay("more.yaml", f"trainer:\n  callbacks+:\n  - {callback}\n"))["trainer"]["callbacks"]
    assert [c["class_path"].rpartition(".")[2] for c in more] == [*names, "LearningRateMonitor"]
    only = settings(overlay("only.yaml", f"trainer:\n  callbacks:\n  - {callback}\n"))["trainer"]["callbacks"]
    assert [c["class_path"].rpartition(".")[2] for c in only] == ["LearningRateMonitor"]
    typed = settings("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/acc")["trainer"][
        "callbacks"
    ]
    assert typed[-1]["init_args"]["monitor"] == "val/acc" and len(typed) == len(names) + 1


def test_numbers_are_numbers_in_files_too(settings):
    found = settings(overlay("lr.yaml", "model: {optimizer: {lr: 1e-4}}\n"))
    assert optimizer(found)[1]["lr"] == 1e-4


def test_the_printed_settings_can_be_used_again(settings, project, capsys):
    from lightning_hpc.entrance import train as main

    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model.optimizer=SGD", "--trial=3", "--cka=null", "--print_config"], root=project)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    again = settings(overlay("printed.yaml", printed))
    assert again == settings("--model.optimizer=SGD", "--trial=3", "--cka=null")
    assert again["seed_everything"] == 3


def test_the_settings_of_a_run_can_be_used_again(train, settings):
    run = train("fit", "--data.batch_size=32")
    assert settings("--config", str(run.folder / "config.yaml")) == run.config
    again = train("fit", "--config", str(run.folder / "config.yaml"), "--trial=1", defaults=True)
    assert again.code == 0 and again.folder != run.folder
    assert (again.config["data"], again.config["seed_everything"]) == (run.config["data"], 1)


def test_overrides_are_said(train):
    run = train("fit", overlay("small.yaml", "data: {batch_size: 16}\n"), "--data.batch_size=8", "--name=x")
    log = (run.folder / "logs" / "rank-0.log").read_text()
    assert "data.batch_size = 8 (instead of 16 in small.yaml)" in log
    assert "name = x (instead of default in configs/base.yaml)" in log


# --- facts about the data


class Noise(LightningDataModule):
    """Random images of three classes in two channels; no batch_size, no num_workers."""

    classes, input_shape = 3, (2, 8, 8)

    def __init__(self, samples: int = 12) -> None:
        super().__init__()
        self.samples = samples

    def train_dataloader(self):
        images, targets = torch.randn(self.samples, *self.input_shape), torch.arange(self.samples) % self.classes
        return DataLoader(TensorDataset(images, targets), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


class Unknowing(LightningDataModule):
    """A DataModule that does not say how many classes it has."""


def test_the_data_decides_the_shape_of_network_and_metric(train):
    run = train("fit", f"--data={__name__}.Noise", "--data.samples=8")
    assert run.code == 0 and run.config["data"] == {"class_path": f"{__name__}.Noise", "init_args": {"samples": 8}}
    model = run.config["model"]["init_args"]
    assert model["classes"] == model["network"]["init_args"]["classes"] == 3
    assert model["network"]["init_args"]["input_shape"] == [2, 8, 8]
    weights = run.checkpoint()["state_dict"]
    assert weights["network.block1.0.weight"].shape[1] == 2 and weights["network.head.2.weight"].shape[0] == 3


def test_other_names_for_the_same_facts_are_filled_in_and_set_ones_stay(settings):
    Path("my_networks.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes: int, in_chans: int = 3, in_channels: int = 3, depth: int = 1):\n"
        "        super().__init__()\n"
    )
    network = settings("--model.network=my_networks.Net", "--model.network.in_channels=7")
    assert network["model"]["init_args"]["network"]["init_args"] == dict(
        num_classes=10, in_chans=1, in_channels=7, depth=1
    )


def test_facts_that_the_data_does_not_know_have_to_be_set(mistake, settings):
    data = f"--data={__name__}.Unknowing"
    line = mistake(data)
    assert "there is no default" in line and "classes" in line
    shape = ["--model.network.classes=2", "--model.network.input_shape=[1, 4, 4]"]
    assert settings(data, "--model.classes=2", *shape)["model"]["init_args"]["classes"] == 2


class Counted(Noise):
    """Counts how often it is made, and draws a random number then."""

    made: list[float] = []

    def __init__(self, samples: int = 12) -> None:
        super().__init__(samples)
        self.made.append(torch.rand(1).item())


def test_the_datamodule_is_made_once_and_does_not_touch_the_initial_weights(settings, project):
    from lightning_hpc.runs.run import read_command_line
    from lightning_hpc.settings.parser import CLI

    def made(*arguments):
        Counted.made.clear()
        run = read_command_line("fit", [f"--data={__name__}.Counted", "--cka=null", *arguments], project)
        cli = CLI(run.command, run.settings)
        cli.make_model()
        assert len(Counted.made) == 1 and cli.config_init.data is cli.datamodule
        assert cli.resolved["data"]["class_path"] == f"{__name__}.Counted"
        return cli.model.state_dict()["network.head.2.weight"], Counted.made[0]

    weights, drawn = made("--data.samples=16", "--trial=1")
    again, drawn_again = made("--data.samples=16", "--trial=1")  # what the data knows is known already
    assert torch.equal(weights, again) and drawn == drawn_again
    other, _ = made("--data.samples=17", "--trial=2", "--init_seed=1")
    assert torch.equal(weights, other)
    other, drawn_other = made("--data.samples=16", "--trial=2")
    assert not torch.equal(weights, other) and drawn != drawn_other


MODEL = """
from my_research_project.model import Classifier

class Mine(Classifier):
    def __init__(self, *args, temperature: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.save_hyperparameters("temperature", "label_smoothing")
        self.temperature = temperature

    def on_train_epoch_end(self):
        super().on_train_epoch_end()
        self.log("used/label_smoothing", self.label_smoothing)
        self.log("used/temperature", self.temperature)
"""


def test_keys_are_short_whichever_class_is_chosen(settings):
    Path("my_model.py").write_text(MODEL)
    found = settings(
        "--model=my_model.Mine", "--model.temperature=2", "--model.label_smoothing=0.1",
        "--model.network=my_research_project.networks.MLP",
        "--model.network.hidden=[8, 8]", "--model.optimizer.lr=0.5", "--data.batch_size=16",
    )  # fmt: skip
    model = found["model"]["init_args"]
    assert found["model"]["class_path"] == "my_model.Mine"
    assert (model["temperature"], model["label_smoothing"]) == (2.0, 0.1)
    assert model["network"]["init_args"]["hidden"] == [8, 8] and "width" not in model["network"]["init_args"]
    assert model["optimizer"]["init_args"]["lr"] == 0.5
    assert model["optimizer"]["init_args"]["weight_decay"] == 0.01  # the class of the model has changed, not AdamW


def test_a_checkpoint_changes_no_settings(train):
    Path("my_saving_model.py").write_text(MODEL)
    model = ("--model=my_saving_model.Mine", "--trainer.limit_train_batches=3")
    first = train("fit", *model, "--model.temperature=5", "--model.label_smoothing=0.3", "--name=first")
    assert first.checkpoint()["hyper_parameters"]["temperature"] == 5
    second = train(
        "fit", *model, "--model.label_smoothing=0.1", "--name=second", "--trainer.max_epochs=2",
        f"--resume={first.folder}/checkpoints/last.ckpt",
    )  # fmt: skip
    assert second.code == 0 and second.checkpoint()["global_step"] == 6
    assert second.config["model"]["init_args"]["label_smoothing"] == 0.1
    assert second.column("used/label_smoothing")[-1] == pytest.approx(0.1)
    assert second.column("used/temperature")[-1] == 1


# --- names of classes


def test_the_settings_hold_public_class_paths(settings, project):
    from lightning_hpc.runs.run import read_command_line

    found = settings()
    assert found["model"]["init_args"]["lr_scheduler"]["class_path"] == "lightning_hpc.training.WarmupCosine"
    assert found["cka"]["class_path"] == "lightning_hpc.cka.CKACallback"
    assert found["trainer"]["callbacks"][0]["class_path"] == "lightning_hpc.training.StopOnDivergence"
    assert found["trainer"]["logger"][0]["class_path"] == "lightning_hpc.trackers.WandB"

    names = ["WarmupCosine", "lightning_hpc.training.WarmupCosine"]
    lines = [[], *([f"--model.lr_scheduler={name}"] for name in names)]
    assert len({read_command_line("fit", line, project).identity for line in lines}) == 1
    assert all(settings(*line) == found for line in lines)


@pytest.mark.parametrize("file", ["my_research_project/more/blocks.py", "beside.py"])
def test_any_file_of_the_users_may_have_the_class(settings, project, file):
    from lightning_hpc.settings.classes import search

    path = project / file
    path.parent.mkdir(exist_ok=True)
    name = f"Deep{path.stem.title()}"
    path.write_text(
        "from torch import nn\n"
        f"class {name}(nn.Module):\n"
        "    def __init__(self, depth: int = 2, activation: str = 'ReLU'):\n"
        "        super().__init__()\n"
    )
    search.cache_clear()
    importlib.invalidate_caches()  # Python lists a folder once, and this one has a new folder
    try:
        line = [f"--model.network={name}", "--model.network.depth=3", f"--model.network.activation={name}"]
        network = settings(*line)["model"]["init_args"]["network"]
    finally:
        path.unlink()
    assert network["class_path"] == file.removesuffix(".py").replace("/", ".") + f".{name}"
    assert network["init_args"] == {"depth": 3, "activation": name}  # a text stays a text


def test_a_config_of_an_earlier_version_is_understood(settings, capsys):
    old = "my_research_project.training.schedules.WarmupCosine"
    assert settings(overlay("old.yaml", f"model: {{lr_scheduler: {{class_path: {old}}}}}\n")) == settings()
    assert f"note: {old} is called lightning_hpc.training.WarmupCosine now" in capsys.readouterr().err


# --- questions


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--help"],
            ["usage: Train.py fit", "--trainer.max_epochs", "--checkpoints.every_n_steps", "--total_batch_size"],
        ),
        (["--model.network.help", "ConvNet"], ["--network.width"]),
        (["--data.help=Digits"], ["--data.help", "batch_size"]),
        (["--trainer.callbacks.help", "EarlyStopping"], ["patience"]),
        (["--print_config", "--data.batch_size=7"], ["batch_size: 7", "class_path: lightning_hpc.cka.CKACallback"]),
    ],
)
def test_questions_are_answered_by_the_parser(project, arguments, words, capsys):
    from lightning_hpc.training.commands import main

    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments], root=project)
    assert ended.value.code == 0
    answer = capsys.readouterr().out
    for word in words:
        assert word in answer


def test_what_is_typed_for_a_text_stays_text(settings):
    assert settings("--codeversion=1.10")["codeversion"] == "1.10"
    assert settings("--codeversion=null")["codeversion"] is None
    assert settings("--codeversion", "1e3")["codeversion"] == "1e3"


# --- started again


def test_a_second_start_in_the_same_folder_does_not_abort(train, capsys):
    first = train("fit")
    status = first.status
    again = train("fit")
    assert again.code == 0 and again.folder == first.folder and again.status == status
    assert "done already" in capsys.readouterr().out
    fresh = train("fit", "--resume=never")
    assert fresh.code == 0 and fresh.folder == first.folder and fresh.status["attempt"] == 1
    assert len(list(first.folder.parent.glob(".old/*/status.json"))) == 1


def test_a_failed_run_is_started_again_in_its_folder(train):
    Path("my_callback.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "class Fail(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        if Path('fail').exists():\n"
        "            raise RuntimeError('the first attempt fails')\n"
    )
    Path("fail").touch()
    failed = train("fit", "--trainer.callbacks+=my_callback.Fail")
    assert failed.code == 1 and failed.status["reason"] == "RuntimeError: the first attempt fails"
    Path("fail").unlink()
    again = train("fit", "--trainer.callbacks+=my_callback.Fail")
    assert again.code == 0 and again.folder == failed.folder
    assert (again.status["state"], again.status["attempt"]) == ("done", 2)


# --- mistakes


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--trainer.max_epoch=3"], "unknown setting --trainer.max_epoch: Train.py has no such setting"),
        (["--nam=x"], "unknown setting --nam: Train.py has no such setting (did you mean name"),
        (["--dat.batch_size=3"], "unknown setting --dat.batch_size: Train.py has no such setting"),
        (["--data.batch=3"], "unknown setting --data.batch: my_research_project.data.Digits has no such setting"),
    ],
)
def test_abbreviations_are_refused(mistake, arguments, message):
    assert mistake(*arguments).startswith(message)


MISTAKES = {
    "trainer.max_epoch": ("3", "did you mean trainer.max_epochs"),
    "model.network.widht": ("3", "did you mean model.network.width?"),
    "cka.referense": ("init", "did you mean cka.reference"),
    "checkpoints.mode": ("mni", "expected min or max, got mni (did you mean min?)"),
    "data.batch_size": ("many", "expected int, got many"),
    "model.label_smoothing": ("much", "expected float, got much"),
    "model.optimizer.lr": ("fast", "got fast"),
    "model.optimizer": ("SDG", "there is no class SDG (did you mean SGD"),
    "model.network": ("torch.optim.SGD", "torch.optim.SGD is no Module"),
    "model": ("my_research_project.model.Clasifier", "(did you mean Classifier"),
    "data": ("my_research_project.dta.Digits", "there is no module my_research_project.dta"),
    "model.lr_scheduler": ("StepLR", "set --model.lr_scheduler.step_size, there is no default"),
    "trainer.logger": ("CSVLogger", "CSVLogger lacks save_dir: set --trainer.logger.save_dir, there is no default"),
    "trainer.callbacks": ("7", "expected a list of Callback or Callback, got 7"),
    "trainer.gradient_clip_val": ("inf", "expected float or int, got inf (did you mean .inf?)"),
}


@pytest.mark.parametrize("key", MISTAKES)
def test_mistakes_on_the_command_line_say_what_was_probably_meant(mistake, key):
    value, message = MISTAKES[key]
    line = mistake(f"--{key}={value}")
    assert f"--{key}: " in line and message in line


@pytest.mark.parametrize("key", MISTAKES)
def test_mistakes_in_an_overlay_name_the_file(mistake, key):
    value, message = MISTAKES[key]
    line = mistake(overlay("mine.yaml", f"{key}: {value}\n"))
    assert f"`{key}` in mine.yaml: " in line and message in line


def test_what_was_asked_for_never_vanishes(mistake, settings):
    """Defaults of configs/base.yaml lapse with their class; what a file or the command line says is an error."""
    Path("my_lit.py").write_text(
        "from lightning.pytorch import LightningModule\n"
        "class LitModel(LightningModule):\n"
        "    def __init__(self, width: int = 8):\n"
        "        super().__init__()\n"
    )
    assert settings("--model=my_lit.LitModel")["model"]["init_args"] == {"width": 8}
    line = mistake("--config", "experiments/sgd.yaml", "--model", "my_lit.LitModel")
    assert line.startswith(
        "unknown setting `model.optimizer` in configs/experiments/sgd.yaml: my_lit.LitModel has no such"
    )
    wide = overlay("wide.yaml", "model.network.width: 64\n")
    line = mistake(wide, "--model.network=MLP")
    assert line.startswith(
        "unknown setting `model.network.width` in wide.yaml: my_research_project.networks.MLP has no"
    )


def test_folds_of_data_that_can_not_be_split(mistake):
    line = mistake("--data=lightning.pytorch.demos.boring_classes.BoringDataModule", "--data.mode=cross-validation")
    assert line.endswith(
        "has no such setting; what can be split into folds inherits from lightning_hpc.data.DataModule"
    )


def test_strategies_and_plugins_are_made_from_their_classes(train):
    single = "lightning.pytorch.strategies.SingleDeviceStrategy"
    strategy = overlay("single.yaml", f"trainer: {{strategy: {{class_path: {single}}}}}\n")
    plugin = "lightning.pytorch.plugins.environments.LightningEnvironment"
    run = train("fit", strategy, f"--trainer.plugins=[{{class_path: {plugin}}}]")
    assert run.code == 0
    assert run.config["trainer"]["plugins"] == [{"class_path": plugin}]
    assert run.config["trainer"]["strategy"]["class_path"] == single


@pytest.mark.parametrize(
    "text, message",
    [
        ("{class_path: EarlyStoping, init_args: {monitor: val/loss}}", "(did you mean EarlyStopping?)"),
        ("{class_path: EarlyStopping, init_args: {monitr: val/loss}}", "no setting monitr (did you mean monitor?)"),
    ],
)
def test_mistakes_in_a_list_of_callbacks(mistake, text, message):
    line = mistake(overlay("mine.yaml", f"trainer:\n  callbacks+:\n  - {text}\n"))
    assert line.startswith("`trainer.callbacks` in mine.yaml: ") and message in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config=trainer/gpus.yaml"], "no such settings file: trainer/gpus.yaml (did you mean configs/trainer/gpu"),
        (["--config"], "--config needs a value"),
        (["--trainer.max_epochs"], "argument --trainer.max_epochs: expected one argument"),
        (["--trainer.max_epoch"], "unknown setting --trainer.max_epoch: Train.py has no such setting"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitr=x"],
            "no setting monitr (did you mean monitor?)",
        ),
        (["stray"], "unrecognized arguments: stray"),
        (["--trainer.accelerator=gpuu"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.gradient_clip_algorithm=nrom"], "trainer: `gradient_clip_algorithm` nrom is invalid"),
        (["--resume=nver"], "no checkpoint nver"),
        (["--resume=must"], "checkpoint"),
        (["--init_from=nowhere.ckpt"], "no weights to start from: nowhere.ckpt is neither a file nor a run's folder"),
        (["--name=../up"], "--name ../up can't name an experiment"),
        (["--trial=-1"], "--trial must be a whole number from 0 on"),
        (["--cka.layers=[hed]"], "CKA: no layer of ConvNet matches 'hed'; nearest: head"),
        (["--cka.module=net"], "CKA: Classifier has no module 'net'; it has network"),
    ],
)
def test_other_mistakes(mistake, arguments, message):
    assert message in mistake(*arguments)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_of_no_run_says_which_there_are(mistake, train, command):
    assert "there is no run with these settings" in mistake(command=command)
    run = train("fit", "--name=there")
    said = mistake("--runs_dir=runs", command=command)
    assert f"the newest run: --run {run.folder.relative_to(Path.cwd())}" in said


def test_a_checkpoint_callback_can_be_added_with_nothing_else(settings):
    """Lightning's own refuses enable_checkpointing, which nobody has typed."""
    last = settings("--trainer.callbacks+", "ModelCheckpoint")["trainer"]["callbacks"][-1]
    assert last["class_path"].endswith(".ModelCheckpoint")


# --- as a program


def python(project, folder, *arguments):
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, project / "Train.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_program_trains_from_any_folder(project, tmp_path):
    """Its run goes to the project's runs, wherever the command was typed."""
    quick = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--cka=null", "--name=from-elsewhere")
    done = python(project, tmp_path, "fit", *quick)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    (folder,) = project.glob("runs/from-elsewhere/000-*")
    for line in ("run folder", "best checkpoint", "last checkpoint", "metrics", "time", "test it"):
        assert any(text.startswith(line) for text in done.stdout.splitlines()), line
    assert f"python {project}/Train.py test --run {folder}" in done.stdout
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 1
    assert "Traceback" not in done.stderr and "💡" not in done.stderr


def test_the_program_refuses_a_mistake_in_its_first_line(project, tmp_path):
    done = python(project, tmp_path, "fit", "--trainer.max_epoch=1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: unknown setting --trainer.max_epoch") and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
