"""Many runs are checked by their parts: the verdict is the parser's own, and few of them are parsed."""

import functools
import itertools
import random
from pathlib import Path

import pytest

KINDS = """
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval
from lightning import LightningDataModule, LightningModule
from torch import nn

from lightning_hpc.settings.errors import SettingsError


class Net(nn.Module):
    def __init__(
        self, count: int = 1, maybe: int | None = None, number: float = 1.0, share: ClosedUnitInterval = 0.5,
        size: Literal["small", 2] = 2, switch: bool = False, text: str = "x", free: Any = None, word: int | str = 1,
        rates: dict[str, float] = {}, several: list[int] = [], inner: nn.Module | None = None, classes: int = 10,
    ):
        super().__init__()


class Other(nn.Module):
    def __init__(self, needed: int, count: str = "1"):
        super().__init__()


class Plain(LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()


class Knows(nn.Module):
    def __init__(self, classes: int):
        super().__init__()


class Data(LightningDataModule):
    def __init__(self, classes: int | None = 3, as_text: bool = False, size: int = 8):
        super().__init__()
        if size < 1:
            raise SettingsError("a size below 1")
        self.classes = f"{classes} kinds" if as_text else classes
"""

VALUES = (
    1,
    2,
    3,
    1.0,
    2.5,
    float("inf"),
    True,
    False,
    None,
    "small",
    "large",
    "2",
    [1, 2],
    ["a"],
    {"a": 0.1},
    {"a": "b"},
)
SETTINGS = "count maybe number share size switch text free word rates several inner needed unknown".split()


@pytest.fixture
def check(project, tmp_path, monkeypatch):
    """Checks the runs of some overlays: what is wrong, or None; and how many were parsed."""
    from lightning_hpc.planning.plan import overlaid
    from lightning_hpc.runs.run import BASE, merge
    from lightning_hpc.settings import parser
    from lightning_hpc.settings.classes import work_in
    from lightning_hpc.settings.errors import SettingsError
    from lightning_hpc.settings.flat import read_layer
    from lightning_hpc.settings.typed.parts import parts_of
    from lightning_hpc.settings.typed.values import types_of

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("kinds_of_settings.py").write_text(KINDS)
    work_in(project)
    shared = merge([read_layer(project / BASE, project)])
    parsed, read = [], parser.read
    monkeypatch.setattr(parser, "build_parser", functools.cache(parser.build_parser))
    monkeypatch.setattr(parser, "read", lambda *given: parsed.append(given) or read(*given))

    def run(overlays):
        parsed.clear()
        try:
            parser.check_all((str(overlay), overlaid(shared, overlay, "a run")) for overlay in overlays)
        except SettingsError as error:
            return str(error), len(parsed)
        return None, len(parsed)

    def must_parse(overlay, after):
        """Whether a run would be parsed after these, which were right."""
        own = types_of(parser.build_parser("fit"))
        known = set().union(*(parts_of(overlaid(shared, other, "a run"), own) for other in after))
        return not parts_of(overlaid(shared, overlay, "a run"), own) <= known

    run.must_parse = must_parse
    return run


def test_a_grid_of_classes_and_numbers_takes_few_parses(check):
    optimizers = ["SGD", "Adam", "AdamW", "RMSprop", "NAdam"]
    grid = itertools.product(optimizers, ["MLP", "ConvNet"], [10.0**-exponent for exponent in range(5)])
    overlays = []
    for optimizer, network, rate in grid:
        overlays.append({"model.optimizer": optimizer, "model.network": network, "model.optimizer.lr": rate})
    assert check(overlays) == (None, 6)


def test_the_verdict_is_that_of_the_parser(check):
    """Every value under every setting, after runs that were right with other values of that and other settings."""
    net = {"model.network": "kinds_of_settings.Net"}
    other = {"model.network": "kinds_of_settings.Other"}
    inner = {**net, "model.network.inner": "kinds_of_settings.Other", "model.network.inner.needed": 1}

    overlays = []
    for name, value in itertools.product(SETTINGS, VALUES):
        overlays += [{**net, f"model.network.{name}": value}, {**inner, f"model.network.inner.{name}": value}]
    for value in VALUES:
        overlays += [{**other, "model.network.needed": value}, {**other, "model.network.count": value}]
        overlays += [{"trainer.max_epochs": value}, {"data.batch_size": value}, {"seed_everything": value}]

    # By itself, each is parsed.
    right = [overlay for overlay in overlays if check([overlay]) == (None, 1)]
    wrong = [overlay for overlay in overlays if overlay not in right]
    assert len(right) > 80 and len(wrong) > 80

    random.Random(0).shuffle(right)
    said, parses = check(right)
    assert said is None and parses < len(right)
    for overlay in wrong:
        assert check.must_parse(overlay, after=right), overlay

    # And what it then says is what it says of that run alone.
    assert check([*right, wrong[0]])[0] == check([wrong[0]])[0]


def test_settings_of_the_data_are_held_against_each_other(check):
    """Each of these values has been right, in another run."""
    folds = {"data.mode": "cross-validation"}
    right = [{**folds, "data.folds": 5, "data.fold": 4}, {**folds, "data.folds": 3, "data.fold": 0}]
    assert check(right) == (None, 2)
    said, _ = check([*right, {**folds, "data.folds": 3, "data.fold": 4}])
    assert said is not None and "fold" in said


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"data.classes": None}, "lacks classes"),
        ({"data.as_text": True}, "expected int"),
        ({"data.size": 0}, "a size below 1"),
    ],
    ids=["no fact", "a fact of another type", "data that can't be made"],
)
def test_facts_about_the_data_are_checked_with_what_asks_for_them(wrong, because, check):
    """All that is wrong in the last run was right in the first two: nothing is asked of the data in the second."""
    base = {"model": "kinds_of_settings.Plain", "data": "kinds_of_settings.Data"}
    asks = {**base, "model.network": "kinds_of_settings.Knows"}
    right = [asks, {**base, **wrong, "model.network": "torch.nn.Identity"}]
    assert check(right)[0] is None
    assert because in str(check([*right, {**asks, **wrong}])[0])


def test_a_default_of_other_data_lapses_but_not_the_same_value_asked_for(check):
    base = {"model": "kinds_of_settings.Plain", "model.network": "torch.nn.Identity", "data": "kinds_of_settings.Data"}
    assert check([base])[0] is None
    said, _ = check([base, {**base, "data.batch_size": 64}])  # as in base.yaml
    assert said is not None and "unknown setting `data.batch_size`" in said
