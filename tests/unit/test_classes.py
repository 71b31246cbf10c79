"""Class names without a module are found in the user's files first, without importing any; old names are understood."""

import sys

import pytest

from lightning_hpc.settings import classes
from lightning_hpc.settings.classes import find_class, full_name, import_class, names_in, work_in
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.layers import COMMAND_LINE, Settings

FILES = {
    "Train.py": "class Door: ...\n",
    "beside.py": "from torch import nn\nclass Beside(nn.Module): ...\nclass SGD: ...\n",
    "mine/__init__.py": "",
    "mine/model.py": "from .networks import Small\nfrom .parts.blocks import Block as Part\nclass Model: ...\n",
    "mine/networks.py": "from lightning.pytorch import Callback\nclass Small: ...\nclass WarmupCosine: ...\n",
    "mine/data.py": "class Digits: ...\n",
    "mine/parts/__init__.py": "",
    "mine/parts/blocks.py": "from timm.models import VisionTransformer\nclass Block: ...\ndef Factory(): ...\n",
    "mine/other.py": "class Twice: ...\nclass Small: ...\nif True:\n    class Conditional: ...\n",
    "mine/another.py": "class Twice: ...\n",
    "mine/broken.py": "class Broken(\n",
    "mine/loud.py": "raise RuntimeError('this file must not be imported')\nclass Loud: ...\n",
    "tests/__init__.py": "",
    "tests/test_x.py": "class OnlyInATest: ...\n",
    "lightning_hpc/__init__.py": "",
    "lightning_hpc/inner.py": "class Inner: ...\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(classes, "_renamings_said", set())
    work_in(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name, path",
    {
        "Model": "mine.model.Model",
        "Digits": "mine.data.Digits",
        "Small": "mine.networks.Small",  # networks.py comes before other.py
        "Part": "mine.parts.blocks.Block",  # imported by model.py under this name
        "Block": "mine.parts.blocks.Block",
        "Factory": "mine.parts.blocks.Factory",
        "Conditional": "mine.other.Conditional",
        "Beside": "beside.Beside",
        "SGD": "beside.SGD",  # the user's own before torch's
        "WarmupCosine": "mine.networks.WarmupCosine",  # … and before the machine room's
        "StopOnDivergence": "lightning_hpc.training.StopOnDivergence",
        "CKACallback": "lightning_hpc.cka.CKACallback",
        "DataModule": "lightning_hpc.data.DataModule",
        "AdamW": "torch.optim.AdamW",
        "StepLR": "torch.optim.lr_scheduler.StepLR",
        "EarlyStopping": "lightning.pytorch.callbacks.EarlyStopping",
        "TensorBoardLogger": "lightning.pytorch.loggers.TensorBoardLogger",
        "ReduceLROnPlateau": "lightning.pytorch.cli.ReduceLROnPlateau",
        "VisionTransformer": "timm.models.VisionTransformer",  # imported by one of the user's files
    }.items(),
)
def test_where_a_class_is_found(project, name, path):
    assert find_class(name) == path
    assert not [module for module in sys.modules if module.split(".")[0] in ("mine", "beside")]


@pytest.mark.parametrize("name", ["Door", "OnlyInATest", "Inner", "Broken", "Nowhere", "auto", "factory", "a b"])
def test_what_is_not_found(project, name):
    assert find_class(name) is None and full_name(name) == name


def test_a_class_in_two_files_of_the_user_has_to_be_given_in_full(project):
    with pytest.raises(SettingsError, match="there are several classes Twice, give one in full") as error:
        find_class("Twice")
    assert "mine.another.Twice, mine.other.Twice" in str(error.value)

    settings = Settings()
    with pytest.raises(SettingsError, match="^`model.network` in a.yaml: there are several classes Twice"):
        settings.add({"model.network": "Twice"}, "a.yaml")
    settings.add({"model.network": "mine.other.Twice"}, COMMAND_LINE)
    assert settings.flat["model.network"] == "mine.other.Twice"


def test_a_file_is_imported_only_if_it_has_the_class(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    assert import_class("AdamW").__module__ == "torch.optim.adamw"
    assert import_class("Digits").__name__ == "Digits"
    assert "mine.loud" not in sys.modules
    with pytest.raises(RuntimeError, match="must not be imported"):
        import_class("Loud")
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_near_name_among_the_users_own_is_suggested(project):
    with pytest.raises(SettingsError, match=r"there is no class Besid \(did you mean Beside"):
        import_class("Besid")


def test_all_that_the_machine_room_offers_is_found_by_name():
    from lightning_hpc import cka, data, training

    for module in (training, data, cka):
        for name in module.__all__:
            if name[0].isupper():
                assert find_class(name) == f"{module.__name__}.{name}"


def test_imports_are_followed_to_where_they_come_from(tmp_path):
    file = tmp_path / "__init__.py"
    file.write_text("from . import a\nfrom .b import B\nfrom ..c import C\nfrom d.e import E as F\nimport g\n")
    imported = dict(a="top.inner.a", B="top.inner.b.B", C="top.c.C", F="d.e.E")
    assert names_in("top.inner", file).imported == imported


OLD = {
    "mine.training.schedules.WarmupCosine": "lightning_hpc.training.WarmupCosine",
    "mine.training.stopping.StopOnDivergence": "lightning_hpc.training.StopOnDivergence",
    "mine.training.averaging.EMA": "lightning_hpc.training.EMA",
    "mine.training.trackers.WandB": "lightning_hpc.trackers.WandB",
    "mine.cka.CKACallback": "lightning_hpc.cka.CKACallback",
    "mine.cka.callback.CKACallback": "lightning_hpc.cka.CKACallback",
    "mine.datasets.module.DataModule": "lightning_hpc.data.DataModule",
}


@pytest.mark.parametrize("old, new", OLD.items())
def test_names_of_an_earlier_version_are_understood(project, old, new):
    assert full_name(old) == new
    assert import_class(old) is import_class(new)


def test_names_of_an_earlier_version_in_lists_of_classes(project, capsys):
    old, new = "mine.training.averaging.EMA", "lightning_hpc.training.EMA"
    for _ in range(2):
        settings = Settings()
        settings.add({"trainer.callbacks": [{"class_path": old, "init_args": {"decay": 0.9}}, old]}, "config.yaml")
        assert settings.flat["trainer.callbacks"] == [{"class_path": new, "init_args": {"decay": 0.9}}, new]
    (line,) = capsys.readouterr().err.splitlines()  # once
    assert line.startswith(f"note: {old} is called {new} now")


@pytest.mark.parametrize("path", ["torch.training.averaging.EMA", "yours.cka.CKACallback", "mine.cka", "mine.EMA"])
def test_other_names_stay_as_they_are(project, path):
    assert full_name(path) == path


def test_a_module_of_the_users_own_with_an_old_name_is_theirs(project):
    (project / "mine" / "cka.py").write_text("class CKACallback: ...\n")
    assert full_name("mine.cka.CKACallback") == "mine.cka.CKACallback"
