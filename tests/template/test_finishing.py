"""What the post-generation hook does: the repository, the environments' packages, the closing lines; and when not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ladder
import pytest
import yaml

hook = ladder.load_module(ladder.ROOT / "hooks" / "post_gen_project.py")
COOKIECUTTER = Path(sys.executable).parent / "cookiecutter"
DEFAULTS = ladder.DEFAULTS | {"project_slug": "shape-bias", "slurm_account": "", "__conda_environment": "cuda12"}


def generate(template: Path, folder: Path, *answers: str, **environment: str) -> subprocess.CompletedProcess:
    """Run cookiecutter in `folder` as a new user's shell would: no git identity, nothing of this machine's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder.with_name(folder.name + "-home")
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [COOKIECUTTER, template, "--no-input", *answers],
        cwd=folder,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "PWD": str(folder), "GIT_CONFIG_NOSYSTEM": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def git(project: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True).stdout.strip()


def test_one_clean_commit_under_the_authors_name_without_an_identity(template, tmp_path):
    # user.useConfigOnly: git must not make an identity up from the machine's name, as it could here.
    (tmp_path / "work-home").mkdir()
    (tmp_path / "work-home" / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    done = generate(template, tmp_path / "work", "author_name=Zoë O'Neil", "author_email=zoe@example.org")
    project = tmp_path / "work" / "my-research-project"
    assert git(project, "log", "--format=%an <%ae>") == "Zoë O'Neil <zoe@example.org>"
    assert git(project, "status", "--porcelain") == ""
    assert set(git(project, "ls-files").splitlines()) == ladder.files_in(project)
    assert done.stderr == ""
    assert (tmp_path / "work-home" / ".gitconfig").read_text() == "[user]\n\tuseConfigOnly = true\n"


def test_the_users_own_identity_and_branch_are_respected(template, tmp_path):
    (tmp_path / "work-home").mkdir()
    (tmp_path / "work-home" / ".gitconfig").write_text(
        "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = trunk\n"
    )
    generate(template, tmp_path / "work", "author_name=Someone Else")
    project = tmp_path / "work" / "my-research-project"
    assert git(project, "log", "--format=%an <%ae>") == "Ada <ada@example.org>"
    assert git(project, "branch", "--show-current") == "trunk"


def test_signing_and_hooks_of_the_user_are_not_run(template, tmp_path):
    """Either could ask for a passphrase, and a generation asks nothing."""
    home, hooks = tmp_path / "work-home", tmp_path / "hooks"
    home.mkdir()
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /bin/false\n[core]\n\thooksPath = {hooks}\n"
    )
    generate(template, tmp_path / "work")
    assert git(tmp_path / "work" / "my-research-project", "rev-list", "--count", "HEAD") == "1"


def test_without_git_there_is_a_project_without_repository(template, tmp_path):
    done = generate(template, tmp_path / "work", PATH=str(tmp_path / "empty"))
    project = tmp_path / "work" / "my-research-project"
    assert (project / "pyproject.toml").exists() and not (project / ".git").exists()
    assert done.stderr == "" and "python Train.py fit" in done.stdout


def test_an_old_git_makes_a_repository_too(template, tmp_path):
    """Before 2.28, git did not know --initial-branch."""
    git_of_the_system = shutil.which("git", path="/usr/bin:/bin")
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    refuse = 'case "$*" in *--initial-branch*|*" -b "*) echo "error: unknown option" >&2; exit 129;; esac'
    old.write_text(f'#!/bin/sh\n{refuse}\nexec {git_of_the_system} "$@"\n')
    old.chmod(0o755)
    generate(template, tmp_path / "work", PATH=f"{old.parent}:/usr/bin:/bin")
    project = tmp_path / "work" / "my-research-project"
    assert git(project, "branch", "--show-current") == "main" and git(project, "rev-list", "--count", "HEAD") == "1"


def test_a_commit_that_git_refuses_is_said(template, tmp_path):
    broken = tmp_path / "bin" / "git"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'fatal: no space left' >&2\nexit 128\n")
    broken.chmod(0o755)
    done = generate(template, tmp_path / "work", PATH=f"{broken.parent}:/usr/bin:/bin")
    assert "The project has no first commit, since git says: fatal: no space left\n" in done.stdout
    assert done.stdout.endswith("    python Train.py fit\n")


