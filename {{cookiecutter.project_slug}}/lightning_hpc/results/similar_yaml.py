"""Many YAML files that are nearly the same: one is parsed, and of the others only the lines that differ.

A thousand runs of one experiment have the same 130 lines of config.yaml but for a learning rate and a seed. PyYAML
takes 40 ms for such a file, its version in C one; to compare its lines with those of the file before takes 0.05.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import yaml

from ..settings.flat import Flat, flatten
from ..settings.yaml_files import Loader

REMEMBERED = 8  # files to compare with, the newest: those of other experiments have other keys

# libyaml, where PyYAML was built with it, with our rules for numbers and texts.
_base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FastLoader(_base):
    """The Loader of settings/yaml_files.py, in C."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


class Parsed:
    """A file that was parsed as a whole.

    Attributes:
        lines: its lines.
        flat: its settings, as short keys.
        keys: number of a line → the short key whose whole value stands in that line.
    """

    def __init__(self, lines: list[bytes], text: bytes) -> None:
        self.lines = lines

        loader = FastLoader(text)  # a SafeLoader
        try:
            node = loader.get_single_node()
            content = loader.construct_document(node) if node is not None else {}
        finally:
            loader.dispose()
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")

        self.flat = flatten(content)
        self.keys: dict[int, str] = {}
        if node is not None:
            self._find_lines(node, "")

    def _find_lines(self, node: yaml.MappingNode, prefix: str) -> None:
        """Note the lines that hold one key with its whole value."""
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if isinstance(value, yaml.MappingNode) and value.value:
                self._find_lines(value, f"{name}.")
                continue

            # A list is one value of many lines, a long text may be; neither is exchanged line by line.
            is_in_one_line = key.start_mark.line == value.start_mark.line == value.end_mark.line
            short = name.replace(".init_args.", ".").removesuffix(".class_path")
            if is_in_one_line and short in self.flat:
                self.keys[key.start_mark.line] = short


class SimilarFiles:
    """Reads one file after the other, each by comparison with those before it."""

    def __init__(self) -> None:
        self._parsed: list[Parsed] = []
        self._values: dict[bytes, Any] = {}  # text → value: the same few stand in all files

    def read(self, text: bytes) -> Flat:
        """Settings of a file, as short keys.

        Raises:
            ValueError: it is no YAML, or holds no mapping.
        """
        # The comments at the top differ in every file: config.yaml begins with the command that made it.
        while text.startswith(b"#"):
            text = text.partition(b"\n")[2]
        lines = text.split(b"\n")

        for parsed in self._parsed:
            settings = self._by_comparison(lines, parsed)
            if settings is not None:
                return settings

        try:
            parsed = Parsed(lines, text)
        except (yaml.YAMLError, UnicodeError, RecursionError) as error:
            raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None

        self._parsed = [parsed, *self._parsed[: REMEMBERED - 1]]
        return dict(parsed.flat)

    def _by_comparison(self, lines: Sequence[bytes], parsed: Parsed) -> Flat | None:
        """The settings, if every line that differs from a parsed file's is the same key with another value."""
        if len(lines) != len(parsed.lines):
            return None

        settings = dict(parsed.flat)
        different = itertools.compress(itertools.count(), map(operator.ne, lines, parsed.lines))
        for number in different:
            key, colon, value = lines[number].partition(b": ")
            same_key = colon and number in parsed.keys and parsed.lines[number].startswith(key + colon)
            if not same_key:
                return None

            # Anchors, block texts and open quotes reach beyond the line.
            if value not in self._values:
                try:
                    self._values[value] = one_line_value(value)
                except (ValueError, yaml.YAMLError):
                    return None
            settings[parsed.keys[number]] = self._values[value]
        return settings


def one_line_value(text: bytes) -> Any:
    """The value in `key: value`.

    Raises:
        ValueError, yaml.YAMLError: it does not end in this line, or is none by itself.
    """
    if text[:1] in (b"|", b">", b"&", b"*", b"!") or b" #" in text:
        raise ValueError("not a plain value")
    value = yaml.load(text, FastLoader)  # a SafeLoader
    if isinstance(value, dict | list) and value:
        raise ValueError("settings with keys of their own")
    return value
