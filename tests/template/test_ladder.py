"""Generated projects: each option away from its default, combinations, exact files, no lost text, clean linters."""

import re
import subprocess
import sys
from pathlib import Path

import ladder
import pytest
import yaml

TOOLS = Path(sys.executable).parent
VARIATIONS = [{}, ladder.UNUSUAL_TEXT, *ladder.SINGLE_VARIATIONS]


def run(*command: str | Path, cwd: Path) -> None:
    """Run a linter and fail with everything it says."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("answers", VARIATIONS, ids=ladder.name_of)
def test_single_variation(answers, bake, template):
    project = bake(**answers)
    assert ladder.files_in(project) == ladder.expected_files(template, answers)
    ladder.assert_well_formed(project, answers)


@pytest.mark.parametrize("answers", ladder.combinations(), ids=ladder.name_of)
def test_combination(answers, bake, template):
    project = bake(**answers)
    assert ladder.files_in(project) == ladder.expected_files(template, answers)
    ladder.assert_well_formed(project, answers)


def test_combinations_cover_every_choice():
    chosen = {item for row in ladder.combinations() for item in row.items()}
    assert chosen == {(key, value) for key, values in ladder.CHOICES.items() for value in values}


@pytest.mark.parametrize("answers", ladder.UNSUPPORTED, ids=ladder.name_of)
def test_unsupported_combination_is_refused(answers, bake, capfd):
    with pytest.raises(Exception, match="Hook script failed"):
        bake(**answers)
    assert "is not supported" in capfd.readouterr().err.splitlines()[0]


def test_no_empty_folders(bake):
    project = bake(ci="none", deployment="none")
    assert not [
        path for path in project.rglob("*") if path.is_dir() and not any(path.iterdir()) and ".git" not in path.parts
    ]


def test_no_text_is_lost(bake, template):
    """Compare each file with its source: Jinja drops what it takes for a comment without a word."""
    renderings: dict[Path, list[str]] = {}
    for answers in VARIATIONS:
        project = bake(**answers)
        for name in ladder.expected_files(template, answers):
            sources = ladder.source_files(template, name, ladder.package_of(answers))
            if name == "LICENSE":
                licence = answers.get("license", "MIT")
                sources = [path for path in sources if f"'{licence}'" in path.name]
            assert len(sources) == 1, f"{name} has the sources {sources}"
            text = (project / name).read_text(encoding="utf-8")
            renderings.setdefault(sources[0], []).append(text)
    sources = {path for path in (template / ladder.PROJECT_FOLDER).rglob("*") if path.is_file()}
    assert set(renderings) == sources

    # The hook has written into this one, and a link in it is there only for a template that comes from a server.
    readme = template / ladder.PROJECT_FOLDER / "README.md"
    for cluster in ladder.CHOICES["cluster"]:
        renderings[readme].append(ladder.rendered_by_hand(readme, {"cluster": cluster, "_template": "gh:ada/template"}))
    written_by_the_hook = {path for path in sources if path.suffix == ".sbatch"}
    lost = {
        path.name: ladder.lost_text(path.read_text(encoding="utf-8"), texts)
        for path, texts in renderings.items()
        if path not in written_by_the_hook
    }
    assert not {name: pieces for name, pieces in lost.items() if pieces}


def test_lost_text_is_noticed():
    """The check above finds what Jinja's default comment marks would swallow."""
    source = "count=${#array[@]}  # of {{ cookiecutter.project_slug }}\nrest #}\n"
    assert ladder.lost_text(source, ["count=$\n"]) == ["count=${#array[@]}  # of", "rest #}"]
    assert ladder.lost_text("x = {#1#}\n", ["x = \n"])


def test_projects_lint_clean(bake):
    """Only names (imports are sorted, lines have a limit) and the Python version (its idioms) can make a difference.

    Each project has settings of its own, which ruff finds by itself, so that one call looks at all of them.
    """
    answers = [{}, ladder.UNUSUAL_TEXT, {"package_name": "a"}, {"python_version": "3.12"}, {"python_version": "3.13"}]
    projects = [bake(**each) for each in answers]
    run(TOOLS / "ruff", "check", "--no-cache", *projects, cwd=projects[0])
    run(TOOLS / "ruff", "format", "--no-cache", "--check", *projects, cwd=projects[0])


def test_template_is_clean_where_it_stands():
    """What `make lint` looks at, tests and benchmarks apart."""
    settings = ["--no-cache", "--config", ladder.ROOT / "pyproject.toml"]
    project = Path(ladder.PROJECT_FOLDER)
    paths = ["hooks", project / ladder.PACKAGE_FOLDER, project / "lightning_hpc"]
    run(TOOLS / "ruff", "check", *settings, *paths, cwd=ladder.ROOT)
    run(TOOLS / "ruff", "format", "--check", *settings, *paths, cwd=ladder.ROOT)


