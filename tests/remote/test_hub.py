"""hf://…: what only the Hub does: it is public by default, it keeps a history, and it counts requests."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import Fault
from hub_stand_in import Repository
from places import HubPlace

from lightning_hpc.remote import Missing, StoreError, open_store
from lightning_hpc.settings.errors import SettingsError


@pytest.fixture
def repository(make_place) -> HubPlace:
    """A repository that does not exist yet."""
    return make_place("hub")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.ckpt"
    path.write_bytes(b"content")
    return path


def kept(hub, place) -> Repository:
    return hub.repositories[f"models/researcher/{place.name}"]


def test_a_repository_is_made_by_the_first_file_and_is_private(hub, repository, file):
    store = repository.open()
    assert store.list("") == {} and not [name for name in hub.repositories if repository.name in name]
    store.put({"run/a.ckpt": file})
    assert kept(hub, repository).private


def test_a_public_repository_gets_nothing_unless_one_says_so(hub, repository, file, tmp_path):
    hub.repositories[f"models/researcher/{repository.name}"] = Repository(private=False)
    store = repository.open()
    for act in (
        lambda: store.put({"run/a.ckpt": file}),
        lambda: store.list(""),
        lambda: store.get("run/a.ckpt", tmp_path / "target"),
    ):
        with pytest.raises(StoreError, match="is public.*--mirror.public true") as caught:
            act()
        assert type(caught.value) is StoreError and caught.value.permanent
    assert set(kept(hub, repository).files) == {".gitattributes"}

    wished = open_store(repository.url, public=True)
    wished.put({"run/a.ckpt": file})
    assert wished.list("") == {"run/a.ckpt": 7}


def test_a_repository_that_is_made_public_later_gets_no_more(hub, repository, file):
    store = repository.open()
    store.put({"run/a.ckpt": file})
    kept(hub, repository).private = False
    with pytest.raises(StoreError, match="is public"):
        store.put({"run/b.ckpt": file})
    assert "run/b.ckpt" not in kept(hub, repository).files


def test_a_new_repository_is_public_where_that_was_wished(hub, repository, file):
    open_store(repository.url, public=True).put({"run/a.ckpt": file})
    assert not kept(hub, repository).private


@pytest.mark.parametrize("token", ["hf_narrow", None])
def test_a_token_that_may_not_see_a_repository_does_not_take_it_for_an_empty_one(
    hub, repository, file, tmp_path, monkeypatch, token
):
    repository.open().put({"run/a.ckpt": file})
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    store = repository.open()
    for act in (lambda: store.list(""), lambda: store.get("run/a.ckpt", tmp_path / "target")):
        with pytest.raises(StoreError) as caught:
            act()
        assert type(caught.value) is StoreError and caught.value.permanent
    assert ("may not see it" if token else "hf auth login") in str(caught.value)


def test_another_owner_s_repository_that_is_not_seen_is_not_an_empty_one(repository, file):
    store = open_store("hf://somebody/project")
    with pytest.raises(StoreError, match="may not see it"):
        store.list("")
    with pytest.raises(StoreError):
        store.put({"run/a.ckpt": file})


def test_a_token_that_may_only_read_can_fetch_and_not_put(repository, file, tmp_path, monkeypatch):
    repository.open().put({"run/a.ckpt": file})
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    repository.open().get("run/a.ckpt", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    with pytest.raises(StoreError, match="may not do that.*may write") as caught:
        repository.open().put({"run/b.ckpt": file})
    assert caught.value.permanent


def test_a_put_is_one_commit_and_a_deletion_another(hub, repository, file):
    store = repository.open()
    store.put({"run/a.ckpt": file, "run/b.ckpt": file, "run/c.json": file})
    store.delete(["run/a.ckpt", "run/b.ckpt", "run/none"])
    store.delete(["run/none"])
    commits = [sorted(paths) for paths in kept(hub, repository).commits]
    assert commits == [["run/a.ckpt", "run/b.ckpt", "run/c.json"], ["run/a.ckpt", "run/b.ckpt"]]
    assert store.seconds_between_puts >= 3600 / 128


@pytest.mark.parametrize("stage", ["preupload", "/lfs/", "/commit/"])
def test_a_put_that_fails_at_any_stage_puts_nothing(hub, repository, file, stage, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # it tries for 23 s
    store = repository.open()
    store.put({"run/a.ckpt": file})
    file.write_bytes(b"other")
    repository.proxy.fault = Fault(500, b"{}", only=stage)
    with pytest.raises(StoreError, match="server's own.*500") as caught:
        store.put({"run/a.ckpt": file, "run/b.json": file})
    assert not caught.value.permanent

    repository.mend()
    assert store.list("") == {"run/a.ckpt": 7}
    store.put({"run/a.ckpt": file, "run/b.json": file})
    assert store.list("") == {"run/a.ckpt": 5, "run/b.json": 5}


def test_a_commit_whose_answer_is_lost_can_be_done_again(hub, repository, file):
    store = repository.open()
    store.list("")
    repository.proxy.fault = Fault(lost_answer=True, only="/commit/", times=1)
    with pytest.raises(StoreError, match="no answer"):
        store.put({"run/a.ckpt": file})
    store.put({"run/a.ckpt": file})
    assert store.list("") == {"run/a.ckpt": 7}


def test_no_signed_address_is_logged(repository, file, caplog, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    store = repository.open()
    repository.proxy.fault = Fault(503, b"{}", only="/lfs/")
    with caplog.at_level(logging.INFO), pytest.raises(StoreError):
        store.put({"run/a.ckpt": file})
    assert not [secret for secret in repository.secrets if secret in caplog.text]


def test_a_client_that_was_told_to_stay_offline_has_not_looked(repository, file):
    repository.open().put({"run/a.ckpt": file})
    program = "import sys; from lightning_hpc.remote import *\n"
    program += "try: print(open_store(sys.argv[1]).list(''))\nexcept StoreError as error: print(type(error), error)"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, repository.url]
    said = subprocess.run(command, env=offline, capture_output=True, text=True).stdout
    assert "StoreError" in said and "OfflineModeIsEnabled" in said


def test_a_data_set_s_repository_and_a_folder_in_it(hub, repository, file, tmp_path):
    store = open_store(f"hf://datasets/researcher/{repository.name}/mirror/of")
    store.put({"run/a.ckpt": file})
    assert set(hub.repositories[f"datasets/researcher/{repository.name}"].files) == {
        ".gitattributes",
        "mirror/of/run/a.ckpt",
    }
    assert store.list("") == store.list("run") == {"run/a.ckpt": 7}
    store.get("run/a.ckpt", tmp_path / "target")
    with pytest.raises(Missing):
        store.get("run/b.ckpt", tmp_path / "target")
    store.delete(["run/a.ckpt"])
    assert store.list("") == {}


@pytest.mark.parametrize("url", ["hf://researcher", "hf://a b/c", "hf://datasets/x", "hf://buckets/a/b"])
def test_an_address_that_is_none_says_what_would_be_one(url):
    with pytest.raises(SettingsError, match="hf://OWNER/REPO"):
        open_store(url)
