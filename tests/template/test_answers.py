"""Bad answers stop with one line, first on stderr, and leave nothing behind; unusual good ones get through."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import ladder
import pytest

hook = ladder.load_module(ladder.ROOT / "hooks" / "pre_gen_project.py")
COOKIECUTTER = Path(sys.executable).parent / "cookiecutter"
GOOD = ladder.DEFAULTS | {
    "project_name": "My Research Project",
    "project_slug": "my-research-project",
    "__typed_slug": "my-research-project",
    "package_name": "my_research_project",
    "description": "What it is about.",
    "author_name": "Ada Lovelace",
    "author_email": "",
    "slurm_account": "",
    "wandb_project": "my-research-project",
    "wandb_entity": "",
}


def problem(**answers: str) -> str | None:
    """What the hook says to the good answers with some replaced."""
    return next(hook.problems(GOOD | answers), None)


def generate(template: Path, output: Path, *answers: str) -> subprocess.CompletedProcess:
    """Run cookiecutter as from a shell, with its settings and replays in a home of its own."""
    home = output.parent / f"{output.name}-home"
    home.mkdir(exist_ok=True)
    command = [COOKIECUTTER, template, "--no-input", "--output-dir", output, *answers]
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": str(home), "PATH": "/usr/bin:/bin"})


def test_good_answers_pass():
    assert problem() is None
    assert problem(**ladder.UNUSUAL_TEXT, __typed_slug=ladder.UNUSUAL_TEXT["project_slug"]) is None


@pytest.mark.parametrize("key", ["project_name", "description", "author_name"])
@pytest.mark.parametrize(
    "value",
    ["", "  ", 'say "hi"', "back\\slash", "two\nlines", "car\rriage", "tab\t", "nul\0", "{{ x }}", "\u2028", "x" * 500],
    ids=ascii,
)
def test_text_that_would_break_a_file_is_refused(key, value):
    assert problem(**{key: value}).startswith(key)


@pytest.mark.parametrize(
    "slug",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "/etc",
        "My-Project",
        "my_project",
        "my project",
        "-a",
        "a-",
        "a--b",
        "ünder",
        "日本",
    ]
    + ["a\nb", "a'b", 'a"b', "a;b", "$HOME", "~", "a.b", "con", "nul", "com1", "lpt9", "x" * 51],
    ids=ascii,
)
def test_slug_that_is_no_folder_name_everywhere_is_refused(slug):
    message = problem(__typed_slug=slug)
    assert message.startswith("project_slug") and "type" in message


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("", "cannot be imported"),
        ("3d_net", "cannot be imported"),
        ("my-project", "cannot be imported"),
        ("My_Project", "cannot be imported"),
        ("_private", "cannot be imported"),
        ("größe", "cannot be imported"),
        ("a.b", "cannot be imported"),
        ("a\nb", "cannot be imported"),
        ("x" * 51, "at most 50"),
        ("class", "language"),
        ("match", "language"),
        ("email", "standard library"),
        ("test", "standard library"),
        ("print", "built-in"),
        ("torch", "library"),
        ("configs", "folder"),
        ("lightning_hpc", "folder"),
        ("runs", "folder"),
        ("tests", "folder"),
        ("nul", "Windows"),
    ],
    ids=ascii,
)
def test_package_that_cannot_be_one_is_refused(package, reason):
    message = problem(package_name=package)
    assert message.startswith("package_name") and reason in message and "type" in message


def test_every_dependency_is_a_refused_package_name(default_project):
    """The hook's table of libraries knows every module that the project's dependencies and extras install."""
    pyproject = tomllib.loads((default_project / "pyproject.toml").read_text())["project"]
    requirements = pyproject["dependencies"] + sum(pyproject["optional-dependencies"].values(), [])
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in requirements}

    # What these need is installed, too, such as click.
    pending = set(names)
    while pending:
        name = pending.pop()
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here, or what another platform needs
        needed = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in needed if "extra ==" not in line}
        pending |= needed - names
        names |= needed

    checked, accepted = set(), []
    for module, distributions in importlib.metadata.packages_distributions().items():
        owners = {distribution.lower().replace("_", "-") for distribution in distributions}
        if owners & names and re.fullmatch(r"[a-z][a-z0-9_]*", module.lower()):
            checked |= owners & names
            accepted += [module] if problem(package_name=module.lower()) is None else []
    assert not accepted
    assert len(checked) > 50


@pytest.mark.parametrize("package", ["click", "six", "joblib", "flask", "pyarrow"])
def test_what_dependencies_need_is_a_refused_package_name(package):
    assert "is a library" in problem(package_name=package)


def test_an_old_cookiecutter_is_told_which_version_is_needed():
    """Version 1.7, Debian 12's, leaves derived answers as cookiecutter.json has them."""
    raw = {key: ladder.QUESTIONS[key] for key in ("__typed_slug", "__conda_environment", "__year")}
    assert problem(**raw).startswith("this cookiecutter is too old for the template: it needs 2.6 or newer")


