"""A server that forks attempts at a run, shared by all chains; and the commands of a generated project."""

import pytest
from baked import project, train  # noqa: F401
from chain import Server


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.close()
