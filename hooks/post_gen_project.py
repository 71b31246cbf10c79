"""Finish the new project: conda environments, batch files for its cluster, a first commit, and what to type next.

Runs in the project's folder with nothing but the standard library and cookiecutter's own Jinja and PyYAML, needs no
network and asks nothing. Running it again changes nothing: an environment that has its packages and a folder that lies
in a repository are left as they are.
"""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ANSWERS = r"""{{ cookiecutter | tojson }}"""

# Extras of pyproject.toml that the conda environments contain. Trackers other than W&B are for the user to add.
CONDA_EXTRAS = ("local-sweeps", "remote", "dev")
# conda-forge's names where they are not PyPI's in lower case. conda has no extras: what jsonargparse's `signatures`
# brings is named, and matplotlib comes without its Qt windows, which a compute node has no use for.
CONDA_NAMES = {
    "jsonargparse": ["jsonargparse{pins}", "docstring_parser", "typeshed-client"],
    "matplotlib": ["matplotlib-base{pins}"],
}
# PyTorch left its own conda channel after 2.5. On conda-forge pytorch-gpu stops the solver from falling back to a CPU
# build where it sees no GPU, and cuda-version picks the build.
PYTORCH = {
    "cpu": ["pytorch-cpu{pins}"],
    "cuda12": ["pytorch-gpu{pins}", "cuda-version=12.9"],
    "cuda13": ["pytorch-gpu{pins}", "cuda-version=13.0"],
}
# A login node has no GPU, so conda has to be told which CUDA to expect.
CUDA_OVERRIDE = {"cuda12": "CONDA_OVERRIDE_CUDA=12.9 ", "cuda13": "CONDA_OVERRIDE_CUDA=13.0 "}
# slurm/*.sbatch as the template leaves them.
BATCH_FILE = "#!/bin/bash\n# The post-generation hook writes this file for the chosen cluster.\n"
# While git runs a hook, these point to the repository of the surrounding commit.
OF_ANOTHER_REPOSITORY = ("GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE", "GIT_COMMON_DIR")
# A line of README.md as the template leaves it.
README_LINE = "# The post-generation hook writes the command of the chosen cluster here."
# Folders of conditional files: cookiecutter makes them even when no file goes in.
OPTIONAL_FOLDERS = (".github", "kubernetes")


def read_requirements(pyproject: str) -> list[str]:
    """The requirements in the text of pyproject.toml: the project's own, then those of CONDA_EXTRAS.

    The hook may run in Python 3.10, which cannot read TOML; an array of strings in TOML is also a list in Python.
    """
    requirements = []
    for name in ("dependencies", *CONDA_EXTRAS):
        array = re.search(rf"^{name} = (\[.*?\])$", pyproject, re.MULTILINE | re.DOTALL)
        requirements += ast.literal_eval(array[1])
    return requirements


def conda_packages(requirements: list[str], variant: str) -> list[str]:
    """conda-forge's match specifications for PyPI `requirements`; `variant` is cpu, cuda12 or cuda13."""
    packages = []
    for requirement in requirements:
        name, pins = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", requirement).groups()
        names = PYTORCH[variant] if name == "torch" else CONDA_NAMES.get(name, [name.lower() + "{pins}"])
        packages += [conda_name.format(pins=pins) for conda_name in names]
    return packages


def complete_environment(path: Path, variant: str, requirements: list[str]) -> None:
    """Add the packages to an environment file whose last line is its Python, as the template leaves it.

    A file with more in it has been through here, or is the user's own that `cookiecutter -f -s` has kept.
    """
    text = path.read_text(encoding="utf-8")
    if re.search(r"^dependencies:\n  - python=\S+\n\Z", text, re.MULTILINE):
        lines = [f"  - {package}\n" for package in conda_packages(requirements, variant)]
        path.write_text(text + "".join(lines), encoding="utf-8")


def write_batch_files(project: Path, answers: dict[str, str]) -> Any:
    """Write slurm/*.sbatch with the project's own renderer; returns the preset of the chosen cluster.

    A file that is not as the template leaves it is the user's own, which `cookiecutter -f -s` has kept.
    """
    sys.dont_write_bytecode = True  # compiled files would lie about in the new project
    sys.path.insert(0, str(project))
    names = ("clusters.presets", "clusters.placement", "slurm.batch")
    presets, placement, batch = (importlib.import_module(f"lightning_hpc.{name}") for name in names)
    preset = presets.load(answers["cluster"], project)
    granted = placement.resolve(preset, presets.project_resources(project), partial=True)
    for kind, name in batch.BY_HAND.items():
        file = project / name
        if file.exists() and file.read_text(encoding="utf-8") == BATCH_FILE:
            text = batch.render(preset, granted, kind, name=answers["project_slug"])
            file.write_text(text, encoding="utf-8")
    return preset


def remove_empty_folders(project: Path) -> None:
    """Remove the folders that no option has put a file into, the innermost first."""
    for folder in OPTIONAL_FOLDERS:
        for place, _, _ in os.walk(project / folder, topdown=False):
            if not os.listdir(place):
                os.rmdir(place)


