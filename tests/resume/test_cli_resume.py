"""`python Train.py fit`, killed and started again with the same command: what is said, and how each run has ended."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def stopped(train, monkeypatch):
    """Runs `fit`, and lets it notice a signal at some training batch: 4 is the first of the second epoch."""
    from my_research_project.training import signals
    from my_research_project.training.checkpoints import Checkpoints

    start = Checkpoints.on_train_batch_start

    def run(*arguments, at=5, reason="preempted"):
        def at_some_batch(self, trainer, *batch):
            if trainer.fit_loop.total_batch_idx == at:
                patch.setattr(signals, "received", lambda: reason)
            start(self, trainer, *batch)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_start", at_some_batch)
            return train("fit", *LONGER, *arguments)

    return run


LONGER = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=4", "--checkpoints.every_n_steps=2")


def test_a_stopped_run_goes_on_and_says_so_in_one_line(train, stopped, capsys):
    run = stopped()
    assert run.code == 75
    assert (run.status["state"], run.status["exit_code"], run.status["step"]) == ("preempted", 75, 5)
    capsys.readouterr()
    again = train("fit", *LONGER)
    assert again.code == 0 and again.folder == run.folder
    assert (again.status["state"], again.status["attempt"], again.status["step"]) == ("done", 2, 12)
    told = "".join(capsys.readouterr()).splitlines()
    (line,) = [line for line in told if "resuming from" in line]
    assert "step-00000005.ckpt" in line and "(step 5, epoch 1)" in line
    assert any("attempt 2" in line for line in told)


@pytest.mark.parametrize("reason, code", [("preempted", 75), ("time limit", 76), ("interrupted", 130)])
def test_each_way_to_stop_has_its_state_and_exit_code(stopped, reason, code):
    run = stopped(reason=reason)
    assert (run.code, run.status["state"], run.status["exit_code"]) == (code, reason, code)


def test_a_crash_is_failed_with_its_reason(train, tmp_path):
    (tmp_path / "written_by_a_test.py").write_text(
        "from my_research_project.model import Classifier\n\n\n"
        "class Broken(Classifier):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        raise ValueError('a mistake in the model')\n"
    )
    run = train("fit", "--model=written_by_a_test.Broken")
    assert run.code == 1
    assert run.status["state"] == "failed" and run.status["reason"] == "ValueError: a mistake in the model"


def test_never_starts_over_and_keeps_the_old_results(train, stopped):
    run = stopped()
    again = train("fit", *LONGER, "--resume=never")
    assert again.code == 0 and again.status["attempt"] == 1
    assert [row["step"] for row in again.rows].count("0") == [row["step"] for row in run.rows].count("0")
    assert list((run.folder.parent / ".old").glob(f"{run.folder.name}-*/checkpoints/last.ckpt"))


def test_must_needs_a_checkpoint(train, stopped, capsys):
    run = train("fit", *LONGER, "--resume=must")
    assert run.code == 2
    assert "error: --resume must, but there is no checkpoint in" in capsys.readouterr().err
    stopped()
    assert train("fit", *LONGER, "--resume=must").code == 0


def test_a_checkpoint_by_name_or_by_path(train, stopped, capsys):
    run = stopped(at=7)
    best = (run.folder / "checkpoints" / "best.ckpt").resolve()
    assert train("fit", *LONGER, "--resume=best").code == 0
    assert "best.ckpt (step 4" in "".join(capsys.readouterr())
    other = train("fit", *LONGER, "--name=other", f"--resume={best}")
    assert other.code == 0 and other.folder != run.folder
    assert "resuming from" in "".join(capsys.readouterr())
    assert train("fit", *LONGER, "--name=third", "--resume=wrost").code == 2
    assert "no checkpoint wrost" in capsys.readouterr().err


def test_a_damaged_last_checkpoint_is_told_and_the_one_before_is_used(train, stopped, capsys):
    run = stopped()
    with (run.folder / "checkpoints" / "last.ckpt").open("r+b") as file:
        file.truncate(5000)
    capsys.readouterr()
    assert train("fit", *LONGER).code == 0
    told = "".join(capsys.readouterr())
    assert "step-00000005.ckpt is damaged" in told and "resuming from" in told and "(step 4" in told
    for file in (run.folder / "checkpoints").glob("*.ckpt"):
        file.write_bytes(b"half")
    (run.folder / "status.json").write_text(json.dumps(run.status | dict(state="running")))
    assert train("fit", *LONGER).code == 2
    assert "is whole; restore one, or start afresh with --resume never" in capsys.readouterr().err


def test_weights_to_start_from_are_taken_once(train, stopped, capsys):
    source = train("fit", "--name=source")
    start = f"--init_from={source.folder / 'checkpoints' / 'last.ckpt'}"
    run = stopped("--name=target", start)
    assert "weights from" in "".join(capsys.readouterr())
    again = train("fit", *LONGER, "--name=target", start)
    assert again.code == 0 and again.folder == run.folder
    assert "weights from" not in "".join(capsys.readouterr())
    plain = train("fit", *LONGER, "--name=target")
    assert plain.folder != run.folder  # other weights at the start make another run


@pytest.mark.slow
def test_processes_that_are_killed_from_outside(project, tmp_path):
    """The real program with real signals: terminated, interrupted, killed, and at last left alone."""
    command = [sys.executable, project / "Train.py", "fit", "--trainer.max_epochs=25", "--trainer.accelerator=cpu"]
    command += ["--checkpoints.every_n_steps=20", "--cka=null"]
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    ends = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, None):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if number is not None:
            rows = newest_row(tmp_path)
            while newest_row(tmp_path) == rows and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(number)
        output = process.communicate(timeout=120)[0]
        status = json.loads(next(tmp_path.glob("runs/*/*/status.json")).read_text())
        ends.append((process.returncode, status["state"]))
        if status["attempt"] > 1:
            assert output.count("resuming from") == 1 and f"attempt {status['attempt']}" in output
    assert ends == [(75, "preempted"), (130, "interrupted"), (-signal.SIGKILL, "running"), (0, "done")]
    assert status["attempt"] == 4 and status["step"] == 25 * 17


def newest_row(folder) -> str:
    files = list(folder.glob("runs/*/*/metrics.csv"))
    return files[0].read_text()[-200:] if files else ""
