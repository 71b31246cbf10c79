"""What the arguments of a class take, read from its Python file: enough to tell the number 1.1 from the text 1.10.

The parser has the last word on types, but it imports the class and PyTorch with it. A plan of a thousand runs, and the
identity of each, need only one question answered: is what was typed a text?
"""

import ast
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .names import imported_module, module_file, statements_in

# Types of a single word. A path is a text, too.
WORDS = {"str": "str", "Path": "str", "PathLike": "str", "int": "int", "float": "float", "bool": "bool", "None": "None"}

# Kinds of what can't be a single word on a command line, so that a number or true is meant for another alternative.
COLLECTIONS = ("list", "tuple", "dict", "set", "List", "Tuple", "Dict", "Set", "Sequence", "Iterable", "Mapping")

MOST_BASES = 20  # a class has no more of them, one above another


class Kinds(NamedTuple):
    """What an argument takes, as far as its file says so.

    Attributes:
        words: of str, int, float, bool and None, those that it takes.
        choices: the values of a Literal.
        others: True if it takes something else, such as a class, or if nobody can tell.
        anything: True if it has no type, or Any.
    """

    words: frozenset[str] = frozenset()
    choices: tuple[Any, ...] = ()
    others: bool = False
    anything: bool = False

    def __or__(self, other: "Kinds") -> "Kinds":  # type: ignore[override]
        return Kinds(
            self.words | other.words,
            self.choices + other.choices,
            self.others or other.others,
            self.anything or other.anything,
        )


OTHERS, ANYTHING = Kinds(others=True), Kinds(anything=True)


class Scope(NamedTuple):
    """The top level of a Python file.

    Attributes:
        defined: name → its class or function.
        imported: name → the path that it is imported from.
        assigned: name → the expression that it stands for, such as `Size = Literal["small", "large"]`.
    """

    defined: dict[str, ast.ClassDef | ast.FunctionDef]
    imported: dict[str, str]
    assigned: dict[str, ast.expr]


def argument_kinds(class_path: str, root: Path | None = None) -> Mapping[str, Kinds]:
    """Arguments of a class or function → what each takes; those that it passes on to a class above it are among them.

    Args:
        class_path: its name in full.
        root: the project's folder.
    """
    return kinds_at(class_path, root, 0)


@functools.lru_cache(maxsize=256)  # a plan of a thousand runs has the same few classes in each
def read_arguments(
    module: str, leaf: str, file: Path, changed: int, root: Path | None, depth: int = 0
) -> dict[str, Kinds]:
    """What argument_kinds does.

    Args:
        module: the module of the class.
        leaf: its name in there.
        file: the module's file.
        changed: when that has changed, in nanoseconds: then it is read again.
        root: the project's folder.
        depth: how many classes have this one above them.
    """
    scope = read_scope(module, file)
    if leaf in scope.imported:
        return kinds_at(scope.imported[leaf], root, depth)
    definition = scope.defined.get(leaf)
    if isinstance(definition, ast.FunctionDef):
        return kinds_of_arguments(definition, scope)
    if definition is None:
        return {}

    # Those of the classes above come first, so that the class's own take their place.
    kinds: dict[str, Kinds] = {}
    constructor = constructor_of(definition)
    if constructor is None or constructor.args.kwarg is not None:
        for base in reversed(definition.bases):
            kinds |= kinds_at(path_of(ast.unparse(base), module, scope), root, depth)
    if constructor is not None:
        return kinds | kinds_of_arguments(constructor, scope)

    # A dataclass has its arguments as names in its body; in another class, such a name does no harm.
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            kinds[statement.target.id] = kinds_of(statement.annotation, scope)
    return kinds


def kinds_at(class_path: str, root: Path | None, depth: int) -> Mapping[str, Kinds]:
    """The arguments of a class with its whole path; none if its file is not found."""
    module, _, leaf = class_path.rpartition(".")
    file = module_file(module, root) if module else None
    if file is None or depth > MOST_BASES:
        return {}
    return read_arguments(module, leaf, file, file.stat().st_mtime_ns, root, depth + 1)


