"""What the unit tests share: the user's own modules are those of the template."""

from pathlib import Path

import pytest

from lightning_hpc.settings.classes import work_in

PACKAGE = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}" / "{{cookiecutter.package_name}}"


@pytest.fixture(autouse=True)
def in_the_template() -> None:
    work_in(PACKAGE)
