"""wandb://…: what only W&B does: versions, a run of its own, and a client with a mind of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifacts_stand_in import ArtifactsStandIn

from lightning_hpc.remote import Missing, StoreError, open_store
from lightning_hpc.settings.errors import SettingsError


@pytest.fixture
def project(make_place):
    return make_place("wandb")


def versions(server: ArtifactsStandIn, place) -> list[tuple[str, set[str]]]:
    """Collection and files of what W&B keeps of a project, without the file that makes each version a new one."""
    return [(one.collection, set(one.files) - {".put"}) for one in server.kept(place.name)]


def test_a_put_is_one_version_and_what_counts_no_more_is_deleted(wandb_server, project, file, tmp_path):
    store = project.open()
    store.put({"run/a.ckpt": file, "run/b.json": file})
    assert versions(wandb_server, project) == [("run", {"a.ckpt", "b.json"})]

    # Some of a version: it stays, with the rest.
    store.delete(["run/b.json"])
    assert versions(wandb_server, project) == [("run", {"a.ckpt", "b.json"})]
    assert store.list("") == {"run/a.ckpt": 7}
    with pytest.raises(Missing):
        store.get("run/b.json", tmp_path / "target")

    # The pointer of a mirror is written again and again.
    for content in (b"1", b"22"):
        file.write_bytes(content)
        store.put({"run/latest.json": file})
        store.get("run/latest.json", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == content
    assert versions(wandb_server, project) == [("run", {"a.ckpt", "b.json"}), ("run", {"latest.json"})]

    store.delete(["run/a.ckpt"])
    assert versions(wandb_server, project) == [("run", {"latest.json"})]
    assert store.list("run") == {"run/latest.json": 2}


def test_what_was_there_before_the_newest_can_come_again(wandb_server, project, file, tmp_path):
    """W&B takes content that it has for the version that has it: here an older one that a kill has left."""
    store = project.open()
    for content in (b"1", b"22"):
        file.write_bytes(content)
        store.put({"run/latest.json": file})
    (first,) = [one for one in wandb_server.made if one.project == project.name and one.version == 0]
    wandb_server.artifacts[first.id] = first

    file.write_bytes(b"1")
    store.put({"run/latest.json": file})
    assert store.list("run") == {"run/latest.json": 1}
    store.get("run/latest.json", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"1"
    assert [one.version for one in wandb_server.kept(project.name)] == [2]


def test_the_training_s_own_run_and_its_sweep_are_left_alone(wandb_server, project, file, monkeypatch):
    for name, value in {"WANDB_RUN_ID": "trained", "WANDB_SWEEP_ID": "swept", "WANDB_RESUME": "must"}.items():
        monkeypatch.setenv(name, value)
    before = set(wandb_server.runs)
    store = project.open()
    store.put({"run/a": file})
    store.put({"run/b": file})
    (added,) = set(wandb_server.runs) - before
    assert added != "trained" and wandb_server.runs[added].project == project.name
    assert "wandb" not in sys.modules or __import__("wandb").run is None


def test_a_put_that_is_killed_in_the_middle_is_not_there_and_comes_no_more(wandb_server, project, file, tmp_path):
    """SIGKILL of who puts, once the first file has arrived."""
    store = project.open()
    store.put({"run/a": file})
    before = len(wandb_server.runs)
    program = "import sys; from pathlib import Path; from lightning_hpc.remote import open_store\n"
    program += "open_store(sys.argv[1]).put({'run/b': Path(sys.argv[2]), 'run/c': Path(sys.argv[2])})"
    process = subprocess.Popen([sys.executable, "-c", program, project.url, file])

    def watch(request: str) -> bool:
        if request.startswith("PUT /artifact-files"):
            process.kill()
            process.wait()
            time.sleep(2)  # a server that is slow: what is left of the upload has time to notice
        return False

    project.proxy.watch = watch
    process.wait(60)
    time.sleep(3)
    project.proxy.watch = lambda request: False
    assert process.returncode == -signal.SIGKILL and len(wandb_server.runs) == before + 1
    assert store.list("") == {"run/a": 7}
    assert versions(wandb_server, project) == [("run", {"a"})]
    store.put({"run/b": file, "run/c": file})
    assert set(store.list("")) == {"run/a", "run/b", "run/c"}


def test_a_put_after_one_that_failed_and_after_a_dead_client(project, file):
    store = project.open()
    store.put({"run/a": file})
    project.break_with("server error")
    with pytest.raises(StoreError, match="server's own"):
        store.put({"run/b": file})
    project.mend()
    store.put({"run/b": file})

    os.killpg(store.client.process.pid, signal.SIGKILL)
    with pytest.raises(StoreError, match="no answer") as caught:
        store.put({"run/c": file})
    assert not caught.value.permanent
    store.put({"run/c": file})
    assert set(store.list("run")) == {"run/a", "run/b", "run/c"}


def test_signals_that_ask_a_run_to_stop_do_not_stop_its_last_upload(project, file):
    store = project.open()
    store.put({"run/a": file})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(store.client.process.pid, number)
    store.put({"run/b": file})
    assert set(store.list("run")) == {"run/a", "run/b"}


def test_nothing_is_left_of_a_client_and_no_key_is_in_its_command(project, file):
    store = project.open()
    store.put({"run/a": file})
    client = store.client
    command = Path(f"/proc/{client.process.pid}/cmdline").read_text()
    assert not [secret for secret in project.secrets if secret in command]

    folder, group = Path(client.folder.name), client.process.pid
    assert folder.exists()
    del store, client
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_an_entity_that_nobody_sees_is_not_empty(project):
    store = open_store(f"wandb://somebody-else/{project.name}")
    with pytest.raises(StoreError, match="may not see it") as caught:
        store.list("")
    assert caught.value.permanent and not isinstance(caught.value, Missing)
    assert open_store(f"wandb://team/{project.name}").list("") == {}


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_client_that_was_told_to_stay_away_has_not_looked(project, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(StoreError, match=f"WANDB_MODE={mode}"):
        project.open().list("")


def test_a_name_that_can_be_no_artifact_is_refused(project, file):
    for name in ("alone", "a b/c"):
        with pytest.raises(StoreError, match="in no folder"):
            project.open().put({name: file})


@pytest.mark.parametrize("url", ["wandb://researcher", "wandb://a/b/c", "wandb://a b/c"])
def test_an_address_that_is_none_says_what_would_be_one(url):
    with pytest.raises(SettingsError, match="wandb://ENTITY/PROJECT"):
        open_store(url)
