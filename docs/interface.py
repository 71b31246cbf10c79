"""The Python interface as a page: signatures and docstrings of what the rooms of lightning_hpc export.

griffe reads the code without importing it, so that building the pages needs no PyTorch. A marker in a page is replaced
by the interface of a room: <!-- interface: cka -->
"""

import logging
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"
TITLES = {"parameters": "Arguments", "attributes": "Attributes", "raises": "Raises", "returns": "Returns"}


def interface(room: str, names: Iterable[str]) -> str:
    """Each exported name of a room: its signature, and its docstring in sections.

    Args:
        room: such as cka; "" for lightning_hpc itself.
        names: what it exports.
    """
    import griffe

    logging.getLogger("griffe").setLevel(logging.ERROR)
    package = griffe.load("lightning_hpc", search_paths=[PROJECT], allow_inspection=False)
    place = f"{room}." if room else ""
    return "\n".join(described(package[f"{place}{name}"], name, level="###") for name in names)


def described(thing: Any, name: str, level: str) -> str:
    """A class or function under a heading; of a class its public methods too."""
    if thing.is_alias:
        thing = thing.final_target
    if thing.is_module:  # the function compare is in a file of that name
        thing = thing[name]
    lines = [f"{level} {name}", "", f"```python\n{signature(thing, name)}\n```", ""]
    if thing.docstring:
        for section in thing.docstring.parse("google", warnings=False, returns_multiple_items=False):
            lines += of_section(section)
    if thing.is_class:
        for method in thing.members.values():
            if method.is_function and not method.name.startswith("_") and method.docstring:
                summary = method.docstring.value.partition("\n\n")[0]
                lines += [f"- `{signature(method, method.name)}`: {' '.join(summary.split())}"]
    return "\n".join(lines) + "\n"


def signature(thing: Any, name: str) -> str:
    """How it is called, with types and defaults; on several lines where it is long."""
    if thing.is_attribute:
        return f"{name} = {thing.value}"

    arguments = []
    stars = {"variadic positional": "*", "variadic keyword": "**"}
    for parameter in thing.parameters:
        if parameter.name in ("self", "cls"):
            continue
        text = stars.get(parameter.kind.value if parameter.kind else "", "") + parameter.name
        text += f": {parameter.annotation}" if parameter.annotation else ""
        if parameter.default is not None and not text.startswith("*"):
            text += f" = {parameter.default}"
        arguments.append(text)
    returns = f" -> {thing.returns}" if thing.is_function and thing.returns else ""

    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"


def of_section(section: Any) -> list[str]:
    """A part of a docstring as Markdown."""
    kind = section.kind.value
    if kind == "text":
        return [prose(section.value), ""]
    if kind == "examples":
        blocks = [prose(text) if form.value == "text" else code(text) for form, text in section.value]
        return ["**Example**", "", *blocks, ""]
    if kind == "admonition":
        text = textwrap.dedent(section.value.description)
        return [f"**{section.title}**", "", code(text) if text.startswith(">>>") else prose(text), ""]
    if kind not in TITLES:
        return []

    lines = [f"**{TITLES[kind]}**", ""]
    for item in section.value:
        what = getattr(item, "name", "") or item.annotation
        text = " ".join(prose(item.description).split())
        lines.append(f"- `{what}`: {text}" if what else f"- {text}")
    return [*lines, ""]


def prose(text: str) -> str:
    """A docstring's text as Markdown: its formulas, and its code."""
    text = re.sub(r"\.\. math::\n((?:[ ]+.*\n?)+)", lambda found: f"$$\n{textwrap.dedent(found[1])}$$\n", text)
    return text.replace("``", "`")


def code(text: str) -> str:
    """An example, without the words that keep it out of the tests."""
    return "```python\n" + re.sub(r"\s*# doctest: .*", "", text) + "\n```"
