"""Fixtures that generate projects from a clean copy of the template, each set of answers once."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import ladder
import pytest
from clean_copy import clean_copy
from filelock import FileLock


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of this test session, the same one for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "template-tests"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def template(shared_folder) -> Path:
    """A copy of the template as git sees it."""
    copy = shared_folder / "template"
    with FileLock(shared_folder / "template.lock"):
        if not copy.exists():
            clean_copy(shared_folder / "template.part").rename(copy)
    return copy


@pytest.fixture(scope="session")
def bake(cookies_session, template, shared_folder) -> Callable[..., Path]:
    """A function that generates a project from answers and returns its folder; a refusal raises.

    The projects are shared by all tests: equal answers give the same folder, and nothing may be written into it.
    """

    def generate(**answers: str) -> Path:
        # An answer that is the default makes no other project.
        answers = {key: answer for key, answer in answers.items() if answer != ladder.default_of(key)}
        name = hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
        place = shared_folder / name
        with FileLock(shared_folder / f"{name}.lock"):
            if not place.exists():
                result = cookies_session.bake(extra_context=answers, template=str(template))
                if result.exception:
                    raise result.exception
                part = place.with_suffix(".part")
                part.mkdir(exist_ok=True)
                result.project_path.rename(part / result.project_path.name)
                part.rename(place)
        (project,) = place.iterdir()
        return project

    return generate


@pytest.fixture
def bake_to_edit(bake, tmp_path) -> Callable[..., Path]:
    """As `bake`, but the project is a copy of the test's own, which it may change."""

    def generate(**answers: str) -> Path:
        project = bake(**answers)
        return Path(shutil.copytree(project, tmp_path / "to-edit" / project.name))

    return generate


@pytest.fixture(scope="session")
def default_project(bake) -> Path:
    """The project of all defaults: tests only read it."""
    return bake()
