"""Where a module's file is, and the names at its top level."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Names(NamedTuple):
    """Names at the top level of a Python file.

    Attributes:
        defined: its own classes and functions.
        imported: name → path in the module that it is imported from.
    """

    defined: set[str]
    imported: dict[str, str]


def module_file(module: str, root: Path | None = None) -> Path | None:
    """The file of a module, which is not imported; None if there is none.

    Args:
        module: its full name.
        root: a folder that is looked into first, such as the project's.
    """
    parts = module.split(".")
    if root is not None:
        file = file_at(root.joinpath(*parts))
        if file is not None:
            return file

    # Only the top package is asked for: to find a module within it, Python would import the package.
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):  # the latter for a module that was made by hand
        return None
    if spec is None:
        return None

    if spec.submodule_search_locations:
        return file_at(Path(spec.submodule_search_locations[0]).joinpath(*parts[1:]))
    if len(parts) == 1 and spec.origin is not None and spec.origin.endswith(".py"):
        return Path(spec.origin)
    return None


def file_at(place: Path) -> Path | None:
    """The Python file of a module at a place: PLACE/__init__.py or PLACE.py."""
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    return None


def statements_in(file: Path) -> Iterator[ast.stmt]:
    """The statements at the top level of a file; none if it can't be read, which importing it will say."""
    try:
        pending: list[ast.stmt] = list(ast.parse(file.read_text(encoding="utf-8")).body)
    except (OSError, ValueError, SyntaxError):
        return

    while pending:
        statement = pending.pop()
        yield statement
        if isinstance(statement, ast.If | ast.Try):  # such as `if TYPE_CHECKING:`, or what may not be installed
            pending += [*statement.body, *statement.orelse]


def names_in(module: str, file: Path) -> Names:
    """The names at the top level of a module's file; none if it can't be read, which importing it will say."""
    names = Names(set(), {})
    is_package = file.name == "__init__.py"

    for statement in statements_in(file):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            names.defined.add(statement.name)
        elif isinstance(statement, ast.ImportFrom):
            origin = imported_module(statement, module, is_package)
            for alias in statement.names:
                names.imported[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return names


def imported_module(statement: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The full name of the module in `from … import`, which may be relative.

    Args:
        statement: the import.
        module: the module that it is in.
        is_package: True if that is a package's __init__.py, whose relative imports begin in the package itself.
    """
    if not statement.level:
        return statement.module or ""

    above = statement.level
    if is_package:
        above -= 1

    # `from . import name` has no module after the dots.
    parts = module.split(".")
    parts = parts[: len(parts) - above]
    if statement.module:
        parts.append(statement.module)
    return ".".join(parts)
