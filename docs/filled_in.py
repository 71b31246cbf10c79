"""The parts of the pages that cannot drift, because they are read from the code or from measurements at each build.

A marker in a page, on a line of its own, is replaced:

    <!-- class: data.Digits data -->       arguments of a class of the package; the keys begin with the last word
    <!-- settings: training/cli.py -->     settings that the command line adds
    <!-- figures: generation.json -->      a table of docs/benchmarks/data/generation.json
    <!-- clusters: configs/clusters -->     a table of the presets
    <!-- keys: preset -->                   the keys of a preset, or those of `resources`, from the presets' schema

The code is parsed and not imported, so that building the pages needs neither torch nor anything else of a project.
"""

import ast
import json
import re
from pathlib import Path

import yaml

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "{{cookiecutter.project_slug}}" / "{{cookiecutter.package_name}}"
MARKER = re.compile(r"^<!-- (class|settings|figures|clusters|keys): (\S+) ?(\S*) -->$", re.MULTILINE)


def fill_in(page: str) -> str:
    """A page's text with its markers replaced."""
    sources = {"class": class_arguments, "settings": added_settings, "figures": figures}
    sources |= {"clusters": clusters, "keys": keys}
    return MARKER.sub(lambda marker: sources[marker[1]](*filter(None, marker.groups()[1:])), page)


def setting(key: str, kind: str, default: str | None, text: str) -> str:
    """One line of the reference."""
    default = "required" if default is None else f"default `{default}`"
    return f"- `{key}` (`{kind}`, {default}): {' '.join(text.split())}\n"


def class_arguments(path: str, prefix: str = "") -> str:
    """The first sentence of a class's docstring, and name, type, default and description of each argument."""
    module, _, name = path.rpartition(".")
    file = PACKAGE / f"{module.replace('.', '/')}.py"
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    node = next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)
    summary, _, rest = ast.get_docstring(node).partition("\n\n")
    constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if not constructors:  # the arguments are those of the class that it inherits from
        parent = node.bases[0].id
        home = next(n.module for n in nodes if isinstance(n, ast.ImportFrom) and parent in [a.name for a in n.names])
        return f"{' '.join(summary.split())}\n\n{class_arguments(f'{home}.{parent}', prefix).partition(chr(10) * 2)[2]}"
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
    return f"{' '.join(summary.split())}\n\n{''.join(lines)}"


def added_settings(file: str) -> str:
    """Name, type, default and help of each `parser.add_argument("--…")` in a file of the package."""
    nodes = ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))
    calls = [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "add_argument"]
    lines = []
    for call in sorted(calls, key=lambda call: call.lineno):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        kind = ast.unparse(given["type"]) if "type" in given else "str"
        default = ast.unparse(given["default"]) if "default" in given else "None"
        lines.append(setting(call.args[0].value, kind, default, given["help"].value))
    return "".join(lines)


def clusters(folder: str) -> str:
    """A table of the presets: what they hold, and where and when it was read."""
    lines = ["| preset | status | platform | partitions | needs | read on | source |", "|---" * 7 + "|"]
    for file in sorted((PACKAGE.parent / folder).glob("*.yaml")):
        preset = yaml.safe_load(file.read_text(encoding="utf-8"))
        partitions = ", ".join(
            f"{name} ({each.get('time', '?')})" for name, each in preset.get("partitions", {}).items()
        )
        needs = preset.get("required", []) + ["gpu_type"] * preset.get("gpu_type_required", False)
        cells = [preset["status"], preset.get("platform", "any"), partitions, ", ".join(needs), preset["checked"]]
        lines.append(
            f"| `{file.stem}` | {' | '.join(cells)} | [{preset['source'].split('/')[2]}]({preset['source']}) |"
        )
    return "\n".join(lines)


def keys(definition: str) -> str:
    """Each key of a definition in the presets' schema, and what it means."""
    schema = json.loads((PACKAGE / "launch" / "cluster.schema.json").read_text(encoding="utf-8"))
    properties = schema["$defs"][definition]["properties"]
    return "\n".join(f"- `{key}`: {each['description']}" for key, each in properties.items())


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
