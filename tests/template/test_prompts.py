"""The questions as a person meets them: a real terminal, Enter all the way, and choices by number."""

import os
import re
import sys
from pathlib import Path

import ladder
import pexpect
import pytest

COOKIECUTTER = str(Path(sys.executable).parent / "cookiecutter")
ASKED = [key for key in ladder.QUESTIONS if not key.startswith("_")]
PROMPTS = ladder.QUESTIONS["__prompts__"]


@pytest.fixture
def terminal(template, tmp_path):
    """Cookiecutter in a terminal of 200 columns, started in an empty folder."""
    environment = os.environ | {"HOME": str(tmp_path / "home"), "PWD": str(tmp_path), "TERM": "dumb", "COLUMNS": "200"}
    (tmp_path / "home").mkdir()
    child = pexpect.spawn(
        COOKIECUTTER,
        [str(template)],
        cwd=tmp_path,
        env=environment,
        encoding="utf-8",
        timeout=600,
        dimensions=(60, 200),
    )
    yield child
    child.close(force=True)


def answer_all(child: pexpect.spawn, **answers: str) -> list[str]:
    """Answer each question in turn, Enter where nothing is given; return what was shown for each."""
    shown = []
    for number, key in enumerate(ASKED, start=1):
        child.expect(rf"\[{number}/{len(ASKED)}\] (.*\([^()]*\)): $")
        shown.append(child.match[1])
        child.sendline(answers.get(key, ""))
    return shown


def test_enter_all_the_way(terminal, tmp_path):
    shown = answer_all(terminal)
    terminal.expect(pexpect.EOF)
    for key, text in zip(ASKED, shown, strict=True):
        prompt = PROMPTS[key]
        labels = [prompt] if isinstance(prompt, str) else prompt.values()
        assert all(label in text for label in labels), f"{key} is shown as {text!r}"
    assert "Traceback" not in terminal.before
    assert [line for line in terminal.before.splitlines() if line.strip()][-4:] == [
        "My Research Project is ready. Next, type:",
        "    cd my-research-project",
        "    python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'",
        "    python Train.py fit",
    ]
    assert (tmp_path / "my-research-project" / "pyproject.toml").exists()


def test_a_name_is_enough_and_choices_go_by_number(terminal, tmp_path):
    answer_all(terminal, project_name="Shape Bias", license="5", cluster="2", deployment="2", ci="2")
    terminal.expect(pexpect.EOF)
    project = tmp_path / "shape-bias"
    assert ladder.files_in(project) >= {"shape_bias/__init__.py", "Dockerfile", ".gitlab-ci.yml"}
    assert "All rights reserved" in (project / "LICENSE").read_text()
    assert re.search(r"conda env create -f environment.yml -p \$global_storage/shape-bias", terminal.before)


def test_a_bad_answer_is_named_in_the_terminal(terminal, tmp_path):
    answer_all(terminal, package_name="torch")
    terminal.expect(pexpect.EOF)
    assert terminal.before.strip().splitlines()[0].startswith("Error: package_name 'torch' is a library")
    terminal.wait()
    assert terminal.exitstatus == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_every_question_has_a_prompt_and_every_choice_a_label():
    assert list(PROMPTS) == ASKED
    for key, values in ladder.CHOICES.items():
        assert set(PROMPTS[key]) == {"__prompt__", *values}
