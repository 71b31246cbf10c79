"""A server that forks attempts at a run, shared by all chains."""

import pytest
from chain import Server


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.close()
