"""The real W&B client against a stand-in server: a fresh server, home folder and environment for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_stand_in import SweepStandIn

KEY = "0123456789abcdef" * 2 + "secret42"  # 40 characters, as W&B wants


@pytest.fixture
def wandb_env(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[pytest.MonkeyPatch]:
    """An environment without a key or any other trace of W&B, the home folder included."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    wandb.teardown()  # the client keeps what it has read from the environment
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def server(wandb_env: pytest.MonkeyPatch) -> Iterator[SweepStandIn]:
    """A W&B server that is named in the environment; there is no key for it."""
    with SweepStandIn() as stand_in:
        wandb_env.setenv("WANDB_BASE_URL", stand_in.url)
        yield stand_in


@pytest.fixture
def key(wandb_env: pytest.MonkeyPatch) -> str:
    """A key in the environment."""
    wandb_env.setenv("WANDB_API_KEY", KEY)
    return KEY


@pytest.fixture
def home() -> Path:
    return Path.home()
