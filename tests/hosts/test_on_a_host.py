"""--on HOST through a real sshd, to a SLURM that answers as it is told: what goes over, once, and what is refused."""

import fcntl
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
from told_slurm import line

from lightning_hpc.code.snapshot import take_snapshot

SLOW_SBATCH = """\
#!/bin/sh
echo "$*" >> {calls}
number=$(wc -l < {calls})
if [ "$number" = 1 ]; then sleep 3; fi
if [ "$number" -lt 3 ]; then echo "Socket timed out" >&2; exit 1; fi
echo 42
"""


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_submission_is_one_login_one_call_and_one_sbatch(laptop, tmp_path):
    logins, calls = laptop.sshd.logins(), len(laptop.sshd.calls())
    (laptop.folder / ".env").write_text("WANDB_API_KEY=secret\n")
    (laptop.folder / "token.txt").write_text("secret\n")
    code, told, errors = laptop.submit("--time", "2:00:00", "--throttle=1")
    assert code == 0, errors
    assert "submitted: 42" in told
    assert told.splitlines()[-1] == "from here: python SlurmTrain.py status runs/study --on private"
    assert (laptop.sshd.logins() - logins, len(laptop.sshd.calls()) - calls) == (1, 1)
    (call,) = laptop.slurm.calls("sbatch")
    assert call == f"--parsable --array=0-1%1 {laptop.there}/runs/study/job.sbatch"
    assert "#SBATCH --time=2:00:00" in (laptop.there / "runs" / "study" / "job.sbatch").read_text()

    # Only the project's folder there has got anything, and no key is in it.
    assert [path.name for path in laptop.there.parent.iterdir()] == [laptop.there.name]
    there = files_below(laptop.there)
    assert {"Train.py", "configs/base.yaml", "configs/jobs/study.yaml", "runs/study/manifest.jsonl"} <= there
    assert not {".env", "token.txt"} & there and not any("incoming" in name for name in there)
    assert not (laptop.folder / "runs").exists()

    # What follows needs no login.
    laptop.slurm.says("squeue", "")
    code, told, errors = laptop.slurm_train("status", "runs/study")
    assert code == 0 and "000-" in told and "001-" in told, errors
    assert (laptop.sshd.logins() - logins, len(laptop.sshd.calls()) - calls) == (1, 2)


