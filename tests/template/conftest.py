"""Fixtures that generate projects from a clean copy of the template."""

from collections.abc import Callable
from pathlib import Path

import pytest
from clean_copy import clean_copy


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A copy of the template as git sees it."""
    return clean_copy(tmp_path_factory.mktemp("template") / "template")


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
