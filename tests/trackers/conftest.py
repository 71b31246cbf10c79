"""The real clients of trackers, with a fresh home folder and environment for each test."""

import os
from collections.abc import Iterator

import pytest
from comet_stand_in import CometStandIn


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> pytest.MonkeyPatch:
    """An environment without a trace of MLflow or Comet, the home folder included."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "COMET_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COMET_INTERNAL_SENTRY_DSN", "")  # its reports of its own errors
    for name in ("COMET_DISABLE_AUTO_LOGGING", "COMET_TIMEOUT_CLEANING", "COMET_LOGGING_CONSOLE"):
        monkeypatch.setenv(name, "1")  # so that it is put back, whoever sets it
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def comet(environment: pytest.MonkeyPatch) -> Iterator[CometStandIn]:
    """A Comet server that is named in the environment, and a key for it."""
    with CometStandIn() as server:
        environment.setenv("COMET_URL_OVERRIDE", f"{server.url}/clientlib/")
        environment.setenv("COMET_API_KEY", "k" * 25)
        yield server
