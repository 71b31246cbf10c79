"""Settings of a run as one flat mapping of short keys: {"model.network": "…ConvNet", "model.network.width": 32, …}.

A short key is what one types after `--` on Train.py's command line. The same keys are used in configs/*.yaml, job specs
and sweeps, nested or dotted, with or without jsonargparse's `class_path` and `init_args`:

    model:                              model.network: my.Net            model:
      network:                          model.network.width: 32            network:
        class_path: my.Net                                                   width: 32
        init_args: (width: 32)

Settings come in layers (configs/base.yaml, each --config, the command line); the later one wins.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Flat = dict[str, Any]

# Sections whose settings are kept when their class changes (as far as the new class has them): another DataModule still
# has a batch_size. Everything below them starts afresh: SGD must not inherit the weight decay meant for AdamW.
KEPT_SECTIONS = ("model", "data")


class SettingsError(ValueError):
    """Something is wrong with what the user typed or wrote; the message is one line that says what to do."""


class Loader(yaml.SafeLoader):
    """SafeLoader without two surprises of YAML 1.1: here 1e-3 is a number, and 12:00:00 is not (but 43200 there)."""

    yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if not resolver[0].endswith(":int")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads back as it was: the text "1e-3" in quotes."""


for each in (Loader, Dumper):
    each.add_implicit_resolver(
        "tag:yaml.org,2002:int",
        re.compile(r"^[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$"),
        list("-+0123456789"),
    )
    each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$", re.IGNORECASE),
        list("-+0123456789."),
    )


def parse_value(text: str) -> Any:
    """A command-line value as YAML reads it; text that is no YAML stays text."""
    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except yaml.YAMLError:
        return text


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested or dotted settings to short keys; `class_path` becomes the value of its key, `init_args` disappears."""
    flat: Flat = {}
    for key, value in nested.items():
        name = f"{prefix}{key}".replace(".init_args.", ".").removesuffix(".class_path")
        if isinstance(value, Mapping) and "class_path" in value:
            flat[name] = value["class_path"]
            rest = {k: v for k, v in value.items() if k not in ("class_path", "init_args")}
            flat |= flatten({**(value.get("init_args") or {}), **rest}, f"{name}.")
        elif isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def unflatten(flat: Flat) -> dict[str, Any]:
    """Short keys to the nested form that jsonargparse reads: a key with a value and keys below it is a class."""
    nested: dict[str, Any] = {}
    for key in sorted(flat, key=lambda k: k.count(".")):  # parents first
        node, parts = nested, key.split(".")
        for part, following in zip(parts, parts[1:], strict=False):
            if not isinstance(node.setdefault(part, {}), dict):
                node[part] = {"class_path": node[part]}
            node = node[part]
            if "class_path" in node and following != "dict_kwargs":
                node = node.setdefault("init_args", {})
        node[parts[-1]] = flat[key]
    return nested


def dump(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, in their own order; `read` reads the same."""
    return yaml.dump(dict(settings), Dumper=Dumper, sort_keys=False, allow_unicode=True) if settings else ""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; {} if it is empty. A key that is there twice is an error, not the last one's.

    Raises:
        SettingsError: the file can't be read, is no YAML or holds no mapping.
    """
    path = Path(path)
    try:
        loader = Loader(path.read_text(encoding="utf-8"))  # a SafeLoader
        node = loader.get_single_node()
        refuse_repeated_keys(node, path)
        found = loader.construct_document(node) if node else None
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict | None):
        raise SettingsError(f"{path} must hold a mapping, `key: value` lines, found a {type(found).__name__}")
    return found or {}


def refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """PyYAML would let the last one win without a word."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise SettingsError(f"{path}: {twice[0]} is there twice")
    if isinstance(node, yaml.CollectionNode):
        for each in node.value:
            refuse_repeated_keys(each[1] if isinstance(each, tuple) else each, path)


def read(path: str | Path) -> Flat:
    """Settings of one YAML file as short keys; SettingsError as `read_yaml`."""
    return flatten(read_yaml(path))


def parse_arguments(arguments: Iterable[str]) -> Flat:
    """Settings of a command line, `--key value` or `--key=value`, in order; classes given as YAML are flattened."""
    pairs: list[tuple[str, Any]] = []
    for token in arguments:
        if token.startswith("--"):
            key, equals, text = token[2:].partition("=")
            pairs.append((key, parse_value(text) if equals else True))
        elif pairs:
            pairs[-1] = (pairs[-1][0], parse_value(token))
    flat: Flat = {}
    for key, value in pairs:
        if key.endswith("+"):
            value = [*flat.get(key, []), *(value if isinstance(value, list) else [value])]
        flat |= flatten({key: value})
    return flat


@dataclass
class Settings:
    """Layers of settings merged into one.

    Attributes:
        flat: short key → value.
        source: short key → where its value comes from (a file or "the command line").
        inherited: keys of `model` and `data` set before the section's class was changed; kept if the class has them.
    """

    flat: Flat = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    inherited: set[str] = field(default_factory=set)

    def add(self, layer: Flat, source: str) -> None:
        """Put a layer over what is there. `key+` appends to a list; a section with nothing in it changes nothing."""
        for key, value in layer.items():
            if key.endswith("+"):
                key, more = key[:-1], value if isinstance(value, list) else [value]
                value = [*(self.flat.get(key) or []), *more]
            old = self.flat.get(key)
            below = [k for k in self.flat if k.startswith(f"{key}.")]
            if value is None and below and (old is None or key in KEPT_SECTIONS):
                continue
            if below and not isinstance(value, Mapping) and not same_class(value, old):
                if key in KEPT_SECTIONS:
                    self.inherited |= {k for k in below if self.source[k] != source}
                else:
                    for stale in [k for k in below if k not in layer]:
                        self.drop(stale)
            self.flat[key] = value
            self.source[key] = source
            self.inherited.discard(key)

    def drop(self, key: str) -> None:
        """Forget a setting."""
        del self.flat[key], self.source[key]
        self.inherited.discard(key)


def same_class(a: Any, b: Any) -> bool:
    """Whether two class names mean the same: `SGD` is short for `torch.optim.SGD`."""
    if not (isinstance(a, str) and isinstance(b, str)):
        return a == b
    return a == b or a.endswith(f".{b}") or b.endswith(f".{a}")


def did_you_mean(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """' (did you mean A or B?)' for the nearest choices, each after the prefix, or '' if none is near."""
    near = difflib.get_close_matches(word, sorted(choices), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(f'{prefix}{choice}' for choice in near)}?)" if near else ""
