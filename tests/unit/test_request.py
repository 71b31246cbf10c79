"""From a command line to settings, a run and its folder."""

import os
from pathlib import Path

import pytest
import yaml

from package.runs.folder import RunFolder
from package.runs.request import find, request, take_options
from package.runs.settings import SettingsError, unflatten

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
    return request("fit", list(arguments), root)


def test_without_arguments_the_run_is_the_base(root):
    wanted = ask(root)
    assert wanted.changes == {} and wanted.overrides == [] and wanted.group == "default"
    assert wanted.folder.path == Path("runs/default") / f"000-base-{wanted.identity[:8]}"
    assert wanted.settings.flat["seed_everything"] == 0
    assert not (root / "runs").exists()


def test_layers_base_files_command_line(root):
    wanted = ask(root, "--config", "configs/trainer/short.yaml", "-c=sgd.yaml", "--data.batch_size", "8")
    flat = wanted.settings.flat
    assert (flat["trainer.max_epochs"], flat["model.optimizer"], flat["data.batch_size"]) == (1, "SGD", 8)
    assert "model.optimizer.weight_decay" not in flat
    assert wanted.settings.source["trainer.max_epochs"] == "configs/trainer/short.yaml"
    assert wanted.changes == {
        "trainer.max_epochs": 1, "model.optimizer": "SGD", "model.optimizer.lr": 0.1, "data.batch_size": 8,
    }  # fmt: skip
    assert wanted.arguments == ["--data.batch_size", "8"]


def test_files_are_laid_over_each_other_in_the_order_given(root):
    (root / "long.yaml").write_text("trainer: {max_epochs: 99}\n")
    for order, expected in ((("long.yaml", "trainer/short.yaml"), 1), (("trainer/short.yaml", "long.yaml"), 99)):
        wanted = ask(root, "-c", order[0], "--config", order[1])
        assert wanted.settings.flat["trainer.max_epochs"] == expected


def test_a_class_on_the_command_line_drops_the_files_settings_for_the_other_class(root):
    wanted = ask(root, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.5")
    optimizer = unflatten(wanted.files.flat)["model"]["init_args"]["optimizer"]
    assert optimizer == "torch.optim.SGD"  # its lr is in the arguments, which are parsed after the files


def test_overrides_are_told_and_repetitions_are_not(root):
    wanted = ask(root, "--data.batch_size", "8", "--trainer.max_epochs", "15", "--model.optimizer", "AdamW")
    assert wanted.overrides == ["data.batch_size = 8 (instead of 64 in configs/base.yaml)"]


def test_the_order_and_form_of_writing_give_the_same_folder(root):
    (root / "nested.yaml").write_text("model: {init_args: {network: {init_args: {width: 8.0}}}}\ndata.batch_size: 8\n")
    lines = [
        ["--model.network.width", "8", "--data.batch_size", "8"],
        ["--data.batch_size=8", "--model.init_args.network.init_args.width=8"],
        ["--config", "nested.yaml"],
    ]
    assert len({ask(root, *line).folder.path for line in lines}) == 1


def test_name_and_runs_dir_place_the_run_and_do_not_change_it(root):
    wanted = ask(root, "--name", "wide", "--runs_dir", "/data/runs")
    assert wanted.folder.path == Path(f"/data/runs/wide/000-base-{wanted.identity[:8]}")
    assert wanted.identity == ask(root).identity


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "2026", "1e3", "a b", "é", "-x", "x" * 101, "a\nb"])
def test_names_that_cannot_name_a_folder_are_refused(root, name):
    with pytest.raises(SettingsError, match="name"):
        ask(root, f"--name={name}")


def test_a_trial_is_a_seed_and_a_folder(root):
    wanted = ask(root, "--trial", "7")
    assert wanted.settings.flat["seed_everything"] == wanted.files.flat["seed_everything"] == 7
    assert wanted.folder.path.name.startswith("007-base-")
    assert wanted.identity != ask(root).identity
    assert wanted.identity == ask(root, "--seed_everything", "7").identity
    assert ask(root, "--trial", "7", "--seed_everything", "7").identity == wanted.identity


@pytest.mark.parametrize("trial", ["-1", "1.5", "many"])
def test_a_trial_is_a_whole_number(root, trial):
    with pytest.raises(SettingsError, match="--trial"):
        ask(root, "--trial", trial)


def test_a_trial_with_another_seed_would_be_a_second_folder_for_the_same_run(root):
    with pytest.raises(SettingsError, match="--trial 7 means seed 7, but seed_everything is 3"):
        ask(root, "--trial", "7", "--seed_everything", "3")


def test_a_trial_on_the_command_line_replaces_the_seed_of_a_file(root):
    (root / "resolved.yaml").write_text("trial: 2\nseed_everything: 2\n")
    wanted = ask(root, "--config", "resolved.yaml", "--trial", "3")
    assert wanted.settings.flat["seed_everything"] == wanted.files.flat["seed_everything"] == 3
    assert wanted.identity == ask(root, "--trial", "3").identity
    assert wanted.changes == {"trial": 3}


def test_a_codeversion_makes_another_run(root):
    identities = [ask(root, *version).identity for version in ([], ["--codeversion", "2"], ["--codeversion", "3"])]
    assert len(set(identities)) == 3


def test_a_run_is_found_by_its_folder_and_keeps_its_identity(root):
    trained = ask(root, "--name", "wide", "--model.network.width", "64")
    trained.folder.start(name=trained.group, identity=trained.identity)
    resolved = {**trained.settings.flat, "model.label_smoothing": 0.0, "name": "wide"}
    (trained.folder.path / "config.yaml").write_text(yaml.safe_dump(unflatten(resolved)))
    wanted = request("test", ["--run", str(trained.folder.path)], root)
    assert (wanted.identity, wanted.group) == (trained.identity, "wide")
    assert wanted.folder.path == trained.folder.path
    assert wanted.settings.flat["model.network.width"] == 64


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
        request("test", ["--run", "nowhere"], root)


def test_options_are_taken_out():
    assert take_options(["--a", "1", "--b", "2", "--a=3"], "--a") == (["1", "3"], ["--b", "2"])
    assert take_options(["--ab", "1"], "--a") == ([], ["--ab", "1"])
    for line in (["--a"], ["--a", "--b"], ["--a="]):
        with pytest.raises(SettingsError, match="--a needs a value"):
            take_options(line, "--a")


def test_settings_files_are_found_from_anywhere_and_near_ones_are_named(root, monkeypatch):
    monkeypatch.chdir(root / "configs")
    for name in ("trainer/short.yaml", "configs/trainer/short.yaml", str(root / "configs/trainer/short.yaml")):
        assert os.path.samefile(find(name, root), root / "configs/trainer/short.yaml")
    with pytest.raises(SettingsError, match=r"no such settings file: trainer/shrt.yaml \(did you mean configs/"):
        find("trainer/shrt.yaml", root)


def test_a_request_reads_nothing_but_its_files(root, monkeypatch):
    monkeypatch.setattr(RunFolder, "start", lambda *_: pytest.fail("a request starts nothing"))
    before = sorted(root.rglob("*"))
    ask(root, "--trial", "1")
    assert sorted(root.rglob("*")) == before
