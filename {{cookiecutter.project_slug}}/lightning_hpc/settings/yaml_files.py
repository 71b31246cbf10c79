"""YAML as people mean it: 1e-3 is a number, 12:00:00 is text, a repeated key is an error."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import SettingsError

# No settings are larger. A small file can stand for more: its anchors are written once and can be used many times.
MOST_NODES = 100_000
DEEPEST = 50  # levels of lists and mappings in one another


class Loader(yaml.SafeLoader):
    """SafeLoader without two surprises of YAML 1.1: here 1e-3 is a number, and 12:00:00 is not (but 43200 there)."""

    # First letter → what a text that begins with it may be. YAML 1.1's whole numbers go; others are added below.
    yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if not resolver[0].endswith(":int")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    depth = 0  # of the node that is being read

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one node and all in it; PyYAML's own method, which would end in the depth of Python's stack."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise SettingsError(f"is nested too deeply: {DEEPEST} levels are the most")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads back as it was: the text "1e-3" in quotes."""


# The dumper gets the same rules, so that it knows which texts need quotes.
for yaml_class in (Loader, Dumper):
    yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:int",
        re.compile(r"^[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$"),
        list("-+0123456789"),
    )

    # Unlike YAML 1.1, an exponent needs neither a point before it nor a sign in it.
    yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$", re.IGNORECASE),
        list("-+0123456789."),
    )


def parse_value(text: str) -> Any:
    """A command-line value as YAML reads it; text that is no YAML stays text.

    Raises:
        SettingsError: the value is nested too deeply, refers to itself, or stands for more than it shows.
    """
    try:
        loader = Loader(text)  # a SafeLoader
        node = loader.get_single_node()
        check_size(node)
        return None if node is None else loader.construct_document(node)
    except SettingsError as error:
        raise SettingsError(f"a value {error}: {' '.join(text[:80].split())}…") from None
    except (yaml.YAMLError, ValueError):
        return text  # some are no YAML, and some only look like a date or a number


def typed_value(value: Any) -> Any:
    """A value in the form in which it can be typed: `parse_value(str(typed_value(value)))` is exactly `value`.

    Most values are returned as they are: numbers stay numbers for a tracker that draws them, and most texts are plain.
    Others become YAML in a text: None is null, and the text null is 'null', in quotes.
    """
    if repr(parse_value(str(value))) == repr(value) and survives_json(value):
        return value

    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")  # the mark of a document's end


def survives_json(value: Any) -> bool:
    """True if a value is the same after a server has kept it as JSON, with whole numbers as floating-point ones."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False  # dates; infinity
    return repr(json.loads(text, parse_int=lambda digits: int(float(digits)))) == repr(value)


def dump(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, in their own order; `read` reads the same."""
    # PyYAML would write `{}`, to which nobody can add a line.
    if not settings:
        return ""

    return yaml.dump(dict(settings), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; {} if it is empty. A key that is there twice is an error, not the last one's.

    Raises:
        SettingsError: the file can't be read, is no YAML or holds no mapping.
    """
    path = Path(path)
    content = None
    try:
        loader = Loader(path.read_text(encoding="utf-8"))  # a SafeLoader
        node = loader.get_single_node()
        check_size(node)

        # Repeated keys can be seen only here: in the dict that is made of the node, the last one has won.
        check_repeated_keys(node)
        if node is not None:
            content = loader.construct_document(node)
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        # Of text that is no YAML, in another encoding, or of a date or number that Python can't make.
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None

    if not isinstance(content, dict | None):
        raise SettingsError(f"{path} must hold a mapping, `key: value` lines, found a {type(content).__name__}")
    return content or {}


def check_size(node: yaml.Node | None) -> None:
    """Check that YAML stands for no more than settings can be, once all of its references are written out.

    Raises:
        SettingsError: it refers to itself, is nested too deeply or is too large.
    """
    if node is not None:
        measure(node, {}, set())


def measure(node: yaml.Node, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """How many nodes a node stands for, and on how many levels.

    Args:
        node: the node.
        known: what was measured already, by id: a node with an anchor is looked into only once.
        above: ids of the nodes that this one is in.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise SettingsError("refers to itself: an anchor may not be used within what it names")

    nodes, levels = 1, 1
    for child in children(node):
        nodes_below, levels_below = measure(child, known, above | {id(node)})
        nodes += nodes_below
        levels = max(levels, levels_below + 1)

    if levels > DEEPEST:
        raise SettingsError(f"is nested too deeply: {DEEPEST} levels are the most")
    if nodes > MOST_NODES:
        raise SettingsError(f"stands for more than {MOST_NODES:,} values, once its references are written out")

    known[id(node)] = (nodes, levels)
    return nodes, levels


def children(node: yaml.Node) -> list[yaml.Node]:
    """The nodes right below a node: items of a list, keys and values of a mapping."""
    if isinstance(node, yaml.SequenceNode):
        return node.value
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return []


def check_repeated_keys(top: yaml.Node | None) -> None:
    """Check that no mapping has a key twice: PyYAML would let the last one win without a word.

    Raises:
        SettingsError: one has.
    """
    pending = [] if top is None else [top]
    seen: set[int] = set()  # nodes that several references name
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending += children(node)

        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # a list as a key, which can't be compared; Python refuses it later
                if key.value in keys:
                    raise SettingsError(f"{key.value} is there twice")
                keys.add(key.value)
