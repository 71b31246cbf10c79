"""An existing project takes updates of the template: cruft create, check and update, with the user's edits kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ladder import PACKAGE_FOLDER, PROJECT_FOLDER, files_in

CRUFT = Path(sys.executable).parent / "cruft"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command with an identity for git and a home of its own."""
    environment = os.environ | {"HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.org"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def commit(repository: Path, message: str) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--message", message]):
        done = run("git", *command, cwd=repository)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def repository(template, tmp_path) -> Path:
    """The template in a git repository of its own, to be changed at will."""
    repository = tmp_path / "template"
    subprocess.run(["cp", "-r", template, repository], check=True)
    run("git", "init", "--quiet", cwd=repository)
    commit(repository, "First version")
    return repository


def test_project_is_created_checked_and_updated(repository, tmp_path):
    done = run(CRUFT, "create", repository, "--no-input", "--output-dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "my-research-project"
    run("git", "init", "--quiet", cwd=project)
    commit(project, "Start")
    assert run(CRUFT, "check", cwd=project).returncode == 0

    # The user edits one file; the template changes that file elsewhere, a dependency, and the package.
    gitignore = project / ".gitignore"
    gitignore.write_text(gitignore.read_text() + "/figures/\n")
    commit(project, "Ignore figures")
    source = repository / PROJECT_FOLDER
    for path, old, new in [
        (source / ".gitignore", "# secrets\n.env\n", "# secrets\n.env\n.netrc\n"),
        (source / "pyproject.toml", '"torchmetrics>=', '"tqdm>=4.66",\n    "torchmetrics>='),
    ]:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    (source / PACKAGE_FOLDER / "extra.py").write_text('"""New in the template."""\n')
    commit(repository, "Second version")

    assert run(CRUFT, "check", cwd=project).returncode == 1
    done = run(CRUFT, "update", "--skip-apply-ask", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ".netrc\n" in gitignore.read_text() and "/figures/\n" in gitignore.read_text()
    assert "tqdm>=4.66" in (project / "pyproject.toml").read_text()
    assert "  - tqdm>=4.66\n" in (project / "environment.yml").read_text(), "the hook has run for the update too"
    assert (project / "my_research_project" / "extra.py").exists()
    assert not list(project.rglob("*.rej"))
    commit(project, "Update")
    assert run(CRUFT, "check", cwd=project).returncode == 0
    assert "is ready" not in done.stdout, "advice about a temporary folder"


def test_a_project_goes_from_one_release_to_the_next(repository, tmp_path):
    """As docs/template.md has it: by tags. What lies after the newest tag is not taken."""
    room = repository / PROJECT_FOLDER / "lightning_hpc"
    run("git", "tag", "v1.0", cwd=repository)
    (repository / "CHANGELOG.md").write_text("After the first release.\n")
    commit(repository, "After the first release")
    release = ["--no-input", "--checkout", "v1.0", "--output-dir", tmp_path]
    done = run(CRUFT, "create", repository, *release, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "my-research-project"
    run("git", "init", "--quiet", cwd=project)
    replace(project / "configs" / "base.yaml", "batch_size: 64", "batch_size: 17")
    commit(project, "Start")
    assert run(CRUFT, "check", "--checkout", "v1.0", cwd=project).returncode == 0

    replace(room / "__init__.py", "__version__ = ", '__version__ = "v1.1"  # before: ')
    commit(repository, "Second release")
    run("git", "tag", "v1.1", cwd=repository)
    replace(room / "__init__.py", '"v1.1"', '"v1.2.dev"')
    commit(repository, "After the second release")

    assert run(CRUFT, "check", "--checkout", "v1.1", cwd=project).returncode == 1
    done = run(CRUFT, "update", "--skip-apply-ask", "--checkout", "v1.1", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '__version__ = "v1.1"' in (project / "lightning_hpc" / "__init__.py").read_text()
    assert "batch_size: 17" in (project / "configs" / "base.yaml").read_text()
    assert changed_files(project) == {".cruft.json", "lightning_hpc/__init__.py"}


def replace(file: Path, old: str, new: str) -> None:
    """Edit a file as a person would; it must hold the old text."""
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


def changed_files(project: Path) -> set[str]:
    """The files in which the working tree differs from the last commit, new ones included."""
    run("git", "add", "--all", cwd=project)
    return set(run("git", "diff", "--cached", "--name-only", cwd=project).stdout.splitlines())


def test_machine_room_is_updated_beside_edited_files(repository, tmp_path):
    """What the researcher owns is left alone, and lightning_hpc/ conflicts only where somebody has edited it."""
    run(CRUFT, "create", repository, "--no-input", "--output-dir", tmp_path, cwd=tmp_path)
    project = tmp_path / "my-research-project"
    package, machine_room = project / "my_research_project", project / "lightning_hpc"
    source = repository / PROJECT_FOLDER / "lightning_hpc"
    run("git", "init", "--quiet", cwd=project)
    commit(project, "Start")

    # The researcher's work: a class more in model.py, data.py written anew, other settings.
    with (package / "model.py").open("a") as file:
        file.write("\n\nclass Mine(Classifier):\n    pass\n")
    (package / "data.py").write_text('"""Data of mine."""\n')
    replace(project / "configs" / "base.yaml", "batch_size: 64", "batch_size: 17")
    replace(project / "configs" / "jobs" / "grid.yaml", "name: grid", "name: mine")
    commit(project, "Research")
    own = {file: file.read_text() for file in (package / "model.py", package / "data.py", package / "networks.py")}

    # The template's next version: a changed file, a new one and one less in the machine room; a comment in base.yaml.
    replace(source / "files.py", '"""', '"""Second version. ')
    (source / "new_room").mkdir()
    (source / "new_room" / "__init__.py").write_text('"""New in the template."""\n')
    (source / "notify.py").unlink()
    base = repository / PROJECT_FOLDER / "configs" / "base.yaml"
    replace(base, "# The settings of every run;", "# All settings of every run;")
    commit(repository, "Second version")

    done = run(CRUFT, "update", "--skip-apply-ask", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert changed_files(project) == {
        ".cruft.json",
        "configs/base.yaml",
        "lightning_hpc/files.py",
        "lightning_hpc/new_room/__init__.py",
        "lightning_hpc/notify.py",
    }
    assert {file: file.read_text() for file in own} == own
    base_text = (project / "configs" / "base.yaml").read_text()
    assert "# All settings of every run;" in base_text and "batch_size: 17" in base_text
    commit(project, "Update")
    assert files_in(machine_room) == files_in(source)
    assert all((machine_room / name).read_bytes() == (source / name).read_bytes() for name in files_in(source))

    # Now somebody edits the machine room in the line that the template changes next: that is not lost, and is said.
    replace(machine_room / "files.py", "Second version.", "My own version.")
    commit(project, "A change of the machine room")
    replace(source / "files.py", "Second version.", "Third version.")
    replace(source / "signals.py", '"""', '"""Third version. ')
    commit(repository, "Third version")
    done = run(CRUFT, "update", "--skip-apply-ask", cwd=project)
    said = done.stdout + done.stderr
    conflict = (machine_room / "files.py").read_text() + "".join(
        file.read_text() for file in machine_room.glob("files.py.rej")
    )
    assert "My own version." in conflict and "Third version." in conflict
    assert "conflict" in said.lower() and "files.py" in said, said
    assert "Third version." in (machine_room / "signals.py").read_text()
    assert {file: file.read_text() for file in own} == own


def test_first_commit_is_left_to_the_user_of_cruft(repository, tmp_path):
    """cruft writes .cruft.json after the hooks: a commit made there would lack it, and `cruft update` would refuse."""
    run(CRUFT, "create", repository, "--no-input", "--output-dir", tmp_path, cwd=tmp_path)
    project = tmp_path / "my-research-project"
    assert not (project / ".git").exists()
    assert json.loads((project / ".cruft.json").read_text())["context"]["cookiecutter"]["__conda_environment"]


def test_cruft_says_what_to_commit(repository, tmp_path):
    """Outside of the temporary folder, which is where `cruft update` generates."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"TMPDIR": str(elsewhere), "HOME": str(tmp_path)}
    done = subprocess.run(
        [CRUFT, "create", repository, "--no-input", "--output-dir", tmp_path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "cruft: commit this project" in done.stdout and "python Train.py fit" in done.stdout, done.stderr
