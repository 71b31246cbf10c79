"""Copies of the code that are taken while somebody edits it: they are what they say that they are."""

import io
import itertools
import json
import os
import subprocess
import tarfile

import pytest

from lightning_hpc.code import snapshot
from lightning_hpc.code.snapshot import DIFF, read_version, take_snapshot
from lightning_hpc.hosts import sending
from lightning_hpc.hosts.sending import pack
from lightning_hpc.settings.errors import SettingsError


def git(root, *command):
    process = subprocess.run(["git", "-C", root, *command], check=True, capture_output=True, text=True)
    return process.stdout.strip()


def commit(root):
    git(root, "add", "--all")
    git(root, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "--message", "a change")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in git, with a change that is not committed."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    root = tmp_path / "project"
    root.mkdir()
    (root / "Train.py").write_text("print('first')\n")
    (root / "model.py").write_text("width = 1\n")
    git(root, "init", "--quiet")
    commit(root)
    (root / "model.py").write_text("width = 2\n")
    return root


def edited_meanwhile(monkeypatch, edit):
    """Lets somebody edit the code between its copy and the look at what is not committed, the first time."""
    read, edits = snapshot.read_version, [edit]

    def read_version(*arguments):
        if edits:
            edits.pop()()
        return read(*arguments)

    monkeypatch.setattr(snapshot, "read_version", read_version)


def test_a_file_that_is_edited_while_the_code_is_copied_is_copied_again(project, tmp_path, monkeypatch):
    edited_meanwhile(monkeypatch, lambda: (project / "model.py").write_text("width = 3\n"))
    take_snapshot(project, tmp_path / "copy", tmp_path / "runs")
    assert (tmp_path / "copy" / "model.py").read_text() == "width = 3\n"
    assert "+width = 3" in (tmp_path / "copy" / DIFF).read_text()


def test_a_commit_while_the_code_is_copied_is_the_one_that_is_noted(project, tmp_path, monkeypatch):
    changed = snapshot.changed_files

    def committed_now(root):
        if git(root, "status", "--porcelain"):
            commit(root)
        return changed(root)

    monkeypatch.setattr(snapshot, "changed_files", committed_now)
    take_snapshot(project, tmp_path / "copy", tmp_path / "runs")
    version = read_version(tmp_path / "copy")
    assert (version.commit, version.uncommitted_changes) == (git(project, "rev-parse", "HEAD"), False)


def test_a_file_that_goes_away_while_the_code_is_copied_is_no_code(project, tmp_path, monkeypatch):
    (project / "draft.py").write_text("")
    copy2 = snapshot.shutil.copy2

    def goes_away(source, target):
        (project / "draft.py").unlink(missing_ok=True)
        return copy2(source, target)

    monkeypatch.setattr(snapshot.shutil, "copy2", goes_away)
    take_snapshot(project, tmp_path / "copy", tmp_path / "runs")
    assert not (tmp_path / "copy" / "draft.py").exists() and (tmp_path / "copy" / "model.py").exists()


def test_code_that_changes_all_the_time_is_not_copied(project, tmp_path, monkeypatch):
    read, numbers = snapshot.read_version, itertools.count()

    def read_version(*arguments):
        (project / "model.py").write_text(f"width = {next(numbers)}\n")
        return read(*arguments)

    monkeypatch.setattr(snapshot, "read_version", read_version)
    with pytest.raises(SettingsError, match="model.py is being changed"):
        take_snapshot(project, tmp_path / "copy", tmp_path / "runs")


@pytest.fixture
def sent(project):
    """What `--on HOST` would send of the project, each time that it is called."""
    (project / "configs").mkdir()
    (project / "configs" / "base.yaml").write_text("{}\n")

    def send(parcel):
        with tarfile.open(fileobj=io.BytesIO(parcel.archive())) as archive:
            model = archive.extractfile("files/model.py").read().decode()
            return model, json.load(archive.extractfile(".sent/version.json"))

    return send


def test_what_is_edited_before_it_is_sent_is_sent_as_its_version_says(project, sent):
    """Between the look at the code and the sending somebody answers a question, or works on."""
    parcel = pack(project)
    commit(project)
    (project / "model.py").write_text("key = 'AKIA" + 16 * "A" + "'\n")
    model, version = sent(parcel)
    assert model == "width = 2\n" and "+width = 2" in version["diff"]


def test_a_file_that_is_edited_while_the_code_is_packed_is_packed_again(project, sent, monkeypatch):
    read, edits = sending.read_version, ["width = 3\n"]

    def read_version(*arguments):
        version = read(*arguments)
        if edits:
            (project / "model.py").write_text(edits.pop())
        return version

    monkeypatch.setattr(sending, "read_version", read_version)
    model, version = sent(pack(project))
    assert model == "width = 3\n" and "+width = 3" in version["diff"]
