"""A generated project as its owner uses it: it installs and its own tests pass, in the environment of these tests."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ladder
import pytest


def run(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run Python in `cwd` and return its output.

    The paths that the template's own tests add are not there; `path` is one to add.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    """Run pip without a network: the build tools are those of these tests' environment."""
    run("-m", "pip", *arguments, "--no-deps", "--no-build-isolation", cwd=cwd)


# The second project has an answer for every question that is not the default's.
UNUSUAL = ladder.UNUSUAL_TEXT | {
    "cluster": "hec",
    "deployment": "docker-kubernetes",
    "ci": "gitlab",
    "license": "Proprietary",
}
# What only names could break: class paths, specifications, sweeps.
QUICK_SELECTION = [
    "tests/test_train.py::test_fit_leaves_a_complete_run_folder",
    "tests/test_jobs.py",
    "tests/test_sweeps.py",
]
# Asks both packages what they are: where they lie, the version, and a text of a data file.
INTRODUCE = """
import sys
import {package}
import lightning_hpc
from lightning_hpc.slurm import batch
from importlib import resources

template = resources.files("lightning_hpc.slurm") / "templates" / "job.sbatch.j2"
print(lightning_hpc.__version__, template.read_text().splitlines()[0], {package}.__file__, lightning_hpc.__file__)
"""


@pytest.mark.parametrize("answers", [{}, UNUSUAL], ids=["defaults", "everything else"])
def test_packages_are_what_gets_installed(answers, bake_to_edit, tmp_path):
    """All modules and data files of the two packages and nothing else: no tests, no configs, no data folder."""
    project = bake_to_edit(**answers)
    package = ladder.package_of(answers)
    packages = (f"{package}/", "lightning_hpc/")
    files = {name for name in ladder.files_in(project) if name.startswith(packages)}
    pip("wheel", ".", "--wheel-dir", tmp_path, cwd=project)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    assert installed == files

    said = run("-c", INTRODUCE.format(package=package), cwd=tmp_path, path=tmp_path / "site")
    assert "#!/bin/bash" in said and said.count(str(tmp_path / "site")) == 2


def test_editable_install_sees_edits_of_both_packages(bake_to_edit, tmp_path):
    project = bake_to_edit()
    target = tmp_path / "site"
    pip("install", "--target", target, "--editable", ".", cwd=project)
    (project / "my_research_project" / "mine.py").write_text("ANSWER = 42\n")
    (project / "lightning_hpc" / "mine.py").write_text("ANSWER = 43\n")
    code = f"import site; site.addsitedir({str(target)!r})\n"
    code += INTRODUCE.format(package="my_research_project")
    code += "from lightning_hpc.mine import ANSWER as two\nfrom my_research_project.mine import ANSWER as one\n"
    said = run("-c", f"{code}print(one, two)", cwd=tmp_path)
    assert "#!/bin/bash" in said and said.split()[-2:] == ["42", "43"]


def test_machine_room_can_become_a_package_of_its_own(bake_to_edit, tmp_path):
    """Delete the folder, add one line to the dependencies: what an index would serve is built here from the folder."""
    project = bake_to_edit()
    package = tmp_path / "index" / "lightning_hpc"
    shutil.move(project / "lightning_hpc", package)
    (package.parent / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "lightning-hpc"\ndynamic = ["version"]\n'
        '[tool.setuptools.dynamic]\nversion = { attr = "lightning_hpc.__version__" }\n'
        '[tool.setuptools.packages.find]\ninclude = ["lightning_hpc*"]\n'
        '[tool.setuptools.package-data]\n"*" = ["*.json", "*.j2", "*.md"]\n'
    )
    target = tmp_path / "site"
    pip("install", "--target", target, ".", cwd=package.parent)

    pyproject = project / "pyproject.toml"
    text = pyproject.read_text()
    version = re.search(r'__version__ = "(.*)"', (package / "__init__.py").read_text())[1]
    pyproject.write_text(text.replace("dependencies = [\n", f'dependencies = [\n    "lightning-hpc=={version}",\n', 1))

    assert "fit" in run("Train.py", "--help", cwd=project, path=target)
    planned = run("SlurmTrain.py", "plan", "configs/jobs/grid.yaml", cwd=project, path=target)
    assert planned.splitlines()[-1].startswith("108 runs")
    # The project still installs, and a run is still one of this project: settings are found, results go here.
    pip("wheel", ".", "--wheel-dir", tmp_path, cwd=project)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert f"Requires-Dist: lightning-hpc=={version}" in metadata
    assert not [name for name in names if name.startswith("lightning_hpc/")]


@pytest.mark.slow
def test_own_tests_pass(bake_to_edit):
    """All of them, in the default project."""
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=bake_to_edit())


@pytest.mark.slow
def test_own_tests_pass_under_unusual_names(bake_to_edit):
    """Options touch the generated Python only through names and files, so a selection is enough here."""
    project = bake_to_edit(**UNUSUAL)
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK_SELECTION, cwd=project)
