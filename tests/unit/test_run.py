"""From a command line to settings, a run and its folder."""

import os
from pathlib import Path

import pytest
import yaml

from lightning_hpc.runs import run as run_module
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.runs.run import read_command_line
from lightning_hpc.settings.command_line import take_options
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.flat import find_settings_file, unflatten

BASE = """
name: default
data: {class_path: my.Digits, init_args: {batch_size: 64, num_workers: 0}}
model:
  class_path: my.Classifier
  init_args:
    network: {class_path: my.ConvNet, init_args: {width: 32}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.003, weight_decay: 0.01}}
trainer: {max_epochs: 15, callbacks: [{class_path: my.Stop}]}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "configs" / "trainer").mkdir(parents=True)
    (tmp_path / "configs" / "base.yaml").write_text(BASE)
    (tmp_path / "configs" / "trainer" / "short.yaml").write_text("trainer: {max_epochs: 1}\n")
    (tmp_path / "configs" / "sgd.yaml").write_text("model.optimizer: SGD\nmodel.optimizer.lr: 0.1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(root, *arguments):
    return read_command_line("fit", list(arguments), root)


def test_without_arguments_the_run_is_the_base(root):
    run = ask(root)
    assert run.changes == {} and run.overrides == [] and run.group == "default"
    assert run.folder.path == Path("runs/default") / f"000-base-{run.identity[:8]}"
    assert run.settings.flat["seed_everything"] == 0
    assert not (root / "runs").exists()


def test_layers_base_files_command_line(root):
    run = ask(root, "--config", "configs/trainer/short.yaml", "-c=sgd.yaml", "--data.batch_size", "8")
    flat = run.settings.flat
    assert (flat["trainer.max_epochs"], flat["model.optimizer"], flat["data.batch_size"]) == (1, "torch.optim.SGD", 8)
    assert "model.optimizer.weight_decay" not in flat
    assert run.settings.source["trainer.max_epochs"] == "configs/trainer/short.yaml"
    assert run.changes == {
        "trainer.max_epochs": 1, "model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.1, "data.batch_size": 8,
    }  # fmt: skip


def test_files_are_laid_over_each_other_in_the_order_given(root):
    (root / "long.yaml").write_text("trainer: {max_epochs: 99}\n")
    for order, expected in ((("long.yaml", "trainer/short.yaml"), 1), (("trainer/short.yaml", "long.yaml"), 99)):
        run = ask(root, "-c", order[0], "--config", order[1])
        assert run.settings.flat["trainer.max_epochs"] == expected


def test_a_class_on_the_command_line_drops_the_files_settings_for_the_other_class(root):
    run = ask(root, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.5")
    optimizer = unflatten(run.settings.flat)["model"]["init_args"]["optimizer"]
    assert optimizer == {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}


def test_overrides_are_told_and_repetitions_are_not(root):
    run = ask(root, "--data.batch_size", "8", "--trainer.max_epochs", "15", "--model.optimizer", "AdamW")
    assert run.overrides == ["data.batch_size = 8 (instead of 64 in configs/base.yaml)"]


def test_the_order_and_form_of_writing_give_the_same_folder(root):
    (root / "nested.yaml").write_text("model: {init_args: {network: {init_args: {width: 8.0}}}}\ndata.batch_size: 8\n")
    lines = [
        ["--model.network.width", "8", "--data.batch_size", "8"],
        ["--data.batch_size=8", "--model.init_args.network.init_args.width=8"],
        ["--config", "nested.yaml"],
    ]
    assert len({ask(root, *line).folder.path for line in lines}) == 1


@pytest.mark.parametrize("name", ["AdamW", "torch.optim.AdamW"])
def test_a_class_by_its_short_and_its_full_name_is_one_run(root, name):
    assert ask(root, "--model.optimizer", name).identity == ask(root).identity
    assert ask(root, f"--model.optimizer={name}").changes == {}


def test_a_class_by_its_short_and_its_full_name_is_one_run_where_it_is_new(root):
    (root / "short.yaml").write_text("model: {optimizer: {class_path: Adam, init_args: {lr: 1}}}\n")
    lines = [
        ["--model.optimizer=Adam", "--model.optimizer.lr=1"],
        ["--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=1"],
        ["--config=short.yaml"],
    ]
    assert len({ask(root, *line).folder.path for line in lines}) == 1


def test_callbacks_by_short_and_full_names_are_one_run(root):
    full = "lightning.pytorch.callbacks.EarlyStopping"
    runs = [
        ask(root, f"--trainer.callbacks+={name}", "--trainer.callbacks.monitor=x") for name in ("EarlyStopping", full)
    ]
    assert runs[0].identity == runs[1].identity
    assert runs[0].changes["trainer.callbacks"][-1] == {"class_path": full, "init_args": {"monitor": "x"}}


def test_name_and_runs_dir_place_the_run_and_do_not_change_it(root):
    run = ask(root, "--name", "wide", "--runs_dir", "/data/runs")
    assert run.folder.path == Path(f"/data/runs/wide/000-base-{run.identity[:8]}")
    assert run.identity == ask(root).identity


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "2026", "1e3", "a b", "é", "-x", "x" * 101, "a\nb"])
def test_names_that_cannot_name_a_folder_are_refused(root, name):
    with pytest.raises(SettingsError, match="name"):
        ask(root, f"--name={name}")


def test_a_trial_is_a_seed_and_a_folder(root):
    run = ask(root, "--trial", "7")
    assert run.settings.flat["seed_everything"] == 7
    assert run.folder.path.name.startswith("007-base-")
    assert run.identity != ask(root).identity
    assert run.identity == ask(root, "--seed_everything", "7").identity
    assert ask(root, "--trial", "7", "--seed_everything", "7").identity == run.identity


@pytest.mark.parametrize("trial", ["-1", "1.5", "many"])
def test_a_trial_is_a_whole_number(root, trial):
    with pytest.raises(SettingsError, match="--trial"):
        ask(root, "--trial", trial)


def test_a_trial_with_another_seed_would_be_a_second_folder_for_the_same_run(root):
    with pytest.raises(SettingsError, match="--trial 7 means seed 7, but seed_everything is 3"):
        ask(root, "--trial", "7", "--seed_everything", "3")


def test_a_trial_on_the_command_line_replaces_the_seed_of_a_file(root):
    (root / "resolved.yaml").write_text("trial: 2\nseed_everything: 2\n")
    run = ask(root, "--config", "resolved.yaml", "--trial", "3")
    assert run.settings.flat["seed_everything"] == 3
    assert run.identity == ask(root, "--trial", "3").identity
    assert run.changes == {"trial": 3}


KINDS = """
from pathlib import Path
from typing import Literal, Optional
from torch import nn
Size = Literal["MLP", "CNN", 1]
class Base(nn.Module):
    def __init__(self, passed: str = "", **others): ...
