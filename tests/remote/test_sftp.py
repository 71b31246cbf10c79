"""sftp://…: what only a host can do wrong. The real ssh logs in to an sshd of the tests' own."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import SftpPlace

from lightning_hpc.remote import Missing, StoreError, open_store, ssh
from lightning_hpc.settings.errors import SettingsError


@pytest.fixture
def host(make_place) -> SftpPlace:
    return make_place("sftp")


def test_one_login_serves_all_and_a_new_one_follows_when_it_has_ended(host, file):
    store, before = host.open(), host.sshd.logins()
    store.put({"run/a": file})
    assert store.list("") == {"run/a": 7}
    assert host.sshd.logins() == before + 1

    host.sshd.end_sessions()
    store.put({"run/b": file})
    assert set(store.list("")) == {"run/a", "run/b"}
    assert host.sshd.logins() == before + 2


def test_a_folder_that_is_not_there_is_not_an_empty_one(host, file, tmp_path):
    """Not even where it was there a moment ago: a disk can be unmounted."""
    store = host.open()
    store.put({"run/a": file})
    host.folder.rename(tmp_path / "unmounted")
    for act in (
        lambda: store.list(""),
        lambda: store.list("run"),
        lambda: store.get("run/a", tmp_path / "target"),
        lambda: store.put({"run/a": file}),
        lambda: store.delete(["run/a"]),
    ):
        with pytest.raises(StoreError, match="no such folder there.*ssh there mkdir -p") as caught:
            act()
        assert type(caught.value) is StoreError and caught.value.permanent
    assert not host.folder.exists()


def test_a_host_with_another_key_gets_nothing(host, file):
    host.sshd.trust("new-host-key")
    try:
        with pytest.raises(StoreError, match="Host key verification failed") as caught:
            host.open().put({"run/a": file})
    finally:
        host.sshd.trust()
    assert caught.value.permanent and not os.listdir(host.folder)


def test_a_host_that_says_nothing_more_is_given_up(host, monkeypatch):
    monkeypatch.setattr(ssh, "PATIENCE", 1.0)
    host.sshd.serve_files("exec sleep 20")
    with pytest.raises(StoreError, match="no answer for minutes") as caught:
        host.open().list("")
    assert not caught.value.permanent


def test_a_full_disk_there_keeps_what_was_there(sshd, host, small_disk, file):
    store = open_store(f"sftp://there{small_disk}")
    store.put({"run/latest.json": file})
    file.write_bytes(bytes(2_000_000))
    with pytest.raises(StoreError, match="its disk, or your quota there, may be full") as caught:
        store.put({"run/latest.json": file})
    assert type(caught.value) is StoreError
    assert store.list("") == {"run/latest.json": 7}
    assert os.listdir(small_disk / "run") == ["latest.json"]


def test_a_full_disk_here_is_an_error_of_the_disk_here(host, small_disk, file, tmp_path):
    file.write_bytes(random.Random(1).randbytes(6_000_000))
    store = host.open()
    store.put({"run/step.ckpt": file})
    with pytest.raises(OSError, match="No space left"):
        store.get("run/step.ckpt", small_disk / "step.ckpt")
    assert not os.listdir(small_disk)

    store.get("run/step.ckpt", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == file.read_bytes()


def test_a_signal_to_the_whole_job_does_not_end_an_upload(host, file):
    """SLURM signals every process of a job, ssh as well; the run then has time to put its last checkpoint."""
    store, before = host.open(), host.sshd.logins()
    store.list("")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        store.connection.process.send_signal(number)
    time.sleep(0.3)
    store.put({"run/a": file})
    assert store.list("") == {"run/a": 7} and host.sshd.logins() == before + 1


def test_a_killed_upload_leaves_the_file_before_and_no_process(host, file, tmp_path):
    store = host.open()
    store.put({"run/step.ckpt": file})
    program = (
        "import os, sys; from pathlib import Path; from lightning_hpc.remote import open_store\n"
        "store = open_store(sys.argv[1]); store.list(''); send = store.connection.send; count = 0\n"
        "def dying(data):\n"
        "    global count; count += len(data)\n"
        "    if count > 200_000: print(store.connection.process.pid, flush=True); os.kill(os.getpid(), 9)\n"
        "    return send(data)\n"
        "store.connection.send = dying\n"
        "store.put({'run/step.ckpt': Path(sys.argv[2])})"
    )
    file.write_bytes(bytes(3_000_000))
    done = subprocess.run([sys.executable, "-c", program, host.url, file], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr

    assert store.list("") == {"run/step.ckpt": 7}
    assert len(os.listdir(host.folder / "run")) == 2  # and the part
    end = time.monotonic() + 20
    while Path(f"/proc/{int(done.stdout)}").exists():
        assert time.monotonic() < end, "ssh has outlived the program that it served"
        time.sleep(0.05)

    [part] = (path for path in (host.folder / "run").iterdir() if path.name.startswith("."))
    os.utime(part, (time.time() - 7200,) * 2)
    store.put({"run/step.ckpt": file})
    assert os.listdir(host.folder / "run") == ["step.ckpt"]
    store.delete(["run/step.ckpt"])
    assert host.folder.is_dir() and not os.listdir(host.folder)


def test_a_folder_at_home_and_a_port(host, file, tmp_path):
    at_home = Path.home() / f"mirror-{tmp_path.name}"
    at_home.mkdir()
    try:
        store = open_store(f"sftp://there:{host.sshd.port}/~/{at_home.name}")
        store.put({"run/a": file})
        assert store.list("") == {"run/a": 7}
        with pytest.raises(Missing):
            store.get("run/b", tmp_path / "target")
        store.delete(["run/a"])
    finally:
        at_home.rmdir()


@pytest.mark.parametrize(
    "url", ["sftp://there", "sftp://there/", "sftp://-oProxyCommand=x/y", "sftp:///folder", "sftp://a b/folder"]
)
def test_an_address_that_is_none_says_what_would_be_one(url):
    with pytest.raises(SettingsError, match="sftp://USER@HOST/FOLDER"):
        open_store(url)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(SettingsError, match="must hold no password") as caught:
        open_store("sftp://me:hunter2@there/folder")
    assert "hunter2" not in str(caught.value)