def test_jobs_have_the_version_of_the_laptop(laptop):
    """The folder there has no git; a change that is made there by hand is told all the same."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert laptop.submit()[0] == 0
    code = laptop.there / "runs" / "study" / "code"
    note, diff = json.loads((code / "commit.json").read_text()), (code / "uncommitted.diff").read_text()
    assert (note["commit"], note["uncommitted_changes"]) == (commit, True)
    assert "+++ b/configs/jobs/study.yaml" in diff and "not as it was sent" not in diff
    assert {"README.md", ".gitignore"} <= set(note["files"]) and not note["left_out"]

    (laptop.there / "Train.py").write_text("# changed there\n")
    (laptop.there / "own.py").write_text("OWN = 1\n")
    take_snapshot(laptop.there, laptop.there / "copy", laptop.there / "runs")
    note, diff = (laptop.there / "copy" / name for name in ("commit.json", "uncommitted.diff"))
    assert {"Train.py", "own.py"} <= set(json.loads(note.read_text())["files"])
    assert diff.read_text().startswith("# not as it was sent, or new: Train.py\n# not as it was sent, or new: own.py\n")


def test_a_dry_run_and_a_plan_send_nothing(laptop):
    calls = len(laptop.sshd.calls())
    code, told, _ = laptop.submit("--dry-run", "--canary")
    assert code == 0 and "nothing was sent" in told
    assert "there: python SlurmTrain.py submit --yes --canary --no-check --cluster=generic configs/jobs" in told
    code, told, _ = laptop.slurm_train("plan", "configs/jobs/study.yaml")
    assert code == 0 and re.search(r"^\d+ files, [\d.]+ MB, for there:", told, re.MULTILINE)
    assert len(laptop.sshd.calls()) == calls and not list(laptop.there.iterdir())


def test_what_was_changed_there_is_kept_and_what_is_gone_here_goes(laptop):
    (laptop.folder / "extra.py").write_text("HERE = 1\n")
    (laptop.folder / "gone.py").write_text("HERE = 1\n")
    assert laptop.submit()[0] == 0
    (laptop.there / ".incoming-killed").mkdir()
    (laptop.there / "extra.py").write_text("CHANGED = 1\n")
    (laptop.there / "own.py").write_text("OWN = 1\n")
    (laptop.folder / "extra.py").write_text("HERE = 2\n")
    (laptop.folder / "gone.py").unlink()

    code, told, errors = laptop.submit("--name", "second")
    assert code == 0, errors
    assert "changed on private since it was sent, and kept there: .replaced/" in told
    assert (laptop.there / "extra.py").read_text() == "HERE = 2\n"
    assert [file.read_text() for file in laptop.there.glob(".replaced/*/extra.py")] == ["CHANGED = 1\n"]
    assert (laptop.there / "own.py").exists() and not (laptop.there / "gone.py").exists()
    assert not list(laptop.there.glob(".incoming-*"))


@pytest.mark.parametrize("name", ["configs", ".sent"])
def test_nothing_is_written_through_a_link_that_leads_out(laptop, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (laptop.there / name).symlink_to(tmp_path / "elsewhere")
    code, _, errors = laptop.submit()
    assert code == 2 and errors.startswith(f"error: {name}") and "is a link that leads out of it" in errors
    assert not list((tmp_path / "elsewhere").iterdir()) and not (laptop.there / "Train.py").exists()


def test_two_that_send_at_once_wait_for_each_other(laptop):
    """Else the code of the one would be in the jobs of the other."""
    (laptop.there / ".sent").mkdir()
    calls = len(laptop.sshd.calls())
    with (laptop.there / ".sent" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = []

        def release():
            while len(laptop.sshd.calls()) == calls:
                time.sleep(0.1)
            time.sleep(4)
            before.extend(laptop.there.glob("Train.py"))
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=release)
        thread.start()
        code, _, errors = laptop.submit()
        thread.join()
    assert code == 0, errors
    assert not before and (laptop.there / "Train.py").exists()


def test_code_with_a_key_is_not_sent(laptop):
    (laptop.folder / "mine.py").write_text(f'token = "ghp_{"a1B2" * 9}"\n')
    code, _, errors = laptop.submit()
    assert code == 2 and errors.startswith("error: mine.py has what looks like a token of GitHub")
    assert not list(laptop.there.iterdir())


def test_a_specification_outside_the_project_is_not_sent(laptop, tmp_path):
    (tmp_path / "far.yaml").write_text("name: far\nparameters: {trial: [0]}\n")
    code, _, errors = laptop.slurm_train("submit", tmp_path / "far.yaml", "--yes", "--no-check")
    assert code == 2 and "lies outside the project" in errors


def test_what_is_missing_there_is_said_with_what_to_do(laptop):
    code, _, errors = laptop.slurm_train("status", "runs/study")
    assert code == 2 and errors.count("\n") == 1 and "has no SlurmTrain.py yet: `submit` sends the project" in errors

    # The project comes first: its files say how its environment is made.
    laptop.describe(activate="PATH=/nowhere:/usr/bin:/bin; python() { false; }")
    code, _, errors = laptop.submit()
    assert code == 2 and "lacks what it needs: make the project's environment there" in errors
    assert (laptop.there / "environment.yml").exists() and not laptop.slurm.calls("sbatch")

    laptop.describe(folder=f"{laptop.there}/nowhere")
    code, _, errors = laptop.submit()
    assert code == 2 and "there is no folder" in errors
    assert not (laptop.there / "nowhere").exists()

    # The line that it says can be typed as it is.
    subprocess.run(errors.rpartition(" yet: ")[2], shell=True, check=True)
    assert (laptop.there / "nowhere").is_dir()


def test_errors_of_the_host_are_errors_here(laptop):
    assert laptop.submit()[0] == 0
    code, _, errors = laptop.slurm_train("status", "runs/nowhere")
    assert code == 2 and errors == "error: runs/nowhere is no planned experiment: it has no manifest.jsonl\n"
    code, _, errors = laptop.submit()
    assert code == 2 and "error: study is there already, with 2 runs" in errors
    assert len(laptop.slurm.calls("sbatch")) == 1


def test_retry_asks_here_and_cancel_is_done_there(laptop):
    assert laptop.submit()[0] == 0
    code, told, _ = laptop.slurm_train("retry", "runs/study", "--dry-run", "--time=3:00:00")
    assert code == 0 and "to submit: 0-1" in told and len(laptop.slurm.calls("sbatch")) == 1
    code, told, errors = laptop.slurm_train("retry", "runs/study")
    assert code == 2 and "to submit: 0-1" in told and errors == "error: nobody is here to answer: say --yes\n"
    assert len(laptop.slurm.calls("sbatch")) == 1

    (laptop.folder / "fresh.py").write_text("FRESH = 1\n")
    code, told, errors = laptop.slurm_train("retry", "runs/study", "--yes", "--fresh-code", "--time=3:00:00")
    assert code == 0 and len(laptop.slurm.calls("sbatch")) == 2, errors
    assert (laptop.there / "runs" / "study" / "code-2" / "fresh.py").exists()
    assert "#SBATCH --time=3:00:00" in (laptop.there / "runs" / "study" / "job.sbatch").read_text()

    batch = laptop.there.resolve() / "runs" / "study" / "job.sbatch"
    laptop.slurm.says("squeue", line("42", "0", "PENDING", str(batch)))
    code, told, errors = laptop.slurm_train("cancel", "runs/study")
    assert code == 0 and "1 to cancel" in told, errors
    (call,) = laptop.slurm.calls("scancel")
    assert call.endswith("42")


def test_a_lost_connection_during_a_submission_is_said_and_loses_nothing(laptop):
    """The submission there goes on to its end; a second one is refused by what the first has written."""
    # Two calls of sbatch fail after the cut, which is said to nobody; the third one works.
    (laptop.slurm.folder / "sbatch").write_text(SLOW_SBATCH.format(calls=laptop.slurm.folder / "sbatch.calls"))

    def cut():
        end = time.monotonic() + 120
        while not laptop.slurm.calls("sbatch") and time.monotonic() < end:
            time.sleep(0.05)
        for pid in laptop.sshd.sessions():
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=cut)
    thread.start()
    code, _, errors = laptop.submit()
    thread.join()
    assert code == 2 and "it is not known whether `submit` was done there, and it is not done again" in errors
    assert "python SlurmTrain.py status runs/study --on private" in errors

    jobs = laptop.there / "runs" / "study" / "jobs.jsonl"
    end = time.monotonic() + 60
    while not jobs.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert '"job": "42"' in jobs.read_text()
    code, _, errors = laptop.submit()
    assert code == 2 and "study is there already" in errors
    assert len(laptop.slurm.calls("sbatch")) == 3


@pytest.mark.parametrize(
    "host, message",
    [
        ("nowhere.invalid", "nowhere.invalid: ssh knows no host of that name"),
        ("silent", "silent: it is there, and no ssh answers"),
        ("refusing", "refusing: it does not let you in: `ssh refusing` has to work first"),
    ],
)
def test_a_login_that_fails_is_one_line(laptop, host, message):
    laptop.describe(host=host)
    code, _, errors = laptop.slurm_train("status", "runs/study")
    assert code == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1


def test_another_host_key_is_refused(laptop):
    laptop.sshd.trust("new-host-key")
    try:
        code, _, errors = laptop.submit()
    finally:
        laptop.sshd.trust()
    assert code == 2 and errors.startswith("error: there: its host key is not the one in ~/.ssh/known_hosts")
    assert errors.count("\n") == 1 and not list(laptop.there.iterdir())

    known = laptop.sshd.folder / "known-hosts"
    known.write_text("")
    try:
        code, _, errors = laptop.submit()
    finally:
        laptop.sshd.trust()
    assert code == 2 and errors.startswith("error: there: its host key is not known here: type `ssh there` once")
    assert known.read_text() and not list(laptop.there.iterdir())


@pytest.mark.parametrize(
    "typed, message",
    [
        ("-oProxyCommand=touch hacked:folder", "is no host"),
        ("there;touch hacked:folder", "is no host"),
        ("there:", "is no folder"),
        ("there:~other/x", "is no folder"),
        ("there:a\nb", "is no folder"),
        ("privat", "there is no configs/hosts/privat.yaml (did you mean private?)"),
    ],
)
def test_words_that_are_no_host_are_refused(laptop, typed, message):
    calls = len(laptop.sshd.calls())
    for door, words in (("slurm_train", ["status", "runs/study", f"--on={typed}"]), ("report", ["rsync", "--", typed])):
        code, _, errors = laptop.types(door, *words)
        assert code == 2 and message in errors
    assert len(laptop.sshd.calls()) == calls and not (laptop.folder / "hacked").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("host: there\n", "lacks `folder:`"),
        ("host: there\nfolder: x\nactivte: y\n", "unknown key activte (did you mean activate?)"),
        ("host: -oProxyCommand=x\nfolder: x\n", "is no host"),
        ("host: 5\nfolder: x\n", "host has to be text"),
    ],
)
def test_a_wrong_file_of_a_host_is_named(laptop, text, message):
    (laptop.folder / "configs" / "hosts" / "private.yaml").write_text(text)
    code, _, errors = laptop.slurm_train("status", "runs/study")
    assert code == 2 and message in errors and "configs/hosts/private.yaml" in errors