def read_scope(module: str, file: Path) -> Scope:
    """The top level of a module's file."""
    scope = Scope({}, {}, {})
    for statement in statements_in(file):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            scope.defined[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            origin = imported_module(statement, module, file.name == "__init__.py")
            for alias in statement.names:
                scope.imported[alias.asname or alias.name] = f"{origin}.{alias.name}"
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.asname:
                    scope.imported[alias.asname] = alias.name
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            scope.assigned[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            scope.assigned[statement.target.id] = statement.value
    return scope


def constructor_of(definition: ast.ClassDef) -> ast.FunctionDef | None:
    """The `__init__` of a class, if it has one of its own."""
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement
    return None


def path_of(name: str, module: str, scope: Scope) -> str:
    """The full name of a class that a file calls by this name."""
    first, dot, rest = name.partition(".")
    if first in scope.imported:
        return f"{scope.imported[first]}{dot}{rest}"
    if first in scope.defined:
        return f"{module}.{name}"
    return name


def kinds_of_arguments(function: ast.FunctionDef, scope: Scope) -> dict[str, Kinds]:
    """Arguments of a function → what each takes."""
    arguments = function.args
    kinds = {}
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.annotation is None:
            kinds[argument.arg] = ANYTHING
        else:
            kinds[argument.arg] = kinds_of(argument.annotation, scope)
    return kinds


def kinds_of(annotation: ast.expr, scope: Scope, depth: int = 0) -> Kinds:
    """What a type takes. `depth` counts names that stand for other names."""
    if isinstance(annotation, ast.Constant):
        return kinds_of_constant(annotation, scope, depth)

    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return kinds_of(annotation.left, scope, depth) | kinds_of(annotation.right, scope, depth)

    if isinstance(annotation, ast.Subscript):
        return kinds_of_subscript(annotation, scope, depth)

    if isinstance(annotation, ast.Name | ast.Attribute):
        name = ast.unparse(annotation)
        if name in scope.assigned and depth < MOST_BASES:
            return kinds_of(scope.assigned[name], scope, depth + 1)

        last = name.rpartition(".")[2]
        if last in WORDS:
            return Kinds(words=frozenset([WORDS[last]]))
        if last in COLLECTIONS:
            return Kinds()
        if last in ("Any", "object"):
            return ANYTHING
    return OTHERS


def kinds_of_constant(annotation: ast.Constant, scope: Scope, depth: int) -> Kinds:
    """What `None` takes, and a type that is written in quotes."""
    if annotation.value is None:
        return Kinds(words=frozenset(["None"]))
    if isinstance(annotation.value, str) and depth < MOST_BASES:
        try:
            return kinds_of(ast.parse(annotation.value, mode="eval").body, scope, depth + 1)
        except SyntaxError:
            return OTHERS
    return OTHERS


def kinds_of_subscript(annotation: ast.Subscript, scope: Scope, depth: int) -> Kinds:
    """What a type with brackets takes."""
    parts = [annotation.slice]
    if isinstance(annotation.slice, ast.Tuple):
        parts = annotation.slice.elts
    name = ast.unparse(annotation.value).rpartition(".")[2]

    if name == "Literal":
        return Kinds(choices=tuple(part.value for part in parts if isinstance(part, ast.Constant)))
    if name in COLLECTIONS:
        return Kinds()
    if name in ("Annotated", "Final"):
        return kinds_of(parts[0], scope, depth)
    if name not in ("Union", "Optional"):
        return OTHERS

    kinds = Kinds()
    for part in parts:
        kinds |= kinds_of(part, scope, depth)
    if name == "Optional":
        kinds |= Kinds(words=frozenset(["None"]))
    return kinds
