"""The parts of the pages that cannot drift, because they are read from the code or from measurements at each build.

A marker in a page, on a line of its own, is replaced:

    <!-- class: data.Digits data -->       arguments of a class; the keys begin with the last word
    <!-- interface: cka -->                what a room of lightning_hpc exports: signatures and docstrings
    <!-- errors: all -->                   what the machine room's errors can say
    <!-- settings: settings -->            settings that this room adds to those of classes
    <!-- figures: generation.json -->      a table of docs/benchmarks/data/generation.json
    <!-- chart: launch -->                 bars of such a table, as charts.py makes them
    <!-- clusters: configs/clusters -->    a table of the presets
    <!-- keys: preset -->                  the keys of a preset from its schema, or `resources` from their table

The code is parsed and not imported, so that building the pages needs neither torch nor anything else of a project.
"""

import ast
import json
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from charts import chart
from interface import interface
from messages import listed

DOCS = Path(__file__).parent
PROJECT = DOCS.parent / "{{cookiecutter.project_slug}}"
PACKAGE = PROJECT / "{{cookiecutter.package_name}}"
ROOMS = PROJECT / "lightning_hpc"
MARKER = re.compile(
    r"^<!-- (class|interface|errors|settings|figures|chart|clusters|keys): (\S+) ?(\S*) -->$", re.MULTILINE
)


def fill_in(page: str) -> str:
    """Return a page's text with its markers replaced."""
    sources = {"class": class_arguments, "interface": exports, "settings": added_settings, "figures": figures}
    sources |= {"errors": lambda _: listed(), "chart": chart, "clusters": clusters, "keys": keys}
    return MARKER.sub(lambda marker: sources[marker[1]](*filter(None, marker.groups()[1:])), page)


def setting(key: str, kind: str, default: str | None, text: str) -> str:
    """One line of the reference."""
    default = "required" if default is None else f"default `{default}`"
    return f"- `{key}` (`{kind}`, {default}): {' '.join(text.split())}\n"


def module_files(module: str) -> list[Path]:
    """The files of a module by its dotted name; of a room of lightning_hpc all files in it."""
    place = PROJECT if module.startswith("lightning_hpc") else PACKAGE
    path = place / module.replace(".", "/")
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def find_definition(module: str, name: str) -> tuple[list[ast.stmt], ast.ClassDef | ast.FunctionDef]:
    """The class or function of that name, and all statements of the file that it is in."""
    for file in module_files(module):
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        for statement in statements:
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return statements, statement
    raise LookupError(f"there is no {name} in {module}")


def class_arguments(path: str, prefix: str = "") -> str:
    """The first sentence of a class's docstring, and name, type, default and description of each argument."""
    module, _, name = path.rpartition(".")
    statements, node = find_definition(module, name)
    summary, _, rest = ast.get_docstring(node).partition("\n\n")
    summary = " ".join(summary.split())

    constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if not constructors:  # the arguments are those of the class that it inherits from
        parent = node.bases[0].id
        imports = [statement for statement in statements if isinstance(statement, ast.ImportFrom)]
        home = next(item.module for item in imports if parent in [alias.name for alias in item.names])
        inherited = class_arguments(f"{home}.{parent}", prefix)
        return f"{summary}\n\n{inherited.partition(chr(10) * 2)[2]}"

    (constructor,) = constructors
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", f"{rest}\n", re.MULTILINE)
    described = dict(re.findall(r"^    (\w+): ((?:.*\n?)(?: {8}.*\n?)*)", section[1], re.MULTILINE))
    arguments = constructor.args.args[1:]
    defaults = [None] * (len(arguments) - len(constructor.args.defaults)) + constructor.args.defaults
    lines = [
        setting(
            f"--{prefix}.{argument.arg}" if prefix else argument.arg,
            ast.unparse(argument.annotation),
            default and ast.unparse(default),
            described[argument.arg],
        )
        for argument, default in zip(arguments, defaults, strict=True)
    ]
    return f"{summary}\n\n{''.join(lines)}"


def exported_names(room: str) -> list[str]:
    """The public names of a room: what its __init__.py imports from its files, or from another room's."""
    nodes = ast.walk(ast.parse((ROOMS / room / "__init__.py").read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level in (1, 2)]
    names = [alias.name for statement in imports for alias in statement.names]
    return sorted(names, key=str.lower)


def exports(room: str) -> str:
    """The interface of a room; of lightning_hpc itself, `load`."""
    if room == "lightning_hpc":  # it imports `load` late, so no statement there says where it is from
        return interface("training.evaluate", ["load"])
    return interface(room, exported_names(room))


def added_settings(room: str) -> str:
    """Name, type, default and help of each `parser.add_argument("--…")` in a room of lightning_hpc."""
    lines = []
    for file in module_files(f"lightning_hpc.{room}"):
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: call.lineno):
            if getattr(call.func, "attr", "") != "add_argument" or not call.args[0].value.startswith("--"):
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            kind = ast.unparse(given["type"]) if "type" in given else "str"
            default = ast.unparse(given["default"]) if "default" in given else "None"
            lines.append(setting(call.args[0].value, kind, default, given["help"].value))
    return "".join(lines)


def clusters(folder: str) -> str:
    """A table of the presets: what they hold, and where and when it was read."""
    lines = ["| preset | status | platform | partitions | needs | read on | source |", "|---" * 7 + "|"]
    for file in sorted((PROJECT / folder).glob("*.yaml")):
        preset = yaml.safe_load(file.read_text(encoding="utf-8"))
        partitions = ", ".join(
            f"{name} ({limits.get('time', '?')})" for name, limits in preset.get("partitions", {}).items()
        )
        needs = preset.get("required", []) + ["gpu_type"] * preset.get("gpu_type_required", False)
        cells = [preset["status"], preset.get("platform", "any"), partitions, ", ".join(needs), preset["checked"]]
        lines.append(
            f"| `{file.stem}` | {' | '.join(cells)} | [{preset['source'].split('/')[2]}]({preset['source']}) |"
        )
    return "\n".join(lines)


def keys(table: str) -> str:
    """Each key of a preset, or of the resources that a job asks for, and what it means."""
    if table == "resources":
        described = resource_keys()
    else:
        schema = json.loads((ROOMS / "clusters" / "cluster.schema.json").read_text(encoding="utf-8"))
        properties = schema["$defs"][table]["properties"]
        described = {name: schema_of_key["description"] for name, schema_of_key in properties.items()}
    return "\n".join(f"- `{key}`: {text}" for key, text in described.items())


def resource_keys() -> dict[str, str]:
    """The fields of the table of resources, each with the text that `key("…")` gives it."""
    _, table = find_definition("lightning_hpc.clusters", "Resources")
    fields = [item for item in table.body if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call)]
    return {item.target.id: item.value.args[0].value for item in fields if item.value.func.id == "key"}


def figures(file: str) -> str:
    """A measurement as a table: one row per case, a column per value, and below it where, when and how it was made."""
    path = DOCS / "benchmarks" / "data" / file
    if not path.exists():
        return "*Not measured yet.*"
    data = json.loads(path.read_text(encoding="utf-8"))
    columns = list(dict.fromkeys(name for row in data["rows"] for name in row))
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    lines += [[number(row.get(name, "")) for name in columns] for row in data["rows"]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMeasured on {data['date']}: `{data['command']}`. Machine: {data['machine']}."


def number(value: object) -> str:
    """A value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
