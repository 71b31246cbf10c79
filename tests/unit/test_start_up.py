"""Help, planning and mistakes answer at once: torch takes seconds to import, so it comes only when something trains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import package.runs

PACKAGE = Path(package.runs.__file__).resolve().parents[1]
HEAVY = ("torch", "lightning", "torchmetrics", "wandb", "matplotlib", "pandas", "scipy", "sklearn", "transformers")

PROBE = f"""
import sys
{{code}}
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def loaded(code, folder):
    """Which heavy packages a piece of code imports in a fresh Python; its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert "loaded:" in done.stderr, done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split()), done


MAIN = "from pathlib import Path; from package.training.main import main; code = main({argv!r}, Path())"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_needs_no_torch(argv, tmp_path):
    heavy, done = loaded(MAIN.format(argv=argv), tmp_path)
    assert heavy == set()
    assert all(command in done.stdout for command in ("fit", "validate", "test", "predict", "--config", "examples:"))


@pytest.mark.parametrize(
    "argv, message",
    [
        (["fti"], "error: unknown command fti (did you mean fit?); see python Train.py --help\n"),
        (["fit", "--config", "away.yaml"], "error: no such settings file: away.yaml\n"),
        (["test", "--run", "away"], "error: --run away is not a run's folder: it has no config.yaml\n"),
    ],
)
def test_wrong_usage_is_answered_without_torch(argv, message, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text("name: default\n")
    heavy, done = loaded(MAIN.format(argv=argv) + "; assert code == 2", tmp_path)
    assert heavy == set()
    assert done.stderr.startswith(message)


def test_planning_needs_no_torch(tmp_path):
    modules = ", ".join(("settings", "identity", "request", "folder"))
    heavy, _ = loaded(f"from package.runs import {modules}", tmp_path)
    assert heavy == set()


def imported_at_once(file):
    """Modules that a file imports as soon as it is imported; relative ones as .ROOM.MODULE of the package."""
    pending = ast.parse(file.read_text(encoding="utf-8")).body
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = file.relative_to(PACKAGE).parts[: -node.level] if node.level else ()
            yield ".".join(["", *base, node.module or ""]) if node.level else node.module
        elif not isinstance(node, ast.FunctionDef) and "TYPE_CHECKING" not in ast.unparse(getattr(node, "test", node)):
            pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_rooms_import_only_what_they_may(file):
    imports = set(imported_at_once(file))
    packages = {name.partition(".")[0] for name in imports if not name.startswith(".")}
    assert not packages & {"matplotlib", "pandas", "scipy", "sklearn", "wandb"}, "import these inside functions"
    room = file.relative_to(PACKAGE).parts[0]
    if room in ("runs", "launch"):
        assert not packages & set(HEAVY)
    if room != "launch":
        assert not any(name.startswith(".launch") for name in imports)
    if room == "cka":
        assert all(name.startswith(".cka") for name in imports if name.startswith("."))
        assert packages - set(sys.stdlib_module_names) <= {"torch", "torchmetrics", "lightning", "numpy"}
