"""What the model and the network want to know about the data and nobody has set: classes, input_shape, …"""

import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, seed_everything

from ..classes import class_settings
from ..errors import SettingsError
from ..layers import Settings
from ..places import in_project, shown
from .arguments import Parser
from .messages import class_of
from .values import as_object

# What networks call a fact about the data → the DataModule's attribute that has it (channels: of its input_shape).
DATA_FACTS = dict(
    classes="classes", num_classes="classes", num_labels="classes",
    input_shape="input_shape", in_channels="channels", in_chans="channels", num_channels="channels",
)  # fmt: skip


def fill_from_data(settings: Settings) -> LightningDataModule | None:
    """Fill in what the model and the network want to know about the data and nobody has set: classes, input_shape, …

    Returns:
        the DataModule, if it had to be made; its constructor loads nothing.
    """
    missing = missing_facts(settings)
    if not missing:
        return None

    section = json.dumps(as_object(settings).get("data"), sort_keys=True)
    data = None
    if section not in _facts:
        seed = settings.flat.get("init_seed", settings.flat.get("seed_everything"))
        if not isinstance(seed, int):
            seed = 0  # a wrong one is said by the parser, a moment later
        data = make_data(section, seed)
        _facts[section] = facts_of(data)

    for key, fact in missing.items():
        if fact in _facts[section]:
            settings.put(key, _facts[section][fact], "the data")
    return data


def missing_facts(settings: Settings) -> dict[str, str]:
    """Settings of the model and the network that are facts about the data and not set: short key → fact."""
    missing = {}
    for owner in ("model", "model.network"):
        if not isinstance(settings.flat.get(owner), str):
            continue
        for name in class_settings(class_of(owner, settings)) & set(DATA_FACTS):
            if f"{owner}.{name}" not in settings.flat:
                missing[f"{owner}.{name}"] = DATA_FACTS[name]
    return missing


# Section of settings → facts: a launcher checks many runs, most of them with the same data.
_facts: dict[str, dict[str, Any]] = {}


def facts_of(data: LightningDataModule) -> dict[str, Any]:
    """classes, input_shape and channels of a DataModule, as far as it has them."""
    facts = {name: getattr(data, name) for name in ("classes", "input_shape") if hasattr(data, name)}

    # YAML and JSON know lists and no tuples; an image's channels come first.
    if "input_shape" in facts:
        facts["input_shape"] = list(facts["input_shape"])
        facts["channels"] = facts["input_shape"][0]
    return facts


def make_data(section: str, seed: int) -> LightningDataModule:
    """A DataModule from its class and settings, `data: …`, as JSON; the seed is for what its constructor may draw.

    Raises:
        SettingsError: its constructor refuses a setting.
    """
    parser = Parser(allow_abbrev=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    settings = parser.parse_object({"data": json.loads(section)})
    place_folders(settings.data.get("init_args"))
    seed_everything(seed, workers=True, verbose=False)
    try:
        return parser.instantiate_classes(settings).data
    except ValueError as error:
        # jsonargparse lists all types that it has tried; what the constructor itself said is the cause.
        if isinstance(error.__cause__, SettingsError):
            raise error.__cause__ from None
        raise error from None


def place_folders(settings: Namespace | None) -> None:
    """Let the folders of a DataModule, of any that has them, count from the project's, wherever the process works."""
    for name in ("data_dir", "predict_dir"):
        folder = (settings or Namespace()).get(name)
        if isinstance(folder, str | Path):
            settings[name] = type(folder)(shown(in_project(folder)))
