"""Which code runs: what a snapshot copies, leaves out and notes, and whether the machine room has been changed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import lightning_hpc
from lightning_hpc import __version__
from lightning_hpc.code.git import machine_room_changed
from lightning_hpc.code.keys import key_by_name, key_in
from lightning_hpc.code.listing import MOST_TEXTS
from lightning_hpc.code.snapshot import DIFF, NOTE, Version, left_out, notes_on_code, read_version, take_snapshot
from lightning_hpc.settings.errors import SettingsError

PACKAGE = Path(lightning_hpc.__file__).parent
INIT = '"""The machine room."""\n\n__version__ = "{}"\n'


@pytest.fixture(autouse=True)
def nobodys_git_settings(tmp_path, monkeypatch):
    """Git as it is after its installation, with a name for commits."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # a repository around the tests is not theirs
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")


def git(root, *command):
    process = subprocess.run(["git", "-C", root, *command], check=True, capture_output=True, text=True)
    return process.stdout.strip()


def commit(root):
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a change")


@pytest.fixture
def root(tmp_path):
    """A project's folder without git."""
    project = tmp_path / "project"
    for name, text in {
        "Train.py": "print('first')\n",
        "lightning_hpc/__init__.py": INIT.format("0.1.0"),
        "lightning_hpc/files.py": "whole = True\n",
        "lightning_hpc/cka/plot.py": "colour = 'blue'\n",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


@pytest.fixture
def repository(root):
    git(root, "init", "--quiet")
    commit(root)
    return root


def test_nobody_knows_about_changes_without_git_or_a_commit(root, monkeypatch):
    assert machine_room_changed(root) is None
    git(root, "init", "--quiet")
    assert machine_room_changed(root) is None
    git(root, "add", "Train.py")
    git(root, "commit", "--quiet", "--message", "without the machine room")
    assert machine_room_changed(root) is None

    commit(root)
    assert machine_room_changed(root) == []
    monkeypatch.setenv("PATH", str(root / "nothing"))
    assert machine_room_changed(root) is None


def test_other_changes_are_not_the_machine_rooms(repository):
    (repository / "Train.py").write_text("print('second')\n")
    (repository / "model.py").write_text("")
    assert machine_room_changed(repository) == []
    commit(repository)
    assert machine_room_changed(repository) == []


def test_edits_are_seen_committed_or_not_until_they_are_taken_back(repository):
    plot = repository / "lightning_hpc" / "cka" / "plot.py"
    plot.write_text("colour = 'red'\n")
    (repository / "lightning_hpc" / "files.py").unlink()
    (repository / "lightning_hpc" / "my own ä.py").write_text("")
    changed = ["lightning_hpc/cka/plot.py", "lightning_hpc/files.py", "lightning_hpc/my own ä.py"]
    assert machine_room_changed(repository) == changed

    git(repository, "add", "--all")
    assert machine_room_changed(repository) == changed
    commit(repository)
    assert machine_room_changed(repository) == changed

    plot.write_text("colour = 'blue'\n")
    assert machine_room_changed(repository) == changed[1:]


def test_what_git_ignores_is_no_change(repository):
    (repository / ".gitignore").write_text("__pycache__/\n")
    (repository / "lightning_hpc" / "__pycache__").mkdir()
    (repository / "lightning_hpc" / "__pycache__" / "files.pyc").write_text("")
    assert machine_room_changed(repository) == []


def test_a_new_version_is_a_delivery_and_edits_count_from_there(repository):
    for version in ("0.2.0", "0.3.0"):
        (repository / "lightning_hpc" / "__init__.py").write_text(INIT.format(version))
        (repository / "lightning_hpc" / "files.py").write_text(f"whole = {version!r}\n")
        commit(repository)
        assert machine_room_changed(repository) == []

    init = repository / "lightning_hpc" / "__init__.py"
    init.write_text(init.read_text() + "\n\ndef mine():\n    pass\n")  # the line of the version stays as it was
    commit(repository)
    assert machine_room_changed(repository) == ["lightning_hpc/__init__.py"]


def test_a_project_may_be_a_part_of_a_repository(root):
    git(root.parent, "init", "--quiet")
    commit(root.parent)
    assert machine_room_changed(root) == []
    (root / "lightning_hpc" / "files.py").write_text("whole = False\n")
    assert machine_room_changed(root) == ["lightning_hpc/files.py"]


def write(root, *names, text="text"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def snapshot(root, target):
    """The names of the files and links in a new snapshot, without its note."""
    take_snapshot(root, target, without=root / "runs")
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or path.is_file()}
    return names - {NOTE, DIFF}


def note(target):
    return json.loads((target / NOTE).read_text())


def test_a_snapshot_notes_the_commit_what_is_not_committed_and_the_machine_rooms_version(repository, tmp_path):
    head = git(repository, "rev-parse", "HEAD")
    target = tmp_path / "code"
    files = sorted(snapshot(repository, target))
    assert note(target) == {
        "commit": head, "uncommitted_changes": False, "lightning_hpc": __version__, "project": str(repository),
        "files": files, "left_out": {},
    }  # fmt: skip
    assert read_version(target) == read_version(repository) == Version(head, False, None)
    assert not (target / DIFF).exists()

    (repository / "Train.py").write_text("print('größer')\n")
    snapshot(repository, tmp_path / "again")
    assert note(tmp_path / "again")["uncommitted_changes"] is True
    version = read_version(tmp_path / "again")
    assert version.commit == head and "+print('größer')" in version.diff
    assert version == read_version(repository)


def test_without_git_there_is_no_commit_to_note(root, tmp_path, monkeypatch):
    nobody_knows = Version(None, None, None)
    assert read_version(root) == nobody_knows
    snapshot(root, tmp_path / "code")
    assert note(tmp_path / "code")["commit"] is None and note(tmp_path / "code")["uncommitted_changes"] is None

    git(root, "init", "--quiet")
    assert read_version(root) == nobody_knows
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_version(root) == nobody_knows


def test_new_code_is_a_change_and_in_the_patch_as_a_whole(repository, tmp_path):
    write(repository, "my_package/model.py", text="layers = 3\nwidth = 'größer'")
    write(repository, "my_package/empty.py", text="")
    write(repository, "notes.md", "picture.png")
    (repository / "lightning_hpc" / "files.py").unlink()
    version = read_version(repository)
    assert version.uncommitted_changes is True
    assert "+++ b/my_package/model.py\n@@ -0,0 +1,2 @@\n+layers = 3\n+width = 'größer'\n" in version.diff
    assert "notes.md" not in version.diff and "picture.png" not in version.diff

    # The patch makes the commit into what was there.
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(repository), str(other))
    (tmp_path / "patch").write_text(version.diff)
    git(other, "apply", str(tmp_path / "patch"))
    assert (other / "my_package" / "model.py").read_text() == "layers = 3\nwidth = 'größer'"
    assert (other / "my_package" / "empty.py").read_text() == ""
    assert not (other / "lightning_hpc" / "files.py").exists()


