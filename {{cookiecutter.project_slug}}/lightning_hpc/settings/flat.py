"""Nested settings as one flat mapping of short keys, and back; and the files that they are read from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import SettingsError, did_you_mean
from .yaml_files import read_yaml

Flat = dict[str, Any]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested or dotted settings to short keys; `class_path` becomes the value of its key, `init_args` disappears."""
    flat: Flat = {}
    for key, value in nested.items():
        # jsonargparse's own words may also stand in a dotted key: `model.init_args.width`.
        name = f"{prefix}{key}".replace(".init_args.", ".").removesuffix(".class_path")

        if isinstance(value, Mapping) and "class_path" in value:
            flat[name] = value["class_path"]

            # A class's settings may stand in `init_args` or right beside `class_path`, where they win.
            class_settings = dict(value.get("init_args") or {})
            for word, setting in value.items():
                if word not in ("class_path", "init_args"):
                    class_settings[word] = setting
            flat |= flatten(class_settings, f"{name}.")
        elif isinstance(value, Mapping) and value and not is_value(name, value):
            flat |= flatten(value, f"{name}.")
        else:
            # An empty mapping stays as a value, too: there is no key below it that could stand for it.
            flat[name] = value

    return flat


def is_value(name: str, mapping: Mapping) -> bool:
    """True if a mapping has keys that no short key can hold, so that it stays in one piece: {"block1.conv": 0.1}.

    At the top of a section dots part keys, as in `model: {optimizer.lr: 0.1}`. Deeper, only a class above them tells
    (`Settings.spread`).
    """
    if "." not in name.removesuffix(".init_args"):
        return False
    return any(not isinstance(key, str) or "." in key for key in mapping)


def unflatten(flat: Flat) -> dict[str, Any]:
    """Short keys to the nested form that jsonargparse reads: a key with a value and keys below it is a class."""
    nested: dict[str, Any] = {}

    # Parents come first: only a key that is set already can turn out to be a class.
    for key in sorted(flat, key=depth):
        node = nested
        parts = key.split(".")

        for part, following in zip(parts, parts[1:], strict=False):
            # A value with a key below it is the name of a class.
            if not isinstance(node.setdefault(part, {}), dict):
                node[part] = {"class_path": node[part]}
            node = node[part]

            # What is below a class is its argument; `dict_kwargs` alone stands beside `init_args`.
            if "class_path" in node and following != "dict_kwargs":
                node = node.setdefault("init_args", {})

        node[parts[-1]] = flat[key]

    return nested


def depth(key: str) -> int:
    """How many keys are above a short key: 1 for model.network."""
    return key.count(".")


def nested_value(flat: Flat, key: str) -> Any:
    """A setting with all that is below it, in the nested form: `model.network` with its class and its width."""
    # Under a key without dots, the setting is at the top of the nested form, however deep it was.
    section = {}
    if key in flat:
        section["value"] = flat[key]
    for name, value in flat.items():
        if name.startswith(f"{key}."):
            section[f"value{name.removeprefix(key)}"] = value

    return unflatten(section).get("value")


def set_in_last_item(items: list[Any], below: str, value: Any) -> list[Any]:
    """A list of classes whose last one has another value for a setting.

    Args:
        items: class names, or classes in the nested form.
        below: the setting's short key without that of the list, such as monitor in trainer.callbacks.monitor.
        value: its value.
    """
    last = flatten({"value": items[-1]})
    last[f"value.{below}"] = value

    # A new list: copies of the settings share the old one.
    return [*items[:-1], nested_value(last, "value")]


def read_settings(path: str | Path) -> Flat:
    """Settings of one YAML file as short keys; SettingsError as `read_yaml`."""
    return flatten(read_yaml(path))


def read_layer(file: Path, root: Path) -> tuple[Flat, str]:
    """The settings of a file, and what to call it."""
    return read_settings(file), relative_to_project(file, root)


def find_settings_file(name: str, root: Path) -> Path:
    """A settings file as typed, or below the project's folder or its configs/.

    Raises:
        SettingsError: there is none; the message names similar ones.
    """
    for candidate in (Path(name), root / name, root / "configs" / name):
        if candidate.is_file():
            return candidate
    existing = [relative_to_project(file, root) for file in (root / "configs").rglob("*.yaml")]
    raise SettingsError(f"no such settings file: {name}{did_you_mean(name, existing)}")


def relative_to_project(path: Path, root: Path) -> str:
    """A path as a person would say it: relative to the project where that is possible."""
    if path.is_relative_to(root):
        path = path.relative_to(root)
    return str(path)
