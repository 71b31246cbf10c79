"""The options of the template, the projects that the tests generate from them, and what must hold for each."""

import ast
import fnmatch
import importlib.util
import json
import re
import tomllib
from itertools import cycle, product
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
CHOICES = {key: value for key, value in QUESTIONS.items() if isinstance(value, list) and not key.startswith("_")}
COPIED = QUESTIONS.get("_copy_without_render", [])
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"
PACKAGE_FOLDER = "{{cookiecutter.package_name}}"

# The files that an option brings, for every option that brings any. All other files come with every project.
CONTAINER_FILES = {"Dockerfile", ".dockerignore", "compose.yaml", ".devcontainer.json", "apptainer.def"}
KUBERNETES_FILES = {
    "kubernetes/base/kueue.yaml",
    "kubernetes/base/kustomization.yaml",
    "kubernetes/base/local-sweeps.yaml",
    "kubernetes/base/mirror.yaml",
    "kubernetes/base/no-gpu.yaml",
    "kubernetes/base/pod.yaml",
    "kubernetes/base/priority.yaml",
    "kubernetes/base/settings.yaml",
    "kubernetes/base/spot.yaml",
    "kubernetes/storage/claims.yaml",
    "kubernetes/storage/kustomization.yaml",
    "kubernetes/storage/shell.yaml",
    "kubernetes/run/job.yaml",
    "kubernetes/run/kustomization.yaml",
    "kubernetes/agents/job.yaml",
    "kubernetes/agents/kustomization.yaml",
    "kubernetes/sweep-server/kustomization.yaml",
    "kubernetes/sweep-server/server.yaml",
}
FILES_OF_OPTIONS = {
    ("deployment", "docker"): CONTAINER_FILES,
    ("deployment", "docker-kubernetes"): CONTAINER_FILES | KUBERNETES_FILES,
    ("ci", "github"): {".github/workflows/tests.yml"},
    ("ci", "gitlab"): {".gitlab-ci.yml"},
    ("cluster", "bede-power9"): {"environment-ppc64le-legacy.yml"},
} | {("license", licence): {"LICENSE"} for licence in CHOICES["license"]}


def load_module(path: Path):
    """A file as a module. Hooks need not be rendered for this: they read the answers in main() only."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UNSUPPORTED = [combination for combination, _ in load_module(ROOT / "hooks" / "pre_gen_project.py").UNSUPPORTED]
DEFAULTS = {key: values[0] for key, values in CHOICES.items()}
# Answers to the free questions that are allowed and not easy: apostrophes, accents, other scripts, long names.
UNUSUAL_TEXT = {
    "project_name": "Ångström's λ & <friends>: 100 % $HOME `rm` #1 [x]",
    "project_slug": "a-" * 24 + "bc",
    "package_name": "p" * 50,
    "description": "What's new? 'Nothing' — ½ of it: #hash, $PATH, 100 %, 東京, 😀.",
    "author_name": "Zoë O'Neil & Søren Ærø, 李雷",
    "author_email": "zoe.o'neil+x@example.org",
    "slurm_account": "bdlan08_x.1-y",
    "wandb_project": "Shape.bias_2-x",
    "wandb_entity": "my-team_1",
}
# One option at a time away from its default.
SINGLE_VARIATIONS = [{key: value} for key, values in CHOICES.items() for value in values[1:]]


def is_supported(answers: dict[str, str]) -> bool:
    """True if no unsupported combination is part of the answers."""
    return not any(combination.items() <= (DEFAULTS | answers).items() for combination in UNSUPPORTED)


def combinations() -> list[dict[str, str]]:
    """Every cluster with every environment, since these interact; the other options take turns beside them."""
    others = {key: cycle(values) for key, values in CHOICES.items() if key not in ("cluster", "conda_environment")}
    rows = [
        {"cluster": cluster, "conda_environment": environment, **{key: next(values) for key, values in others.items()}}
        for cluster, environment in product(CHOICES["cluster"], CHOICES["conda_environment"])
    ]
    return [row for row in rows if is_supported(row)]


def name_of(answers: dict[str, str]) -> str:
    """A readable test id."""
    return "unusual text" if "project_name" in answers else ",".join(answers.values()) or "defaults"


def files_in(folder: Path) -> set[str]:
    """All files below a folder but those of git, with forward slashes."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths if ".git" not in path.relative_to(folder).parts}


def default_of(key: str) -> str | None:
    """The default answer to a question; None where it is derived from other answers."""
    default = QUESTIONS[key]
    if isinstance(default, list):
        return default[0]
    return None if "{{" in default else default


def package_of(answers: dict[str, str]) -> str:
    """The package's name in a project generated from `answers`."""
    return answers.get("package_name", "my_research_project")


def expected_files(template: Path, answers: dict[str, str]) -> set[str]:
    """What a project must contain: the template's unconditional files, and what FILES_OF_OPTIONS says."""
    package = package_of(answers)
    always = {name.replace(PACKAGE_FOLDER, package) for name in files_in(template / PROJECT_FOLDER) if "{%" not in name}
    return always.union(*(FILES_OF_OPTIONS.get(option, set()) for option in (DEFAULTS | answers).items()))


def is_copied(name: str) -> bool:
    """True if cookiecutter copies this file of the template without rendering it."""
    return any(fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in COPIED)


def source_files(template: Path, name: str, package: str) -> list[Path]:
    """The files of the template that can have become `name` in a project."""
    source = template / PROJECT_FOLDER
    parts = name.split("/")
    folder = source / "/".join(PACKAGE_FOLDER if part == package else part for part in parts[:-1])
    return [path for path in folder.iterdir() if re.sub(r"\{%.*?%\}", "", path.name) == parts[-1]]


def rendered_by_hand(file: Path, answers: dict[str, str]) -> str:
    """What Jinja makes of a file of the template, before the hooks, with answers that cookiecutter would add itself."""
    from cookiecutter.utils import create_env_with_context

    answers = DEFAULTS | {"_jinja2_env_vars": QUESTIONS["_jinja2_env_vars"]} | answers
    context = {"cookiecutter": {**dict.fromkeys(QUESTIONS, "x"), **answers}}
    return create_env_with_context(context).from_string(file.read_text(encoding="utf-8")).render(**context)


def literal_text(source: str) -> list[str]:
    """The text of a template file that lies outside of its expressions and statements, in order."""
    pieces = re.split(r"\{\{.*?\}\}|\{%.*?%\}", source, flags=re.DOTALL)
    return [piece.strip() for piece in pieces if piece.strip()]


def lost_text(source: str, rendered: list[str]) -> list[str]:
    """Pieces of a template file's literal text that are in none of its renderings (each shows some branches)."""
    if "{{" not in source and "{%" not in source:
        return [] if all(text == source for text in rendered) else ["(a file without expressions has changed)"]
    return [piece for piece in literal_text(source) if not any(piece in text for text in rendered)]


def assert_well_formed(project: Path, answers: dict[str, str]) -> None:
    """No template marker is left in any file, every file ends with a newline, and every data file parses."""
    for name in sorted(files_in(project)):
        text = (project / name).read_text(encoding="utf-8")
        if not is_copied(name.replace(package_of(answers), PACKAGE_FOLDER)):
            marker = re.search(r"\{\{|\{%|cookiecutter\.\w", text)
            assert not marker, f"{name} still holds {marker[0]}"
        assert text == "" or text.endswith("\n"), f"{name} has no newline at its end"
        if name.endswith((".yml", ".yaml")):
            list(yaml.safe_load_all(text))
        elif name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith(".py"):
            ast.parse(text)