def test_large_and_binary_files_are_named_in_the_patch_and_not_copied(repository):
    write(repository, "table.csv", "small.csv", text="1,2\n" * 400_000)
    (repository / "weights.npz").write_bytes(b"\0" * 2000)
    commit(repository)
    write(repository, "table.csv", text="2,3\n" * 400_000)
    write(repository, "small.csv", text="1\n")  # what is removed would be large, too
    (repository / "weights.npz").write_bytes(b"\0\1" * 2000)
    (repository / "Train.py").write_text("print('second')\n")

    diff = read_version(repository).diff
    assert "# not shown: table.csv (1.6 MB)\n" in diff and "# not shown: small.csv (1.6 MB)\n" in diff
    assert "Binary files a/weights.npz and b/weights.npz differ" in diff and "+print('second')" in diff
    assert len(diff) < 1000


def test_a_key_is_in_no_patch(repository):
    token = "ghp_" + "a1B2" * 9
    write(repository, "old.py", text=f"token = '{token}'\n")
    commit(repository)
    write(repository, "old.py", text="token = os.environ['TOKEN']\n")
    write(repository, "new.py", text=f"token = '{token}'\n")
    (repository / "Train.py").write_text("print('second')\n")
    diff = read_version(repository).diff
    assert token not in diff and "+print('second')" in diff
    for name in ("old.py", "new.py"):
        assert f"# not shown: {name} (has what looks like a token of GitHub in line" in diff


