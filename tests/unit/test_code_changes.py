"""Has the code changed since a run was trained with it? What counts, who is asked, and what is kept of the old code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpc.code import compare, index
from lightning_hpc.code.compare import changes_since, check_code, done_line, names_used, note_code, notes_on_done
from lightning_hpc.code.fingerprint import STORE, keep, kept, name_of, read_fingerprint
from lightning_hpc.code.snapshot import take_snapshot
from lightning_hpc.settings.errors import SettingsError

FILES = {
    "Train.py": "",
    "plot.py": "import net\n",  # used by nobody
    "helper.py": "",
    "net/__init__.py": "",
    "net/model.py": "def forward():\n    import helper\n",
    "net/labels.csv": "cat\n",
    "configs/base.yaml": "model: net.model.Model\n",
    "tests/test_net.py": "",
    "pyproject.toml": "",
    "lightning_hpc/files.py": "",
    "lightning_hpc/slurm/batch.py": "",
}
MORE = "more about it: configure.md#when-the-code-has-changed in the documentation"
SETTINGS = {"model": "net.model.Model", "data.batch_size": 8}
COUNTING = {"Train.py", "helper.py", "lightning_hpc/files.py", "lightning_hpc/slurm/batch.py", "net/__init__.py"}
COUNTING |= {"net/labels.csv", "net/model.py", "plot.py"}


@pytest.fixture(autouse=True)
def somebody_is_here(monkeypatch):
    for name in compare.UNATTENDED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path):
    project = tmp_path / "project"
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


@pytest.fixture
def runs(root):
    return root / "runs"


@pytest.fixture
def status(root, runs):
    """The status of an interrupted run."""
    fields, _ = note_code({}, root, runs)
    return {**fields, "state": "interrupted", "step": 12}


def test_one_fingerprint_for_the_project_a_snapshot_and_a_machine_without_git(root, runs, tmp_path, monkeypatch):
    digests = read_fingerprint(root)
    assert set(digests) == COUNTING
    take_snapshot(root, tmp_path / "code", without=runs)
    (tmp_path / "code" / "made_by_a_job.py").write_text("")
    assert read_fingerprint(tmp_path / "code") == digests

    subprocess.run(["git", "init", "--quiet", root], check=True)
    subprocess.run(["git", "-C", root, "add", "--all"], check=True)
    assert read_fingerprint(root) == digests
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_fingerprint(root) == digests


def test_runs_share_small_copies(root, runs):
    first = note_code({}, root, runs)[0]["code"]
    (root / "net" / "model.py").write_text("second = True\n")
    second = note_code({}, root, runs)[0]["code"]
    store = runs / STORE
    assert set(kept(first, store)) == set(kept(second, store)) == COUNTING and first != second

    # Six files are equal since they are empty.
    copies = [path for path in store.glob("*/*") if path.is_file()]
    assert sorted(path.read_text() for path in copies) == sorted(
        {"", "cat\n", "import net\n", FILES["net/model.py"], "second = True\n"}
    )
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.suffix != ".index"}
    note_code({}, root, runs)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_only_what_has_changed_is_read_again(root, runs, monkeypatch):
    """As git knows it, by sizes and times; what has just been written could be changed again within its time."""
    opened = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: opened.append(file.name) or read_bytes(file))

    def fingerprint():
        opened.clear()
        digests = read_fingerprint(root, store=runs / STORE)
        assert digests == read_fingerprint(root) and set(digests) == COUNTING
        return opened[: len(opened) - len(COUNTING)]

    model = root / "net" / "model.py"
    assert len(fingerprint()) == len(fingerprint()) == len(COUNTING)  # all are newer than two seconds
    monkeypatch.setattr(index, "UNCERTAIN", 0)
    assert fingerprint() == []

    # Another text of the same length, whose time somebody has set back.
    model.write_text(model.read_text()[::-1])
    os.utime(model, (0, 0))
    assert fingerprint() == ["model.py"] and fingerprint() == []

    # A damaged note is as good as none.
    (noted,) = (runs / STORE).glob("*.index")
    for damage in (b"{cut off", b"\xff\xfe", b"[]", b"null", b'{"Train.py": 5}', b'{"Train.py": [1, 2]}'):
        noted.write_bytes(damage)
        assert len(fingerprint()) == len(COUNTING)

    monkeypatch.setattr(index, "UNCERTAIN", 2_000_000_000)
    model.write_text("first")
    fingerprint()
    model.write_text("again")
    assert "model.py" in fingerprint()


def test_the_runs_are_no_code_even_where_git_does_not_ignore_them(root, tmp_path):
    results = root / "results"
    take_snapshot(root, results / "study" / "code", without=results)
    everything = read_fingerprint(root)
    without = {name: digest for name, digest in everything.items() if not name.startswith("results/")}
    assert without != everything
    assert note_code({}, root, results)[0]["code"] == name_of(without)


def test_keys_and_large_tables_are_known_by_their_digests_only(root, runs):
    (root / "net" / "upload.py").write_text(f"token = 'ghp_{'a1B2' * 9}'\n")
    subprocess.run(["git", "init", "--quiet", root], check=True)
    (root / "net" / "large.csv").write_text("1,2\n" * 400_000)
    subprocess.run(["git", "-C", root, "add", "--all"], check=True)
    digests = read_fingerprint(root)
    keep(digests, root, runs / STORE)
    for name in ("net/upload.py", "net/large.csv"):
        assert not (runs / STORE / digests[name][:2] / digests[name][2:]).exists()


def test_a_full_disk_does_not_end_a_run(root, runs):
    runs.mkdir()
    (runs / STORE).write_text("in the way")
    assert note_code({}, root, runs)[0]["code"] == name_of(read_fingerprint(root))


@pytest.mark.parametrize("name", ["net/model.py", "net/labels.csv", "helper.py", "lightning_hpc/files.py"])
def test_what_a_run_uses_counts_edited_or_removed(root, runs, status, name):
    assert changes_since(status, root, runs, SETTINGS) == []
    (root / name).write_text("edited\n")
    assert changes_since(status, root, runs, SETTINGS) == [name]
    (root / name).unlink()
    assert changes_since(status, root, runs, SETTINGS) == [name]


def test_what_a_run_can_not_use_does_not_count(root, runs, status):
    for name in ("plot.py", "configs/base.yaml", "tests/test_net.py", "pyproject.toml", "lightning_hpc/slurm/batch.py"):
        (root / name).write_text("edited = True\n")
    (root / "net" / "new.py").write_text("")
    assert changes_since(status, root, runs, SETTINGS) == []


def test_what_is_used_follows_from_the_settings_and_imports(root):
    files = read_fingerprint(root)
    assert names_used(root, SETTINGS, files) == {"net", "helper"}
    assert names_used(root, {"trainer.callbacks": [{"class_path": "plot.Plot"}]}, files) == {"plot", "net", "helper"}
    assert names_used(root, {"net.model": 1}, files) == set()
    (root / "net" / "model.py").write_text("not Python:")
    assert names_used(root, SETTINGS, files) == {"net"}


@pytest.mark.parametrize("fields", [{}, {"code": None}, {"code": "0123456789abcdef"}])
def test_nobody_is_asked_where_nobody_knows_the_old_code(root, runs, fields):
    assert changes_since(fields, root, runs, SETTINGS) is None
    assert check_code({"state": "interrupted", **fields}, root, runs, SETTINGS, changed_is_fine=False) == []
    assert "other code" not in done_line(fields, root, runs, SETTINGS)


def test_an_interrupted_run_with_other_code_stops_and_says_what_to_type(root, runs, status):
    assert check_code(status, root, runs, SETTINGS, changed_is_fine=False) == []
    for name in ("net/labels.csv", "helper.py"):
        (root / name).write_text("edited = True\n")
    with pytest.raises(SettingsError) as error:
        check_code(status, root, runs, SETTINGS, changed_is_fine=False)
    message = str(error.value)
    assert message.startswith("this run was interrupted at step 12, and helper.py and net/labels.csv have changed")
    for typed in ("--code changed", "--codeversion NAME", "--trial N", "--resume never", ".old/"):
        assert typed in message
    assert "\n" not in message
    assert check_code(status, root, runs, SETTINGS, changed_is_fine=True)[0].startswith("warning: from here on with")


def test_a_printed_diff_shows_what_was_edited(root, runs, status):
    (root / "net" / "model.py").write_text("edited = True\n")
    (line,) = check_code(status, root, runs, SETTINGS, changed_is_fine=True)
    command = line.partition("(")[2].rstrip(")")
    assert command.startswith("diff ")
    done = subprocess.run(command.split(), capture_output=True, text=True)
    assert done.returncode == 1 and "> edited = True" in done.stdout and "<     import helper" in done.stdout


@pytest.mark.parametrize("name", ["RESUBMITTED", "LIGHTNING_HPC_TRIAL", "WANDB_SWEEP_ID", "KUBERNETES_SERVICE_HOST"])
def test_nothing_unattended_is_blocked(root, runs, status, monkeypatch, name):
    (root / "helper.py").write_text("edited = True\n")
    monkeypatch.setenv(name, "1")
    assert len(check_code(status, root, runs, SETTINGS, changed_is_fine=False)) == 1


def test_a_job_is_asked_only_at_a_terminal(root, runs, status, monkeypatch):
    (root / "helper.py").write_text("edited = True\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert len(check_code(status, root, runs, SETTINGS, changed_is_fine=False)) == 1
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    with pytest.raises(SettingsError):
        check_code(status, root, runs, SETTINGS, changed_is_fine=False)


def test_jobs_of_a_snapshot_and_failed_runs_continue(root, runs, status, tmp_path):
    """`retry --fresh-code` has chosen other code; and what has failed could not continue with the old one."""
    (root / "helper.py").write_text("edited = True\n")
    assert len(check_code({**status, "state": "failed"}, root, runs, SETTINGS, changed_is_fine=False)) == 1
    take_snapshot(root, tmp_path / "code-2", without=runs)
    assert len(check_code(status, tmp_path / "code-2", runs, SETTINGS, changed_is_fine=False)) == 1


def test_earlier_versions_are_noted(root, runs, status):
    (root / "helper.py").write_text("edited = True\n")
    again, _ = note_code(status, root, runs)
    assert again["code"] != status["code"] and again["code_before"] == [status["code"]]
    assert note_code({**status, **again}, root, runs)[0]["code_before"] == [status["code"]]


def test_runs_that_are_done_with_other_code_are_named_at_submission(root, runs, status):
    assert notes_on_done([status, status, {}], root, runs, SETTINGS) == []
    (root / "helper.py").write_text("edited = True\n")
    (line,) = notes_on_done([status, status, {}], root, runs, SETTINGS)
    assert line.startswith("note: 2 done with other code: helper.py has changed since") and "codevers" in line


def test_many_changes_are_counted(root, runs, status):
    for name in sorted(COUNTING):
        (root / name).write_text("import helper\n")
    (line,) = notes_on_done([status], root, runs, SETTINGS)
    assert "helper.py, lightning_hpc/files.py, net/__init__.py, net/labels.csv and 1 more files have changed" in line


@pytest.fixture
def edit(project):
    """Edits a file of the project until the test has ended."""
    before = {}

    def change(name: str) -> None:
        file = project / name
        before[file] = file.read_text()
        file.write_text(before[file] + "\n# edited\n")

    yield change
    for file, text in before.items():
        file.write_text(text)


def test_a_run_stops_continues_is_done_and_is_tested_with_other_code(train, edit, capfd):
    def told() -> str:
        return "".join(capfd.readouterr())

    settings = ["--trainer.max_epochs=2", "--trainer.limit_val_batches=1", "--trainer.logger=null"]
    assert train("fit", *settings, "--canary=true").status["state"] == "interrupted"
    edit("my_research_project/networks.py")

    capfd.readouterr()
    run = train("fit", *settings)
    error = capfd.readouterr().err
    assert run.code == 2 and error.splitlines()[1:] == [MORE] and run.status["attempt"] == 1
    assert "my_research_project/networks.py has changed since" in error

    run = train("fit", *settings, "--code=changed")
    assert run.code == 0 and "from here on with other code" in told()
    assert len(run.status["code_before"]) == 1 and "code" not in run.config
    assert json.loads((run.folder.parents[1] / STORE / f"{run.status['code']}.json").read_text())

    # The last attempt's code is the run's code.
    train("fit", *settings)
    assert "This run is done already. " in told()
    edit("my_research_project/data.py")
    assert train("fit", *settings).code == 0
    text = told()
    assert "done already, with other code: my_research_project/data.py has changed since" in text
    assert all(typed in text for typed in ("--codeversion NAME", "--trial N", "--resume never", ".old/"))

    assert train("test", "--run", str(run.folder)).code == 0
    assert "warning: it was trained with other code: my_research_project/data.py" in told()


def test_a_checkpoint_of_another_shape_is_one_line(train, capfd):
    """`--run` with another network takes the place of an edit, which would not be imported a second time here."""
    network = ["--model.network=MLP", "--model.network.hidden=[8]"]
    run = train("fit", "--trainer.limit_val_batches=1", "--trainer.logger=null", *network)
    capfd.readouterr()
    assert train("test", "--run", str(run.folder), "--model.network.hidden=[4]").code == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("error: the checkpoint does not fit the model: ") and "Traceback" not in told
    assert "[8, 64] in the checkpoint and [4, 64] in the model" in told


def test_what_does_not_fit_is_said_in_one_line():
    import torch

    from lightning_hpc.survive.checkpoint_io import does_not_fit

    saved = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)).state_dict()
    with pytest.raises(RuntimeError) as error:
        torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).load_state_dict(saved)
    assert does_not_fit(error.value) == (
        "the checkpoint does not fit the model: 0.weight is [3, 2] in the checkpoint and [4, 2] in the model, "
        "0.bias is [3] in the checkpoint and [4] in the model, 2.weight is not in the checkpoint and 3 more"
    )
    assert does_not_fit(RuntimeError("CUDA out of memory")) is None
    assert "optimizer" in does_not_fit(ValueError("loaded state dict contains a parameter group that doesn't match"))


def test_comparing_needs_no_torch():
    code = "import sys; from lightning_hpc.code import compare; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
