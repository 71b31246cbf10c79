"""Change the code of one room in many small ways, and list the changes that no test notices.

    python tests/mutation/mutate.py runs                         the whole room
    python tests/mutation/mutate.py slurm resources.py           one file of it

It takes from minutes (a file of `runs`) to hours (`survive`), so it is no part of the tests. What it lists is either a
change that means the same, such as another text in a message, or a test that is missing.

Two tools share the work. mutmut changes what is inside functions, and runs for each change only the tests that come
past it. It leaves alone what stands outside functions, so each number there, and each member of a list, is changed
here, and all tests of the room are run. Everything happens in a copy below build/, since mutmut needs plain paths.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = "{{cookiecutter.project_slug}}"

# Room → the tests that should notice a change in it, FOLDER/NAME: the fewer there are, the less time a change takes.
NOTICED_BY = {
    "runs": "unit/specification unit/space unit/plan unit/identity unit/folder unit/cross_validations unit/run",
    "code": "unit/snapshot unit/code_changes",
    "settings": "unit/settings unit/classes unit/errors unit/run unit/plan",
    "clusters": "unit/presets unit/own_words",
    "arrays": "unit/next_wave unit/after_run",
    "slurm": "unit/submission unit/after_run",
    "loading": "unit/orders resume/randomness resume/generators resume/loaders resume/streams",
    "survive": "resume/checkpoint_files resume/checkpoint_folders resume/checkpoints resume/metrics_file "
    "resume/averaging resume/attributes",
}

# One test needs a generated project, which would not have the change.
QUICK = ["-m", "not slow", "-k", "not lightnings_own"]

HYPOTHESIS = ["--hypothesis-seed=0", "--hypothesis-profile=mutation"]  # few examples, always the same


def main() -> int:
    """Mutate what the command line names; returns 1 if a change has survived, for `make`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=NOTICED_BY)
    parser.add_argument("files", nargs="*", help="files of the room, such as space.py; all if none is named")
    parser.add_argument("--only", choices=["functions", "constants"], help="one of the two halves")
    arguments = parser.parse_args()
    tests = tests_of(arguments.room)

    copy = copy_project(arguments.room)
    room = copy / "lightning_hpc" / arguments.room
    files = [room / name for name in arguments.files] or sorted(room.glob("*.py"))

    survivors = []
    if arguments.only != "functions":
        survivors += mutate_constants(copy, files, tests)
    if arguments.only != "constants":
        survivors += mutate_functions(copy, files, tests)

    print(f"\n{len(survivors)} changes were not noticed:", *survivors, sep="\n")
    return bool(survivors)


def tests_of(room: str) -> list[str]:
    """The arguments of pytest that run a room's tests."""
    files = []
    for test in NOTICED_BY[room].split():
        folder, name = test.split("/")
        files.append(f"tests/{folder}/test_{name}.py")
    return files + QUICK


def copy_project(room: str) -> Path:
    """Copy the machine room to build/mutation/ROOM, and beside it what its tests read."""
    copy = ROOT / "build" / "mutation" / room
    shutil.rmtree(copy, ignore_errors=True)

    without = shutil.ignore_patterns("__pycache__", "mutation", ".hypothesis")
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=without)
    shutil.copytree(ROOT / PROJECT / "lightning_hpc", copy / "lightning_hpc", ignore=without)
    # The rest of the project, without lightning_hpc: Python finds the copy that is changed.
    rest = shutil.ignore_patterns("__pycache__", "lightning_hpc")
    shutil.copytree(ROOT / PROJECT, copy / PROJECT, ignore=rest)
    return copy


def mutate_functions(copy: Path, files: list[Path], tests: list[str]) -> list[str]:
    """Run mutmut; returns the names of the changes that no test has noticed, each with its difference."""
    only = [str(file.relative_to(copy)) for file in files]
    settings = dict(
        source_paths=["lightning_hpc"],
        only_mutate=only,
        also_copy=[PROJECT],
        pytest_add_cli_args=["-p", "no:cacheprovider", *HYPOTHESIS],
        pytest_add_cli_args_test_selection=tests,
    )
    # A Python list of texts is one in TOML, too.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + "\n[tool.mutmut]\n"
    text += "".join(f"{key} = {value!r}\n" for key, value in settings.items())
    (copy / "pyproject.toml").write_text(text, encoding="utf-8")

    mutmut = [sys.executable, "-m", "mutmut"]
    mutants = copy / "mutants"  # mutmut's own copy; Python forgets a path that is not there when it starts
    mutants.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(mutants)}
    subprocess.run([*mutmut, "run", "--max-children=2"], cwd=copy, env=environment, check=True)

    results = subprocess.run(
        [*mutmut, "results"], cwd=copy, env=environment, check=True, capture_output=True, text=True
    )
    survivors = []
    for line in results.stdout.splitlines():
        name, _, verdict = line.strip().partition(": ")
        if verdict in ("survived", "no tests"):
            shown = subprocess.run([*mutmut, "show", name], cwd=copy, env=environment, capture_output=True, text=True)
            survivors.append(f"{verdict} {shown.stdout}")
    return survivors


def mutate_constants(copy: Path, files: list[Path], tests: list[str]) -> list[str]:
    """Change each constant of the files, one at a time; returns those whose change no test has noticed."""
    run_tests = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *HYPOTHESIS, *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    survivors = []

    for file in files:
        original = file.read_text(encoding="utf-8")
        for what, changed in changed_constants(original):
            file.write_text(changed, encoding="utf-8")
            outcome = subprocess.run(run_tests, cwd=copy, env=environment, capture_output=True)
            noticed = outcome.returncode != 0
            print("." if noticed else f"\n{file.name}: {what}", end="", flush=True)
            if not noticed:
                survivors.append(f"{file.relative_to(copy)}: {what}")
        file.write_text(original, encoding="utf-8")

    return survivors


def changed_constants(source: str) -> Iterator[tuple[str, str]]:
    """Each way to change one number, or leave out one member, in the assignments outside functions.

    Yields:
        what is changed, for a person; the whole changed source.
    """
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue

        for part in ast.walk(node.value):
            if isinstance(part, ast.Constant) and type(part.value) in (int, float):
                for number in (part.value * 2 + 1, part.value / 2):
                    changed = ast.Constant(type(part.value)(number))
                    yield f"line {part.lineno}: {part.value} → {changed.value}", replaced(source, part, changed)

            elif isinstance(part, ast.Tuple | ast.List | ast.Set) and len(part.elts) > 1:
                for place, member in enumerate(part.elts):
                    changed = type(part)(**{**vars(part), "elts": [*part.elts[:place], *part.elts[place + 1 :]]})
                    yield f"line {member.lineno}: without {ast.unparse(member)}", replaced(source, part, changed)


def replaced(source: str, node: ast.expr, new: ast.expr) -> str:
    """The source with another expression in the place of one."""
    lines = source.splitlines(keepends=True)
    before = "".join(lines[: node.lineno - 1]).encode() + lines[node.lineno - 1].encode()[: node.col_offset]
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :] + "".join(lines[node.end_lineno :]).encode()
    return (before + ast.unparse(new).encode() + after).decode()


if __name__ == "__main__":
    sys.exit(main())