def test_the_commit_of_a_repository_around_it_is_not_the_projects(root, tmp_path):
    """A project in a folder that the repository ignores, or has not taken in yet."""
    write(tmp_path, ".gitignore", text="/project/\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    assert read_version(root) == Version(None, None, None)
    assert "Train.py" in snapshot(root, tmp_path / "code")

    (tmp_path / ".gitignore").unlink()
    assert read_version(root).commit is None
    commit(tmp_path)
    assert read_version(root).commit == git(tmp_path, "rev-parse", "HEAD")


def test_a_commit_under_way_elsewhere_does_not_confuse_git(repository, tmp_path, monkeypatch):
    """While git runs a hook, variables point to the repository of that commit."""
    other = tmp_path / "other"
    write(other, "a.py")
    git(other, "init", "--quiet")
    commit(other)
    head = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert read_version(repository) == Version(head, False, None)


CODE = ["my_package/runs/a.py", "my_package/b.j2", "configs/base.yaml", "configs/jobs/c.yaml", "notes.toml"]
CODE += ["data/__init__.py", "data/a.py", "build/__init__.py", "kernels/a.cu", "run.sh", "my_package/labels.csv"]
NO_CODE = ["runs/other/config.yaml", ".hidden.py", "env/lib/python.py", "conda/lib/python.py"]
NO_CODE += ["conda/conda-meta/history.json", "my_package/__pycache__/a.py", "wandb/a.json"]


@pytest.mark.parametrize("with_git", [True, False])
def test_a_snapshot_has_the_code_and_nothing_else(root, tmp_path, monkeypatch, with_git):
    delivered = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    write(root, *CODE, *NO_CODE, "weights.pt")
    (root / "env" / "pyvenv.cfg").touch()
    (root / "large.json").write_bytes(b"0" * 1_000_001)
    (root / "small.json").write_bytes(b"0" * 1_000_000)
    (root / "large.py").write_bytes(b"#" * 1_000_001)
    if not with_git:
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    assert snapshot(root, tmp_path / "code") == {*delivered, "small.json", "large.py", *CODE}
    assert note(tmp_path / "code")["left_out"] == {
        "large.json": "not tracked by git, and 1 MB", "weights.pt": "not tracked by git, and no code",
    }  # fmt: skip
    assert (tmp_path / "code" / "Train.py").stat().st_mtime == (root / "Train.py").stat().st_mtime


def test_what_git_tracks_is_taken_whatever_it_is(repository, tmp_path):
    write(repository, "my_package/labels.npz", "LICENSE", "data/table.csv", ".hidden.py")
    (repository / "kernel.so").write_bytes(b"0" * 10_000_000)
    (repository / "film.mp4").write_bytes(b"0" * 10_000_001)
    commit(repository)
    taken = snapshot(repository, tmp_path / "code")
    assert {"my_package/labels.npz", "LICENSE", "data/table.csv", ".hidden.py", "kernel.so"} <= taken
    assert note(tmp_path / "code")["left_out"] == {"film.mp4": "10 MB"}


@pytest.mark.parametrize("in_repository", [True, False])
def test_what_git_ignores_is_left_out_and_code_among_it_is_said(root, tmp_path, in_repository):
    write(root, ".gitignore", text="/data/\n*.json\n/mine.py\n")
    if in_repository:
        git(root, "init", "--quiet")
        commit(root)
    write(root, "data/__init__.py", "data/a.py", "kaggle.json", "settings.json", "mine.py")
    taken = snapshot(root, tmp_path / "code")
    assert not taken & {"data/__init__.py", "data/a.py", "kaggle.json", "settings.json", "mine.py"}
    if in_repository:
        assert left_out(root, root / "runs") == ["data/ (named in .gitignore)", "mine.py (named in .gitignore)"]


def test_links_are_taken_with_what_they_point_to(repository, tmp_path):
    outside = tmp_path / "outside"
    write(outside, "shared/lib.py", "shared/inner/a.py", "shared/b.bin", "pictures/1.png", "file.py")
    (repository / "shared").symlink_to(outside / "shared")
    (repository / "pictures").symlink_to(outside / "pictures")
    (repository / "file.py").symlink_to("../outside/file.py")
    (repository / "lost.py").symlink_to("nowhere.py")
    (repository / "room").symlink_to("lightning_hpc")
    (repository / "everything").symlink_to("..")
    (outside / "shared" / "circle").symlink_to(outside / "shared")
    commit(repository)

    target = tmp_path / "code"
    taken = snapshot(repository, target)
    assert {"shared/lib.py", "shared/inner/a.py", "file.py", "pictures", "room"} <= taken
    assert not (target / "file.py").is_symlink() and not (target / "shared").is_symlink()
    assert os.readlink(target / "room") == "lightning_hpc" and (target / "pictures" / "1.png").is_file()
    reasons = note(target)["left_out"]
    assert reasons["lost.py"] == "a link to nothing"
    assert reasons["pictures"] == f"a link to {outside / 'pictures'}, which is used from there"
    assert "shared/b.bin" in reasons and "everything" in reasons


def test_a_repository_inside_the_project_is_taken_too(repository, tmp_path):
    write(repository / "vendor", "lib/a.py", "lib/weights.pt")
    git(repository / "vendor", "init", "--quiet")
    commit(repository / "vendor")
    write(repository / "vendor", "lib/new.py")
    assert {"vendor/lib/a.py", "vendor/lib/weights.pt", "vendor/lib/new.py"} <= snapshot(repository, tmp_path / "code")


def test_a_label_for_each_picture_is_no_code(repository, tmp_path):
    write(repository, "labels/code.py", *(f"labels/{number}.txt" for number in range(MOST_TEXTS + 1)))
    taken = snapshot(repository, tmp_path / "code")
    assert {name for name in taken if name.startswith("labels/")} == {"labels/code.py"}
    assert note(tmp_path / "code")["left_out"] == {"labels/": "1001 texts that git does not track: too many to be code"}


def test_what_is_left_out_is_said_before_a_submission(repository):
    runs = repository / "runs"
    assert notes_on_code(repository, runs) == []
    write(repository, "secrets.yaml", *(f"{number}.png" for number in range(20)))
    (repository / "lightning_hpc" / "files.py").write_text("")
    assert notes_on_code(repository, runs) == [
        "note: lightning_hpc/ is not as delivered, and is submitted as it is: lightning_hpc/files.py",
        "note: the jobs' copy of the code is without secrets.yaml (looks like a key, by its name), "
        "20 more files (not tracked by git, and no code)",
    ]


@pytest.mark.parametrize(
    "name",
    ["kaggle.json", "secrets.yaml", "token.txt", ".env", ".env.local", "id_rsa", "deploy.pem", "a/credentials.json",
     "API_KEY.txt", "hf_token.txt", "service-account-1.json", ".netrc"],
)  # fmt: skip
def test_names_of_keys_are_not_copied_tracked_or_not(repository, tmp_path, name):
    write(repository, name)
    commit(repository)
    assert name not in snapshot(repository, tmp_path / "code")
    assert note(tmp_path / "code")["left_out"] == {name: "looks like a key, by its name"}
    (repository / name).rename(repository / "harmless.txt")
    (repository / name).symlink_to(repository / "harmless.txt")
    assert name not in snapshot(repository, tmp_path / "again")


@pytest.mark.parametrize(
    "name", ["secrets.py", "token.py", "tokenizer.json", "tokens.txt", ".env.example", "keys.csv", "monkey.txt"]
)
def test_names_that_only_remind_of_keys_are_code(name):
    assert not key_by_name(name)


KEYS = {
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n",
    "a key of AWS": "AKIA" + "ABCD1234" * 2,
    "a token of GitHub": "gho_" + "a1B2" * 9,
    "a token of Hugging Face": "hf_" + "aBcD" * 8,
    "a key of an API": "sk-proj-" + "a1B2" * 10,
    "a key of Google": "AIza" + "a1B2c" * 7,
    "a token of Slack": "https://hooks.slack.com/services/T012/B012/" + "a1B2" * 6,
    "a key": "wandb.login(key='" + "0123456789abcdef" * 2 + "01234567')",
}


@pytest.mark.parametrize("what", KEYS)
def test_contents_that_look_like_keys_are_refused(repository, tmp_path, what):
    write(repository, "my_package/upload.py", text=f"import os\n{KEYS[what]}\n")
    with pytest.raises(SettingsError, match=f"^my_package/upload.py has what looks like {what} in line 2"):
        take_snapshot(repository, tmp_path / "code", without=repository / "runs")
    assert not (tmp_path / "code").exists()


def test_kaggles_file_is_a_key_under_any_name():
    assert key_in(b'{"username":"ada","key":"0123456789abcdef0123456789abcdef"}') == "a key in line 1"


def test_hashes_and_words_are_no_keys(root):
    digest = "0123456789abcdef" * 2
    for text in (f"md5='{digest}'", f"sha256='{digest * 2}'", f"sort_key = '{digest}x'", "token = 'cls'", digest):
        assert key_in(text.encode()) is None
    for file in PACKAGE.rglob("*.py"):
        assert key_in(file.read_bytes()) is None