def first_commit(project: Path, name: str, email: str) -> str | None:
    """Make a git repository with one commit; do nothing without git or inside a repository. Never fails or asks.

    The user's git configuration is read and not changed: who has set no name there commits under the answers' name.

    Returns:
        what git says if it can't; None otherwise.
    """
    inside = any((folder / ".git").exists() for folder in (project, *project.parents))
    if inside or "GIT_DIR" in os.environ or not shutil.which("git"):
        return None

    # In a hook of git, GIT_INDEX_FILE is the index of the commit under way, into which nothing of ours may get.
    environment = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_REPOSITORY}
    # No signing and no hooks: either may ask for a passphrase or need a network.
    quiet = ["-c", "commit.gpgsign=false", "-c", f"core.hooksPath={os.devnull}"]
    identity = ["-c", f"user.name={name}", "-c", f"user.email={email or 'nobody@localhost'}"]
    commit = ["commit", "--quiet", "--message", "Generate the project"]

    def git(*arguments: str) -> str | None:
        """Run git; returns what it says if it fails."""
        command = ["git", *quiet, *arguments]
        options = dict(cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        done = subprocess.run(command, **options, text=True, errors="replace")
        if done.returncode == 0:
            return None
        return (done.stderr.strip().splitlines() or [f"git {arguments[0]} has failed"])[-1]

    problem = git("init", "--quiet")
    # Not by --initial-branch, which git has from 2.28 on only.
    if problem is None and git("config", "init.defaultBranch"):
        problem = git("symbolic-ref", "HEAD", "refs/heads/main")
    if problem is None:
        problem = git("add", "--all")
    if problem is None and git(*commit):
        problem = git(*identity, *commit)
    return problem


def environment_command(answers: dict[str, str], conda: Mapping[str, str]) -> str:
    """The command that makes and activates an environment for the chosen options.

    Args:
        answers: to cookiecutter's questions.
        conda: the `conda` of the cluster's preset, which has a `folder` where home directories are too small.
    """
    slug, account = answers["project_slug"], answers["slurm_account"]
    if answers["cluster"] == "generic" and answers["conda_environment"] == "auto":
        return "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'"
    place = conda.get("folder", "")
    if "{account}" in place and not account:
        place = ""
    place = place.format(slug=slug, account=account)
    prepare = f"{conda['prepare']} && " if "prepare" in conda else ""
    override = CUDA_OVERRIDE.get(answers["__conda_environment"], "")
    prefix = f" -p {place}" if place else ""
    activate = conda.get("activate", "conda activate")
    return f"{prepare}{override}conda env create -f environment.yml{prefix} && {activate} {place or slug}"


def complete_readme(file: Path, command: str) -> None:
    """Write the command that makes the environment into README.md, if it is as the template leaves it."""
    text = file.read_text(encoding="utf-8")
    if README_LINE in text:
        file.write_text(text.replace(README_LINE, command), encoding="utf-8")


def next_commands(answers: dict[str, str], conda: Mapping[str, str], project: Path, shell: str | None) -> list[str]:
    """The three commands to type in a shell whose folder is `shell` (None: not known)."""
    path = project.resolve()
    if shell and path.is_relative_to(Path(shell).resolve()):
        path = path.relative_to(Path(shell).resolve())
    return [f"cd {shlex.quote(str(path))}", environment_command(answers, conda), "python Train.py fit"]


def main() -> None:
    """Finish the project in the current folder."""
    sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show must not fail the generation
    answers = json.loads(ANSWERS)
    project = Path.cwd()
    requirements = read_requirements((project / "pyproject.toml").read_text(encoding="utf-8"))
    complete_environment(project / "environment.yml", answers["__conda_environment"], requirements)
    complete_environment(project / "environment-cpu.yml", "cpu", requirements)
    preset = write_batch_files(project, answers)
    complete_readme(project / "README.md", environment_command(answers, preset.conda))
    remove_empty_folders(project)

    by_cruft = "_commit" in answers
    if by_cruft and Path(tempfile.gettempdir()).resolve() in project.resolve().parents:
        return  # `cruft update` compares two such temporary projects: a repository would differ, advice would mislead
    if by_cruft:  # it adds .cruft.json after this hook, and that belongs into the first commit
        print("\ncruft: commit this project, .cruft.json included, before the first `cruft update`.")
    else:
        problem = first_commit(project, answers["author_name"], answers["author_email"])
        if problem:
            print(f"\nThe project has no first commit, since git says: {problem}")
    if answers["cluster"] == "bede-power9":
        print(
            "\nPOWER9 is a legacy platform: PyTorch there ends at about 2.1 and this project needs Lightning 2.6, so it"
            "\ndoes not run on those nodes (see environment-ppc64le-legacy.yml). The commands are for another machine."
        )
    print(f"\n{answers['project_name']} is ready. Next, type:\n")
    # The hook's own folder is the project; the shell's, where the user will type, is only in PWD.
    for command in next_commands(answers, preset.conda, project, os.environ.get("PWD")):
        print(f"    {command}")


if __name__ == "__main__":
    main()
