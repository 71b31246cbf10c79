"""The commands of a generated project, run from end to end."""

from baked import project, train  # noqa: F401
