"""Data in a generated project."""

from baked import project, train  # noqa: F401