class Net(Base):
    def __init__(self, text: str, maybe: "str | None" = None, number: float = 1, word: int | str = 1, size: Size = 1,
                 file: Optional[Path] = None, free=None, net: nn.Module | None = None, **others): ...
"""


@pytest.fixture
def network(root):
    (root / "kinds.py").write_text(KINDS)
    (root / "classes.py").write_text("class MLP: ...\n")
    return lambda name, text: ask(root, "--model.network=kinds.Net", f"--model.network.{name}={text}")


@pytest.mark.parametrize("name", ["text", "maybe", "word", "file", "passed"])
@pytest.mark.parametrize("one, other", [("1.10", "1.1"), ("yes", "true"), ("1e3", "1000.0"), ("off", "false")])
def test_texts_that_look_like_the_same_number_are_different_runs(network, name, one, other):
    runs = [network(name, text) for text in (one, other)]
    assert runs[0].identity != runs[1].identity
    assert runs[0].changes[f"model.network.{name}"] == one
    assert runs[0].folder.path != runs[1].folder.path


@pytest.mark.parametrize(
    "name, one, other",
    [("number", "1e3", "1000"), ("number", "'1e3'", "1000"), ("word", "007", "7"), ("maybe", "null", "~")]
    + [("free", "1.10", "1.1"), ("net", "MLP", "classes.MLP")],
)
def test_one_meaning_is_one_run(network, name, one, other):
    assert network(name, one).identity == network(name, other).identity


@pytest.mark.parametrize(
    "name, text, value",
    [("text", "MLP", "MLP"), ("size", "MLP", "MLP"), ("free", "MLP", "MLP"), ("net", "MLP", "classes.MLP")]
    + [("size", "1", 1), ("word", "7", 7), ("number", "7", 7), ("text", "null", "null"), ("maybe", "null", None)],
)
def test_values_have_the_type_of_their_setting(network, name, text, value):
    run = network(name, text)
    assert repr(run.settings.flat[f"model.network.{name}"]) == repr(value)


def test_versions_of_the_code_are_texts(root):
    versions = ["1.10", "1.1", "007", "7", "yes", "true"]
    runs = [ask(root, f"--codeversion={version}") for version in versions]
    assert len({run.identity for run in runs}) == len(versions)
    assert [run.changes["codeversion"] for run in runs] == versions


def test_another_run_with_the_same_digits_has_another_folder(root, monkeypatch):
    """Eight digits name a folder, sixteen tell a run."""
    digits = {"8": "0123abcd" + "0" * 8, "16": "0123abcd" + "1" * 8, "32": "0123abcd" + "2" * 8}
    monkeypatch.setattr(run_module, "identity", lambda flat, version: digits[str(flat["data.batch_size"])])
    monkeypatch.setattr(run_module, "folder_name", lambda trial, changes, identity: f"000-same-{identity[:8]}")
    for size, name in (("8", "000-same-0123abcd"), ("16", "000-same-2-0123abcd"), ("32", "000-same-3-0123abcd")):
        run = ask(root, f"--data.batch_size={size}")
        assert run.folder.path.name == name
        run.folder.start(identity=run.identity)
        assert ask(root, f"--data.batch_size={size}").folder.path.name == name  # started again, it is found


def test_a_codeversion_makes_another_run(root):
    identities = [ask(root, *version).identity for version in ([], ["--codeversion", "2"], ["--codeversion", "3"])]
    assert len(set(identities)) == 3


def test_a_run_is_found_by_its_folder_and_keeps_its_identity(root):
    trained = ask(root, "--name", "wide", "--model.network.width", "64")
    trained.folder.start(name=trained.group, identity=trained.identity)
    resolved = {**trained.settings.flat, "model.label_smoothing": 0.0, "name": "wide"}
    (trained.folder.path / "config.yaml").write_text(yaml.safe_dump(unflatten(resolved)))
    run = read_command_line("test", ["--run", str(trained.folder.path)], root)
    assert (run.identity, run.group) == (trained.identity, "wide")
    assert run.folder.path == trained.folder.path
    assert run.settings.flat["model.network.width"] == 64


def test_a_run_is_continued_by_its_folder_but_not_with_other_settings(root):
    trained = ask(root, "--data.batch_size", "8")
    trained.folder.path.mkdir(parents=True)
    (trained.folder.path / "config.yaml").write_text(yaml.safe_dump(unflatten(trained.settings.flat)))
    (trained.folder.path / "overlay.yaml").write_text("data.batch_size: 8\n")
    trained.folder.update(name="default", identity=trained.identity)
    again = ask(root, "--run", str(trained.folder.path), "--resume", "must", "--data.num_workers=2")
    assert (again.folder.path, again.identity) == (trained.folder.path, trained.identity)
    assert again.changes == {"data.batch_size": 8}
    for other in (["--data.batch_size=16"], ["--config", "sgd.yaml"]):
        with pytest.raises(SettingsError, match="leave out --run"):
            ask(root, "--run", str(trained.folder.path), *other)


def test_a_folder_without_a_run_is_refused(root):
    with pytest.raises(SettingsError, match="--run nowhere is not a run's folder"):
        read_command_line("test", ["--run", "nowhere"], root)


def test_options_are_taken_out():
    assert take_options(["--a", "1", "--b", "2", "--a=3"], "--a") == (["1", "3"], ["--b", "2"])
    assert take_options(["--ab", "1"], "--a") == ([], ["--ab", "1"])
    for line in (["--a"], ["--a", "--b"], ["--a="]):
        with pytest.raises(SettingsError, match="--a needs a value"):
            take_options(line, "--a")


def test_settings_files_are_found_from_anywhere_and_near_ones_are_named(root, monkeypatch):
    monkeypatch.chdir(root / "configs")
    for name in ("trainer/short.yaml", "configs/trainer/short.yaml", str(root / "configs/trainer/short.yaml")):
        assert os.path.samefile(find_settings_file(name, root), root / "configs/trainer/short.yaml")
    with pytest.raises(SettingsError, match=r"no such settings file: trainer/shrt.yaml \(did you mean configs/"):
        find_settings_file("trainer/shrt.yaml", root)


def test_reading_a_command_line_writes_nothing(root, monkeypatch):
    monkeypatch.setattr(RunFolder, "start", lambda *_: pytest.fail("nothing is started"))
    before = sorted(root.rglob("*"))
    ask(root, "--trial", "1")
    assert sorted(root.rglob("*")) == before
