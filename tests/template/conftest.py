"""Fixtures that generate projects from a clean copy of the template."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A copy of the template as git sees it: cookiecutter would also render caches that lie about in the original."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    copy = tmp_path_factory.mktemp("template") / "template"
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture
def bake(cookies, template) -> Callable[..., Path]:
    """A function that generates a project from answers and returns its folder; a refusal raises."""

    def generate(**answers: str) -> Path:
        result = cookies.bake(extra_context=answers, template=str(template))
        if result.exception:
            raise result.exception
        return result.project_path

    return generate


@pytest.fixture(scope="session")
def default_project(cookies_session, template) -> Path:
    """The project of all defaults, shared by the session: tests only read it."""
    result = cookies_session.bake(template=str(template))
    assert result.exception is None, result.exception
    return result.project_path
