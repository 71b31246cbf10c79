"""The rooms of the machine room: who may import whom, and how large a room and a file may be."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lightning_hpc
from lightning_hpc.code.compare import NOT_IN_TRAINING

PACKAGE = Path(lightning_hpc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Room, or file beside the rooms → the rooms and files that it may import, at any place in its code.
MAY_IMPORT = {
    "files": set(),
    "signals": set(),
    "processes": {"signals"},
    "failures": {"files"},
    "logs": set(),
    "notify": set(),
    "printing": set(),
    "stand_ins": set(),
    "warm": {"processes", "stand_ins", "logs"},
    "private_names": {"settings"},
    # All that a door needs, late.
    "entrance": {
        "settings",
        "failures",
        "training",
        "export",
        "reproduction",
        "slurm",
        "hosts",
        "kubernetes",
        "sweeps",
        "report",
        "cka",
        "survive",
        "mirror",
    },
    "report": {"settings", "runs", "training", "cka", "results", "printing", "reproduction", "hosts", "files"},
    "reproduction": {"provenance", "results", "printing", "code", "runs", "settings", "signals", "processes", "files"},
    "provenance": {"survive", "runs", "settings", "files"},
    "hosts": {"slurm", "clusters", "code", "planning", "runs", "settings", "processes", "printing"},
    "kubernetes": {"slurm", "clusters", "experiments", "planning", "runs", "settings", "files", "printing"},
    "results": {"settings", "runs", "files"},
    "settings": {"files"},
    "runs": {"settings", "files", "locks"},
    "planning": {"runs", "settings", "printing"},
    "loading": {"signals"},
    "code": {"settings", "files"},
    "survive": {"loading", "values", "runs", "files", "signals"},
    "values": {"signals", "files"},
    "trackers": {"settings", "runs", "failures", "private_names", "stand_ins"},
    "attempts": {"mirror", "code", "runs", "settings", "survive", "signals", "processes", "failures", "logs", "files"},
    "data": {"settings", "files", "locks"},
    "modules": {"settings", "runs", "failures", "logs"},
    "cka": set(),
    "training": {
        "survive",
        "data",
        "cka",
        "runs",
        "attempts",
        "code",
        "settings",
        "signals",
        "processes",
        "failures",
        "files",
        "logs",
        "values",
        "modules",
        "private_names",
        "provenance",
        "stand_ins",
        "trackers",
        "mirror",
        "warm",
    },
    "export": {"training", "survive", "settings", "logs"},
    "locks": set(),
    "remote": {"settings", "processes"},
    "mirror": {"remote", "survive", "runs", "settings", "locks", "signals", "files"},
    "scheduler": {"settings"},
    "packing": {"runs", "settings", "processes", "signals", "files"},
    "experiments": {"scheduler", "packing", "printing", "planning", "runs", "code", "settings", "files", "locks"},
    "clusters": {"scheduler", "settings", "files", "printing"},
    "arrays": {"clusters", "experiments", "scheduler", "runs", "settings", "notify", "printing"},
    "slurm": {
        "arrays",
        "clusters",
        "experiments",
        "packing",
        "scheduler",
        "planning",
        "runs",
        "code",
        "settings",
        "signals",
        "failures",
        "files",
        "notify",
        "stand_ins",
    },
    "sweeps": {
        "results",
        "printing",
        "planning",
        "runs",
        "settings",
        "signals",
        "processes",
        "files",
        "locks",
        "notify",
        "logs",
        "private_names",
        "stand_ins",
        "warm",
    },
}
HEAVY = {"torch", "lightning", "torchmetrics", "wandb", "matplotlib", "pandas", "scipy", "sklearn", "transformers"}
LATE = {
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "wandb",
    "fsspec",
    "huggingface_hub",
    "paramiko",
}  # imported inside functions, wherever they are used
IMPORT_TORCH = {"attempts", "loading", "survive", "values", "data", "cka", "modules", "trackers", "training", "export"}
IMPORT_TORCH |= {"provenance"}
WITHOUT_TORCH = set(MAY_IMPORT) - IMPORT_TORCH
# The exceptions: imported when values are checked.
WITH_TORCH = {"settings/parser.py", "settings/typed/arguments.py", "settings/typed/facts.py"}


def module_of(file: Path) -> str:
    """lightning_hpc/planning/plan.py → planning.plan; a room's __init__.py is the room."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def imports(file: Path, everywhere: bool) -> tuple[set[str], set[str]]:
    """Modules of the machine room, and other packages, that a file imports.

    Args:
        file: a Python file of the machine room.
        everywhere: inside functions too; otherwise only what is imported with the file.
    """
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    ours, others = set(), set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = [*file.relative_to(PACKAGE).parts[: -node.level], *filter(None, [node.module])]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                ours.add(whole if whole in MODULES else ".".join(base))
        if everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return ours, others


def room_of(module: str) -> str:
    return module.partition(".")[0]


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_imports_only_what_its_room_may(file):
    room = room_of(module_of(file))
    ours, _ = imports(file, everywhere=True)
    if room:
        assert {room_of(module) for module in ours} - {"", room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_heavy_packages_are_imported_late(file):
    room = room_of(module_of(file))
    _, others = imports(file, everywhere=False)
    assert not others & LATE, "import these inside functions"
    if room in WITHOUT_TORCH and name_of(file) not in WITH_TORCH:
        assert not others & HEAVY
    if room == "cka":  # it could be lifted out
        assert others - set(sys.stdlib_module_names) <= {"torch", "torchmetrics", "lightning", "numpy"}


def test_no_circle_of_files():
    """Imports inside functions count too: a circle that only hides is still one."""
    graph = {module_of(file): imports(file, everywhere=True)[0] - {module_of(file)} for file in FILES}
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_what_has_no_part_in_training_is_what_training_does_not_import():
    """An update of the other rooms must not stop runs that were trained before it."""
    pending, reached = ["training"], set()
    while pending:
        name = pending.pop()
        reached.add(name)
        pending += MAY_IMPORT[name] - reached

    # `code` only compares, and a mirror only copies; a change of them changes no result.
    others = set(MAY_IMPORT) - reached | {"code", "mirror", "remote"}
    assert {name.removesuffix(".py") for name in NOT_IN_TRAINING} == others
    assert all((PACKAGE / name).exists() for name in NOT_IN_TRAINING)


def test_the_readme_of_a_project_maps_every_room():
    map_of_files = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    for room in {file.relative_to(PACKAGE).parts[0] for file in FILES if file.parent != PACKAGE}:
        assert f" {room}/ " in map_of_files, room


def test_no_room_is_cramped():
    for room in sorted({file.parent for file in FILES}):
        files = [file for file in room.glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= 9, f"{room.name} has {len(files)} files: {sorted(file.name for file in files)}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_file_is_over_300_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300
