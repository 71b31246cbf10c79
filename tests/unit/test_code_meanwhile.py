"""Copies of the code that are taken while somebody edits it: they are what they say that they are."""

import itertools
import os
import subprocess

import pytest

from lightning_hpc.code import snapshot
from lightning_hpc.code.snapshot import DIFF, read_version, take_snapshot
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
