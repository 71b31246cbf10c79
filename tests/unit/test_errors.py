"""Mistakes on the command line are named in one line, with what was probably meant."""

import sys

import pytest

from package.runs.request import COMMAND_LINE
from package.runs.settings import Settings, SettingsError
from package.training.errors import check_keys, class_settings, import_class, one_line


def test_classes_are_found_by_path_and_well_known_ones_by_name():
    import torch
    from lightning.pytorch.cli import ReduceLROnPlateau

    from package.networks import ConvNet

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


def test_keys_kept_from_another_class_are_not_complained_about():
    merged = settings(base={"data": f"{__name__}.Child", "data.width": 1}, typed={"data": f"{__name__}.Other"})
    check_keys(merged, KNOWN)


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