def test_the_index_of_a_commit_under_way_is_left_alone(template, tmp_path):
    """A hook of git that generates a project elsewhere has GIT_INDEX_FILE set."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "a.txt").write_text("a")
    git(other, "add", "a.txt")
    index = other / ".git" / "index"
    before = index.read_bytes()
    generate(template, tmp_path / "work", GIT_INDEX_FILE=str(index))
    assert index.read_bytes() == before
    assert "Train.py" in git(tmp_path / "work" / "my-research-project", "ls-files")


def test_inside_a_repository_no_other_is_made(template, tmp_path):
    (tmp_path / "work").mkdir()
    git(tmp_path / "work", "init", "--quiet")
    generate(template, tmp_path / "work")
    assert not (tmp_path / "work" / "my-research-project" / ".git").exists()
    assert git(tmp_path / "work", "status", "--porcelain") == "?? my-research-project/"


def test_a_terminal_that_cannot_show_the_name_does_no_harm(template, tmp_path):
    done = generate(template, tmp_path / "work", "project_name=Größe λ", PYTHONIOENCODING="ascii")
    assert (tmp_path / "work" / "grosse-l").is_dir() and "Gr??e ? is ready" in done.stdout


def test_closing_lines_are_the_three_commands(template, tmp_path):
    lines = generate(template, tmp_path / "work").stdout.splitlines()
    assert lines[-4:] == [
        "",
        "    cd my-research-project",
        "    python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'",
        "    python Train.py fit",
    ]


@pytest.mark.parametrize("cluster", ladder.CHOICES["cluster"])
def test_readme_begins_with_the_closing_lines(bake, cluster):
    project = bake(cluster=cluster)
    preset = yaml.safe_load((project / "configs" / "clusters" / f"{cluster}.yaml").read_text())
    answers = DEFAULTS | {"cluster": cluster, "project_slug": project.name}
    answers["__conda_environment"] = "cpu" if cluster == "bede-power9" else "cuda12"
    command = hook.environment_command(answers, preset.get("conda", {}))
    readme = (project / "README.md").read_text()
    assert f"{command}\npython Train.py fit" in readme and hook.README_LINE not in readme


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("gh:ada/template", "https://github.com/ada/template/blob/main/docs/index.md"),
        ("https://gitlab.com/ada/template.git", "https://gitlab.com/ada/template/blob/main/docs/index.md"),
        ("https://ada:password@example.org/template", None),
        ("/home/ada/template", None),
    ],
)
def test_readme_links_to_the_documentation_of_its_template(template, source, link):
    file = template / ladder.PROJECT_FOLDER / "README.md"
    readme = ladder.rendered_by_hand(file, {"_template": source, "__conda_environment": "cuda12"})
    assert (f"[documentation]({link})" in readme) if link else "`docs/index.md` of the template" in readme
    assert "password" not in readme and "/home/ada" not in readme


def test_closing_lines_say_where_another_output_folder_is(template, tmp_path):
    inside = generate(template, tmp_path / "work", "--output-dir", "some where").stdout
    assert "    cd 'some where/my-research-project'" in inside.splitlines()
    outside = generate(template, tmp_path / "work", "--output-dir", str(tmp_path / "other")).stdout
    assert f"    cd {tmp_path / 'other' / 'my-research-project'}" in outside.splitlines()


def test_legacy_platform_is_said(template, tmp_path):
    out = generate(template, tmp_path / "work", "cluster=bede-power9").stdout
    assert "legacy" in out and out.index("legacy") < out.index("cd my-research-project")
    assert "    conda env create -f environment.yml && conda activate my-research-project\n" in out


@pytest.mark.parametrize(
    ("answers", "command"),
    [
        ({}, "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'"),
        (
            {"conda_environment": "cuda12"},
            "CONDA_OVERRIDE_CUDA=12.9 conda env create -f environment.yml && conda activate shape-bias",
        ),
        (
            {"conda_environment": "cuda13", "__conda_environment": "cuda13"},
            "CONDA_OVERRIDE_CUDA=13.0 conda env create -f environment.yml && conda activate shape-bias",
        ),
        (
            {"conda_environment": "cpu", "__conda_environment": "cpu"},
            "conda env create -f environment.yml && conda activate shape-bias",
        ),
        (
            {"cluster": "sulis"},
            "CONDA_OVERRIDE_CUDA=12.9 conda env create -f environment.yml && conda activate shape-bias",
        ),
        (
            {"cluster": "hec"},
            "module add miniforge && CONDA_OVERRIDE_CUDA=12.9 conda env create -f environment.yml"
            " -p $global_storage/shape-bias && source activate $global_storage/shape-bias",
        ),
        (
            {"cluster": "bede-gh"},
            "CONDA_OVERRIDE_CUDA=12.9 conda env create -f environment.yml && conda activate shape-bias",
        ),
        (
            {"cluster": "bede-gh", "slurm_account": "bdlan08"},
            "CONDA_OVERRIDE_CUDA=12.9 conda env create -f environment.yml"
            " -p /nobackup/projects/bdlan08/$USER/aarch64/shape-bias"
            " && conda activate /nobackup/projects/bdlan08/$USER/aarch64/shape-bias",
        ),
    ],
    ids=lambda value: "-".join(value.values()) or "defaults" if isinstance(value, dict) else "",
)
def test_environment_command(answers, command):
    answers = DEFAULTS | answers
    preset = yaml.safe_load(
        (
            ladder.ROOT / "{{cookiecutter.project_slug}}" / "configs" / "clusters" / f"{answers['cluster']}.yaml"
        ).read_text()
    )
    assert hook.environment_command(answers, preset.get("conda", {})) == command


def test_every_cluster_decides_on_a_conda_environment(bake):
    """The derived answer and the environment file agree for every cluster."""
    for cluster in ladder.CHOICES["cluster"]:
        text = (bake(cluster=cluster) / "environment.yml").read_text()
        assert ("pytorch-cpu" in text) == (cluster == "bede-power9")
        assert ("cuda-version=12.9" in text) == (cluster != "bede-power9")


def test_commands_need_no_known_shell_folder(tmp_path):
    commands = hook.next_commands(DEFAULTS, {}, tmp_path / "a b", None)
    assert commands[0] == f"cd '{tmp_path}/a b'"


def test_running_twice_changes_nothing(template, tmp_path):
    """`-f` renders environments and batch files anew, the hook completes them again, the repository stays as it is."""
    generate(template, tmp_path / "work")
    project = tmp_path / "work" / "my-research-project"
    head, before = git(project, "rev-parse", "HEAD"), (project / "environment.yml").read_text()
    generate(template, tmp_path / "work", "--overwrite-if-exists")
    assert git(project, "status", "--porcelain") == "" and git(project, "rev-parse", "HEAD") == head
    hook.complete_environment(project / "environment.yml", "cpu", ["torch>=2.5"])
    assert (project / "environment.yml").read_text() == before


def test_kept_files_stay_as_the_user_left_them(template, tmp_path):
    """`-f -s` keeps what exists, and so does the hook."""
    generate(template, tmp_path / "work")
    project = tmp_path / "work" / "my-research-project"
    files = [project / "environment.yml", project / "slurm" / "train.sbatch"]
    for file in files:
        file.write_text(file.read_text() + "  - timm\n")
    edited = [file.read_text() for file in files]
    generate(template, tmp_path / "work", "--overwrite-if-exists", "--skip-if-file-exists")
    assert [file.read_text() for file in files] == edited


def test_hook_needs_only_the_standard_library(template):
    """It runs in whichever Python cookiecutter lives in, isolated ones (uvx, pipx) included."""
    for name in ("pre_gen_project", "post_gen_project"):
        code = "import importlib.util as u, sys; s = u.spec_from_file_location('hook', sys.argv[1])"
        code += "; s.loader.exec_module(u.module_from_spec(s))"
        subprocess.run([sys.executable, "-I", "-S", "-c", code, template / "hooks" / f"{name}.py"], check=True)


@pytest.mark.skipif(not shutil.which("python3.10"), reason="no Python 3.10, the oldest that cookiecutter 2.7 runs in")
def test_hooks_run_in_python_3_10(default_project):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pre_gen_project, post_gen_project as hook; "
    code += "print(hook.read_requirements(open(sys.argv[2]).read()))"
    command = ["python3.10", "-c", code, str(ladder.ROOT / "hooks"), str(default_project / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    if "command not found" in done.stderr:
        pytest.skip("python3.10 is a shim without a Python behind it")
    assert done.returncode == 0 and "lightning>=2.6,<2.7" in done.stdout, done.stderr
