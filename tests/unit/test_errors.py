"""Mistakes on the command line are named in one line, with what was probably meant."""

import sys
from types import SimpleNamespace

import pytest

from lightning_hpc.settings.classes import class_settings, import_class
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.layers import COMMAND_LINE, Settings
from lightning_hpc.settings.typed.messages import check_keys, is_none_of, one_line
from lightning_hpc.settings.typed.values import drop_inherited


def test_classes_are_found_by_path_and_well_known_ones_by_name():
    import torch
    from lightning.pytorch.cli import ReduceLROnPlateau

    from networks import ConvNet

    assert import_class("torch.optim.SGD") is torch.optim.SGD
    assert import_class("SGD") is torch.optim.SGD
    assert import_class("ConvNet") is ConvNet
    assert import_class("ReduceLROnPlateau") is ReduceLROnPlateau  # the one that knows what to monitor


@pytest.mark.parametrize(
    "name, message",
    [
        ("torch.optim.SDG", r"there is no class SDG in torch.optim \(did you mean SGD.*\?\)"),
        ("torch.optm.SGD", "there is no module torch.optm for the class torch.optm.SGD"),
        ("nowhere.to.be.Found", "there is no module nowhere for the class nowhere.to.be.Found"),
        ("AdmaW", r"there is no class AdmaW \(did you mean AdamW.*\?\); a class of your own needs its module"),
    ],
)
def test_a_class_that_is_not_there(name, message):
    with pytest.raises(SettingsError, match=message):
        import_class(name)


def test_a_users_file_that_imports_what_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "users_file.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=r"users_file.Net can't be imported: .*not_installed_anywhere.*installed\?"):
        import_class("users_file.Net")
    sys.modules.pop("users_file", None)


def test_classes_of_the_other_package_of_lightning(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    content = "import pytorch_lightning as pl\nclass Net(pl.LightningModule):\n    pass\n"
    (tmp_path / "of_another.py").write_text(content)
    advice = "here it is `import lightning.pytorch as pl`"
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)  # as if it were not installed
    with pytest.raises(SettingsError, match=f"of_another.Net can't be imported: .*{advice}"):
        import_class("of_another.Net")

    class LightningModule:
        __module__ = "pytorch_lightning.core.module"

    monkeypatch.setitem(sys.modules, "pytorch_lightning", SimpleNamespace(LightningModule=LightningModule))
    monkeypatch.delitem(sys.modules, "of_another", raising=False)
    assert is_none_of("of_another.Net", "LightningModule") == (
        f"of_another.Net is of the package pytorch_lightning, whose classes don't work here: {advice}"
    )
    assert is_none_of("torch.optim.SGD", "LightningModule") == "torch.optim.SGD is no LightningModule"
    sys.modules.pop("of_another")


class Parent:
    def __init__(self, width: int, depth: int = 1):
        self.size = width * depth


class Child(Parent):
    def __init__(self, name: str = "", untyped=None, **kwargs):
        super().__init__(**kwargs)


def function(width: int, depth: int = 1):
    return width * depth


def test_the_settings_of_a_class_include_those_it_passes_on():
    assert class_settings(Child) == {"name", "untyped", "width", "depth"}
    assert class_settings(function) == {"width", "depth"}


KNOWN = {"name", "model", "data", "trainer.max_epochs", "trainer.callbacks"}


def settings(**layers):
    merged = Settings()
    for source, layer in layers.items():
        merged.add(layer, {"typed": COMMAND_LINE}.get(source, f"{source}.yaml"))
    return merged


CHILD = f"{__name__}.Child"


@pytest.mark.parametrize(
    "layers, written, near",
    [
        ({"typed": {"trainer.max_epoch": 3}}, "--trainer.max_epoch: Train.py", "trainer.max_epochs"),
        ({"sgd": {"trainer.max_epoch": 3}}, "`trainer.max_epoch` in sgd.yaml: Train.py", "trainer.max_epochs"),
        ({"typed": {"nmae": "x"}}, "--nmae: Train.py", "name"),
        ({"typed": {"model": CHILD, "model.widht": 1}}, f"--model.widht: {CHILD}", "model.width"),
        ({"typed": {"model": CHILD, "model.nmae.below": 1}}, f"--model.nmae.below: {CHILD}", "model.name"),
        ({"base": {"model": CHILD}, "sgd": {"model.deptth": 1}}, f"`model.deptth` in sgd.yaml: {CHILD}", "model.depth"),
        ({"typed": {"model": CHILD, "model.zzz": 1}}, f"--model.zzz: {CHILD}", None),
    ],
)
def test_unknown_keys_are_named_with_where_they_are_written(layers, written, near):
    with pytest.raises(SettingsError) as error:
        check_keys(settings(**layers), KNOWN)
    suggestion = f" (did you mean {near}?)" if near else ""
    assert str(error.value) == f"unknown setting {written} has no such setting{suggestion}"