@pytest.mark.parametrize(
    ("name", "holder"), [("Shape Bias", "The Shape Bias authors"), ("The Thing", "The Thing authors")]
)
def test_the_holder_of_the_copyright_has_one_article(bake, name, holder):
    assert f"{holder}\n" in (bake(project_name=name) / "LICENSE").read_text()


def test_every_folder_of_the_project_is_a_refused_package_name(default_project):
    folders = {path.name for path in default_project.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for folder in folders - {"my_research_project"}:
        assert "is a folder of the generated project" in problem(package_name=folder)


@pytest.mark.parametrize(
    "account", ["a b", "a;rm -rf /", "$(id)", "`id`", "a\nb", "-A", "a'b", "a/b", "ä", "x" * 65], ids=ascii
)
def test_account_with_shell_characters_is_refused(account):
    assert problem(slurm_account=account).startswith("slurm_account")


@pytest.mark.parametrize(
    "email", ["ada", "a@b c", "a@b\n", "a@b\nCc: c@d", "<a@b>", '"a"@b', "a@", "@b", "a@b@c"], ids=ascii
)
def test_email_that_is_none_is_refused(email):
    assert problem(author_email=email).startswith("author_email")


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a#b", "a?b", "a%b", "a:b", "a b", "a\nb", "x" * 129, "-a"], ids=ascii)
@pytest.mark.parametrize("key", ["wandb_project", "wandb_entity"])
def test_name_that_wandb_refuses_is_refused(key, name):
    assert problem(**{key: name}).startswith(key)


def test_wandb_project_is_needed_and_accepted_by_the_client():
    import wandb

    assert problem(wandb_project="").startswith("wandb_project")
    wandb.Settings(project=ladder.UNUSUAL_TEXT["wandb_project"])


@pytest.mark.parametrize("combination", ladder.UNSUPPORTED, ids=ladder.name_of)
def test_unsupported_combination_says_what_to_choose(combination):
    assert "choose" in problem(**combination)


def test_messages_are_one_line_and_show_at_most_some_of_the_answer():
    message = problem(project_name="a\n" * 5000 + '"')
    assert "\n" not in message and len(message) < 200


@pytest.mark.parametrize(
    "answer",
    [
        "project_slug=..",
        "project_slug=a/b",
        "project_slug=../outside",
        "project_slug=",
        "project_slug=" + "x" * 300,
        "project_slug=A B",
        "package_name=torch",
        "package_name=class",
        "project_name=two\nlines",
        'project_name=a "quoted" name',
        'author_name="""',
        "description=\\",
        "slurm_account=$(touch x)",
    ],
    ids=lambda answer: ascii(answer)[:40],
)
def test_refusal_is_one_line_first_and_leaves_nothing(answer, template, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    before = sorted(tmp_path.iterdir())
    done = generate(template, output, answer)
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"Error: {answer.split('=')[0]} ") and "type" in first
    assert "ready" not in done.stdout
    assert not list(output.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in before} | {"output-home"}


def test_absolute_path_as_slug_makes_nothing_there(template, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    done = generate(template, output, f"project_slug={tmp_path / 'elsewhere'}")
    assert done.returncode == 1 and done.stderr.startswith("Error: project_slug")
    assert not (tmp_path / "elsewhere").exists() and not list(output.iterdir())


def test_name_in_another_script_gets_a_folder_that_works(template, tmp_path):
    for name, slug in {"Größe & Gewicht": "grosse-gewicht", "😀": "research-project", "3D Nets": "3d-nets"}.items():
        done = generate(template, tmp_path / "output", f"project_name={name}")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "output" / slug / "pyproject.toml").exists()
    assert (tmp_path / "output" / "3d-nets" / "project_3d_nets").is_dir()


def test_rendered_hook_reads_the_answers_whatever_is_in_them(template, tmp_path):
    """Quotes, backslashes and newlines reach the check as typed; a naive hook would be a syntax error."""
    from cookiecutter.utils import create_env_with_context

    answers = {"project_name": '"""\\', "author_name": "'''\n{{ x }}", "__typed_slug": "é😀"}
    context = {"cookiecutter": answers | {"_jinja2_env_vars": ladder.QUESTIONS["_jinja2_env_vars"]}}
    for name in ("pre_gen_project", "post_gen_project"):
        source = (template / "hooks" / f"{name}.py").read_text()
        rendered = tmp_path / f"{name}.py"
        rendered.write_text(create_env_with_context(context).from_string(source).render(**context))
        assert json.loads(ladder.load_module(rendered).ANSWERS).items() >= answers.items()
