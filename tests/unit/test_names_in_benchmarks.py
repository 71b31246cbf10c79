"""Benchmarks and the scripts of the pages run seldom; what they import of the machine room must still be there."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.name}")
def test_what_a_script_imports_is_there(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("lightning_hpc"):
            continue
        module = importlib.import_module(node.module)
        for alias in node.names:
            is_part = hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{alias.name}")
            assert is_part or hasattr(module, alias.name), alias.name
