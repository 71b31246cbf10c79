"""Values arrive in the type of their setting."""

from pathlib import Path

import pytest

TYPES = """
import enum
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Net(nn.Module):
    def __init__(
        self, text: str = "x", maybe: str | None = None, size: Literal["MLP", "CNN", 1] = "CNN", word: int | str = 1,
        number: float = 1.0, count: int | None = 3, rates: dict[str, float] = {},
        nested: dict[str, dict[str, float]] = {}, free: dict = {}, pair: tuple[int, float] = (1, 2.0),
        several: tuple[str, ...] = (), file: Path = Path("x"), colour: Colour = Colour.RED, texts: list[str] = [],
        kind: torch.dtype = torch.float32, switch: bool = False, anything: Any = None, untyped=None,
        layer: nn.Module | str = "ReLU6",
    ):
        super().__init__()
        self.given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
"""


@pytest.fixture
def parse(project, tmp_path, monkeypatch):
    """Parses a command line as Train.py does; returns the settings, with the model made."""
    from lightning_hpc.runs.run import read_command_line
    from lightning_hpc.settings.parser import CLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("values_of_types.py").write_text(TYPES)

    def run(*arguments):
        cli = CLI("fit", read_command_line("fit", ["--cka=null", *arguments], project).settings)
        cli.make_model()
        return cli

    return run


def network_of(cli):
    return cli.resolved["model"]["init_args"]["network"]


def test_null_is_a_value_of_an_optional_number(parse):
    Path("optional_numbers.py").write_text(
        "from typing import Optional\n\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, one: int | None = 3, other: Optional[int] = 4):\n"
        "        super().__init__()\n"
        "        self.given = one, other\n"
    )
    line = ("--model.network=optional_numbers.Net", "--model.network.one", "null", "--model.network.other=null")
    assert parse(*line).model.network.given == (None, None)


def test_names_of_classes_are_texts_where_a_text_is_taken(parse):
    line = ["--model.network=values_of_types.Net", "--model.network.size=MLP"]
    names = ("text", "maybe", "word", "file", "anything", "untyped", "layer")
    line += [f"--model.network.{name}=Adam" for name in names]
    found = network_of(parse(*line))["init_args"]
    assert {name: found[name] for name in names} == dict.fromkeys(names, "Adam")
    assert found["size"] == "MLP"


def test_what_is_typed_has_the_type_of_its_setting(parse):
    typed = {
        "text": ("1.10", "1.10"), "maybe": ("null", None), "word": ("007", 7), "count": ("null", None),
        "number": (".inf", float("inf")), "rates.block1.conv": ("0.2", 0.2), "switch": ("yes", True),
        "layer": ("torch.nn.ReLU", None),
    }  # fmt: skip
    line = [f"--model.network.{name}={text}" for name, (text, _) in typed.items()]
    given = parse("--model.network=values_of_types.Net", *line).model.network.given
    expected = {name: value for name, (_, value) in typed.items() if "." not in name and name != "layer"}
    assert {name: given[name] for name in expected} == expected
    assert given["rates"] == {"block1.conv": 0.2}
    assert type(given["layer"]).__name__ == "ReLU"