@pytest.mark.parametrize("package", [ladder.PACKAGE_FOLDER, "lightning_hpc"])
def test_packages_hold_no_template_marker(package, template):
    """An opening one, that is: braces that close a dictionary of dictionaries mean nothing to Jinja."""
    folder = template / ladder.PROJECT_FOLDER / package
    marked = [
        path.relative_to(folder)
        for path in folder.rglob("*.py")
        if re.search(r"\{\{|\{%|cookiecutter\.", path.read_text(encoding="utf-8"))
    ]
    assert not marked


@pytest.mark.parametrize("answers", [{}, ladder.UNUSUAL_TEXT, {"cluster": "hec", "ci": "gitlab"}], ids=ladder.name_of)
def test_machine_room_is_the_same_in_every_project(answers, bake, template):
    """To the byte: so an update never conflicts in it, and one difference shows that somebody has changed it."""
    source, copy = (folder / "lightning_hpc" for folder in (template / ladder.PROJECT_FOLDER, bake(**answers)))
    assert ladder.files_in(copy) == ladder.files_in(source)
    for name in ladder.files_in(source):
        assert (copy / name).read_bytes() == (source / name).read_bytes(), name


def test_shell_scripts_pass_shellcheck(bake_to_edit):
    project = bake_to_edit(ci="github", deployment="docker-kubernetes")
    scripts = [path for path in project.rglob("*") if path.suffix in (".sh", ".sbatch")]
    workflow = yaml.safe_load((project / ".github/workflows/tests.yml").read_text())
    for step in workflow["jobs"]["tests"]["steps"]:
        if "run" in step:
            path = project / f"step-{len(scripts)}.sh"
            path.write_text(f"#!/bin/bash\n{step['run']}\n")
            scripts.append(path)
    assert scripts
    run(TOOLS / "shellcheck", *scripts, cwd=project)


def test_github_workflow_follows_its_schema(bake):
    project = bake(ci="github")
    run(
        TOOLS / "check-jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        ".github/workflows/tests.yml",
        cwd=project,
    )


def test_gitlab_pipeline_follows_its_schema(bake):
    project = bake(ci="gitlab")
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml", cwd=project)


@pytest.mark.parametrize("slug", ["2024-01-01", "007", "null", "1e5", "yes"])
def test_names_that_yaml_could_take_for_something_else_stay_text(slug, bake):
    project = bake(project_slug=slug, wandb_project=slug, wandb_entity=slug, deployment="docker-kubernetes")
    assert yaml.safe_load((project / "environment.yml").read_text())["name"] == slug
    assert yaml.safe_load((project / "compose.yaml").read_text())["services"]["train"]["image"] == f"{slug}:cpu"
    image = yaml.safe_load((project / "kubernetes/base/kustomization.yaml").read_text())["images"][0]
    assert image["name"] == slug and image["newName"].endswith(f"/{slug}")
    configured = re.findall(r"^ *(?:project|entity): (.*)$", (project / "configs/base.yaml").read_text(), re.MULTILINE)
    assert [yaml.safe_load(value) for value in configured] == [slug, slug]


def test_env_example_holds_no_secret_and_env_is_ignored(default_project):
    settings = [
        line for line in (default_project / ".env.example").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert "WANDB_API_KEY=" in settings and all(line.endswith("=") for line in settings)
    for name in (".env", "runs/x/status.json", "data/x", "wandb/x", ".venv/x"):
        run("git", "check-ignore", "--quiet", name, cwd=default_project)


def test_precommit_hooks_pass(bake_to_edit):
    """The hygiene programs themselves, from PyPI: pre-commit would fetch them from GitHub."""
    project = bake_to_edit(deployment="docker-kubernetes")
    run(TOOLS / "pre-commit", "validate-config", cwd=project)
    files = subprocess.run(["git", "ls-files"], cwd=project, capture_output=True, text=True).stdout.split()
    yaml_files = [name for name in files if name.endswith((".yml", ".yaml"))]
    run(TOOLS / "check-added-large-files", "--maxkb=1000", "--enforce-all", *files, cwd=project)
    run(TOOLS / "detect-private-key", *files, cwd=project)
    run(TOOLS / "check-yaml", "--allow-multiple-documents", *yaml_files, cwd=project)
    run(TOOLS / "end-of-file-fixer", *files, cwd=project)
    run(TOOLS / "trailing-whitespace-fixer", *files, cwd=project)


def test_checkout_on_windows_is_possible(template, default_project):
    """No character, reserved name or pair of names that differ in case only, in the template and in the project."""
    devices = ladder.load_module(ladder.ROOT / "hooks" / "pre_gen_project.py").WINDOWS_DEVICES
    for folder in (template, default_project):
        names = ladder.files_in(folder)
        for name in names:
            assert not set(name) & set('<>:"|?*\\') and name.isascii() and name.isprintable(), name
            for part in name.split("/"):
                assert part.split(".")[0].lower() not in devices and not part.endswith((".", " ")), name
        assert len({name.lower() for name in names}) == len(names)