@pytest.mark.parametrize(
    "layer",
    [
        {"trainer.max_epochs": 3, "name": "x"},
        {"model": f"{__name__}.Child", "model.width": 3, "model.dict_kwargs.extra": 1},
        {"trainer.callbacks": ["A"], "trainer.callbacks.patience": 3},
    ],
)
def test_known_keys_pass(layer):
    check_keys(settings(typed=layer), KNOWN)


class Other:
    def __init__(self, depth: int = 1):
        self.depth = depth


@pytest.mark.parametrize("section", ["model", "data"])
def test_only_defaults_lapse_with_their_class(section):
    """What a user has asked for, in a file or on the command line, is taken or it is an error."""
    base = {section: CHILD, f"{section}.width": 1, f"{section}.depth": 1, f"{section}.name": Parent.__name__}
    other = {section: f"{__name__}.Other"}

    merged = settings(base=base, typed=other)
    drop_inherited(merged)
    check_keys(merged, KNOWN)
    assert merged.flat == {**other, f"{section}.depth": 1}

    merged = settings(base=base, wide={f"{section}.width": 2}, typed=other)
    drop_inherited(merged)
    with pytest.raises(SettingsError, match=f"unknown setting `{section}.width` in wide.yaml: {__name__}.Other has no"):
        check_keys(merged, KNOWN)


def test_a_setting_below_one_that_lapses_is_an_error_too():
    base = {"model": CHILD, "model.name": "torch.optim.SGD", "model.name.lr": 1, "model.depth": 2}
    merged = settings(base=base, fast={"model.name.lr": 2}, typed={"model": f"{__name__}.Other"})
    drop_inherited(merged)
    with pytest.raises(SettingsError, match="unknown setting `model.name.lr` in fast.yaml"):
        check_keys(merged, KNOWN)


@pytest.mark.parametrize(
    "key, near",
    {
        "lr": "model.optimizer.lr",
        "optimizer.lr": "model.optimizer.lr",
        "model.lr": "model.optimizer.lr",
        "learning_rate": "model.optimizer.lr",
        "model.optimizer.learning_rate": "model.optimizer.lr",
        "model.optimizer.LR": "model.optimizer.lr",
        "optimizer": "model.optimizer",
        "batch_size": "data.batch_size",
        "bs": "data.batch_size",
        "epochs": "trainer.max_epochs",
        "max_epochs": "trainer.max_epochs",
        "seed": "seed_everything",
        "gpus": "trainer.devices",
        "devices": "trainer.devices",
        "trainer.max_epoch": "trainer.max_epochs",
        "data.bach_size": "data.batch_size",
        "nmae": "name",
    }.items(),
)
def test_suggestions_go_by_meaning(key, near):
    base = {"model": f"{__name__}.Trained", "model.optimizer": "torch.optim.AdamW", "data": f"{__name__}.Batches"}
    known = {*KNOWN, "trainer.devices", "seed_everything", "init_seed", "total_batch_size", "trainer.max_steps"}
    with pytest.raises(SettingsError, match=rf"\(did you mean {near}( or [\w.]+)?\?\)$"):
        check_keys(settings(base=base, typed={key: 1}), known)


class Trained:
    def __init__(self, optimizer: object, lr_scheduler: object = None): ...


class Batches:
    def __init__(self, batch_size: int = 1): ...


@pytest.mark.parametrize("word, near", [("Adamw", "AdamW"), ("sgd", "SGD"), ("adam", "Adam"), ("RMSProp", "RMSprop")])
def test_the_case_of_a_class_name_comes_before_its_spelling(word, near):
    with pytest.raises(SettingsError, match=rf"there is no class {word} \(did you mean {near}\?\)"):
        import_class(word)


def parser_error(target, *arguments):
    """What jsonargparse says about wrong arguments to a class, as one line."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(target, "it")
    with pytest.raises(ArgumentError) as error:
        parser.parse_args(list(arguments))
    return one_line(str(error.value))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((f"--it={__name__}.Parent", "--it.width=wide"), ("it", "width", "int", "wide")),
        ((f"--it={__name__}.Parent",), ("it", "width")),
        (("--it=torch.optim.SGD",), ("it", "torch.optim.SGD", "Parent")),
        (("--it=torch.optim.SDG",), ("it", "torch.optim", "SDG")),
    ],
)
def test_the_parsers_errors_become_one_line(arguments, words):
    line = parser_error(Parent, *arguments)
    assert "\n" not in line and len(line) < 200
    for word in words:
        assert word in line, line


def test_a_short_name_that_several_classes_have():
    message = (
        'Parser key "model.network":\n  Errors:\n    - Multiple subclasses with name MLP. '
        "Give the full class path to avoid ambiguity: mine.MLP, timm.MLP.\n    - Expected a <class 'NoneType'>\n"
    )
    assert one_line(message) == "model.network: there are several classes MLP, give one in full: mine.MLP, timm.MLP"
