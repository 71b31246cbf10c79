"""A generated project as its owner uses it: it installs and its own tests pass, in the environment of these tests."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ladder
import pytest


def run(*arguments: str | Path, cwd: Path) -> str:
    """Run Python in `cwd` without the paths that the template's own tests add; return its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# The second project has an answer for every question that is not the default's.
PROJECTS = {
    "defaults": {},
    "everything else": ladder.UNUSUAL_TEXT
    | {"cluster": "hec", "deployment": "docker-kubernetes", "ci": "gitlab", "license": "Proprietary"},
}


@pytest.mark.parametrize("answers", PROJECTS.values(), ids=PROJECTS)
def test_package_is_what_gets_installed(answers, bake, tmp_path):
    """All modules and data files of the package and nothing else: no tests, no configs, no data folder."""
    project = bake(**answers)
    files = {name for name in ladder.files_in(project) if name.startswith(f"{ladder.package_of(answers)}/")}
    run("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, cwd=project)
    (wheel,) = tmp_path.glob("*.whl")
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert installed == files


def test_editable_install_sees_edits(bake, tmp_path):
    project = bake()
    target = tmp_path / "site"
    install = ["install", "--no-deps", "--no-build-isolation", "--target", target, "--editable", "."]
    run("-m", "pip", *install, cwd=project)
    (project / "my_research_project" / "mine.py").write_text("ANSWER = 42\n")
    code = f"import site; site.addsitedir({str(target)!r}); from my_research_project.mine import ANSWER; print(ANSWER)"
    assert run("-c", code, cwd=tmp_path).strip() == "42"


@pytest.mark.slow
@pytest.mark.parametrize("answers", PROJECTS.values(), ids=PROJECTS)
def test_own_tests_pass(answers, bake):
    """The options touch the generated Python only through names and files, so two projects stand for all."""
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=bake(**answers))
