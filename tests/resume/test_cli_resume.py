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
    from lightning_hpc import signals
    from lightning_hpc.survive.checkpoints import Checkpoints

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
    assert "step-00000005.ckpt" in line and "(step 5, 1 epoch done)" in line
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


def test_a_worker_that_was_killed_is_no_failure_and_the_run_continues(train, tmp_path, capsys):
    (tmp_path / "killed_workers.py").write_text(
        "import os\nimport signal\n\n"
        "from torch.utils.data import Dataset, get_worker_info\n\n"
        "from my_research_project.data import Digits\n\n\n"
        "class Kill(Dataset):\n"
        "    def __init__(self, inner):\n"
        "        self.inner = inner\n\n"
        "    def __len__(self):\n"
        "        return len(self.inner)\n\n"
        "    def __getitem__(self, index):\n"
        "        if get_worker_info() is not None:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return self.inner[index]\n\n\n"
        "class Data(Digits):\n"
        "    def train_dataloader(self):\n"
        "        return self.loader(Kill(self.train_set))\n"
    )
    run = train("fit", "--data=killed_workers.Data", "--data.num_workers=1")
    assert run.code == 75 and run.status["state"] == "preempted"
    assert "DataLoader worker" in run.status["reason"] and run.status["reason"].endswith("out of memory?")
    again = train("fit", "--data=killed_workers.Data", "--data.num_workers=0")
    assert again.code == 0 and again.folder == run.folder


def test_a_run_whose_folder_is_deleted_ends_and_leaves_the_new_one_alone(train, tmp_path):
    (tmp_path / "deletes_its_folder.py").write_text(
        "import pathlib\nimport shutil\n\n"
        "from my_research_project.model import Classifier\n\n\n"
        "class Deletes(Classifier):\n"
        "    def on_train_epoch_start(self):\n"
        "        if self.current_epoch == 1:\n"
        "            folder = pathlib.Path(self.trainer.default_root_dir)\n"
        "            shutil.rmtree(folder)\n"
    )
    run = train("fit", *LONGER, "--model=deletes_its_folder.Deletes", "--checkpoints.every_n_steps=1000")
    assert run.code == 1 and run.folder is None


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


def test_a_checkpoint_by_name_or_by_path(train, stopped, capsys, tmp_path):
    run = stopped(at=7)
    best = tmp_path / "best.ckpt"  # the run's own will be another one when it is done
    best.write_bytes((run.folder / "checkpoints" / "best.ckpt").read_bytes())
    assert train("fit", *LONGER, "--resume=best").code == 0
    assert "best.ckpt (step 4" in "".join(capsys.readouterr())
    other = train("fit", *LONGER, "--name=other", f"--resume={best}")
    assert other.code == 0 and other.folder != run.folder
    assert "resuming from" in "".join(capsys.readouterr())
    end = other.folder / "checkpoints" / "last.ckpt"
    assert train("fit", *LONGER, "--name=fourth", f"--resume={end}").status["state"] == "failed"
    assert "last.ckpt is at the end already" in "".join(capsys.readouterr())
    assert train("fit", *LONGER, "--name=third", "--resume=wrost").code == 2
    assert "no checkpoint wrost" in capsys.readouterr().err


def test_rows_that_a_later_checkpoint_counts_on_are_kept(train, stopped, monkeypatch):
    """Resumed at an earlier checkpoint, and gone before a save: the run goes on from the later one after all."""
    from lightning_hpc.survive.checkpoints import Checkpoints

    each_step = ("--trainer.log_every_n_steps=1", "--checkpoints.keep=9")
    run = stopped(*each_step, at=10)
    later = [row for row in run.rows if int(row["step"]) >= 4]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", lambda *_, **__: None)
        assert stopped(*each_step, "--resume=step-00000004.ckpt", at=6).code == 75
    moved = (run.folder / ".old" / "metrics.csv-1").read_text().splitlines()[1:]
    assert len(moved) == len(later) > 6

    assert train("fit", *LONGER, *each_step).code == 0
    told = "".join(file.read_text() for file in (run.folder / "logs").glob("*"))
    assert "step-00000010.ckpt (step 10" in told


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


@pytest.mark.parametrize("how", ["damaged", "asked for"])
def test_an_attempt_from_an_earlier_checkpoint_counts_its_progress_from_there(stopped, how):
    """Otherwise the next slice of a run, or its next restart, would give it up as one that does not get on."""
    from lightning_hpc.runs.folder import RunFolder

    run = stopped(at=7)
    if how == "damaged":
        (run.folder / "checkpoints" / "step-00000007.ckpt").write_bytes(b"half")
    asked = ["--resume=step-00000006.ckpt"] if how == "asked for" else []
    again = stopped(*asked, at=7)
    assert (again.status["attempt"], again.status["attempt_step"], again.status["step"]) == (2, 6, 7)
    assert RunFolder(run.folder).advanced()


def test_checkpoints_that_are_away_are_not_the_same_as_none(train, stopped, capsys):
    run = stopped()
    checkpoints = run.folder / "checkpoints"
    rows = run.rows
    checkpoints.rename(run.folder / "purged")
    capsys.readouterr()
    assert train("fit", *LONGER).code == 2
    assert "says that step 5 was saved, but" in capsys.readouterr().err
    checkpoints.symlink_to(run.folder / "not mounted")
    assert train("fit", *LONGER).code == 2
    assert run.rows == rows and run.status["attempt"] == 1
    checkpoints.unlink()
    assert train("fit", *LONGER, "--resume=never").code == 0
    assert list((run.folder.parent / ".old").glob("*/metrics.csv"))


def test_a_damaged_status_is_made_anew(train, stopped, capsys):
    run = stopped()
    (run.folder / "status.json").write_text('{"state": "pree')
    assert train("test", "--run", str(run.folder)).code == 0
    assert "status.json is damaged; checkpoints/meta.json tells of step 5" in "".join(capsys.readouterr())
    again = train("fit", *LONGER)
    assert again.code == 0 and again.folder == run.folder and again.status["step"] == 12
    assert "it is written anew" in "".join(capsys.readouterr())
    (run.folder / "status.json").write_text("")
    (run.folder / "checkpoints").rename(run.folder / "purged")
    assert train("fit", *LONGER).code == 2
    assert "status.json is damaged, and" in capsys.readouterr().err


def test_a_checkpoint_without_our_part_cuts_the_metrics_by_its_step(train, stopped, tmp_path):
    (tmp_path / "saves_by_itself.py").write_text(
        "from my_research_project.model import Classifier\n\n\n"
        "class Saves(Classifier):\n"
        "    def on_train_batch_end(self, *_):\n"
        "        if self.global_step == 6:\n"
        "            self.trainer.save_checkpoint('lightning.ckpt')\n"
    )
    each_step = ("--model=saves_by_itself.Saves", "--trainer.log_every_n_steps=1")
    each_step += ("--trainer.callbacks+=LearningRateMonitor",)
    run = stopped(*each_step, at=10)
    before = run.rows
    again = train("fit", *LONGER, *each_step, "--resume=lightning.ckpt")
    assert again.code == 0 and again.folder == run.folder
    earlier = [row for row in before if int(row["step"]) < 6]
    assert again.rows[: len(earlier)] == earlier
    assert [int(row["step"]) for row in again.rows if row["lr-AdamW"]] == list(range(12))
    best = [row for row in again.rows if row["val/loss_best"]]
    assert [(int(row["step"]), int(row["epoch"])) for row in best] == [(3, 1), (7, 2), (11, 3)]
    aside = (run.folder / ".old" / "metrics.csv-1").read_text().splitlines()
    assert len(aside) - 1 == len(before) - len(earlier) > 0


@pytest.mark.parametrize("wish, first", [("never", "auto"), ("best", "best")])
def test_a_wish_for_the_start_is_not_repeated_when_the_job_is_put_back(
    train, stopped, monkeypatch, capsys, wish, first
):
    stopped()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert stopped(f"--resume={wish}", at=6).code == 75
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    capsys.readouterr()
    run = train("fit", *LONGER, f"--resume={wish}")
    told = "".join(capsys.readouterr())
    assert run.code == 0 and "resuming from" in told and "(step 6, 1 epoch done)" in told
    assert len(list((run.folder.parent / ".old").glob("*"))) == (wish == "never")


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
def test_two_ranks_by_hand_end_together_and_the_first_cause_of_both_is_the_reason(project, tmp_path):
    (tmp_path / "two_ranks.py").write_text(
        "from pathlib import Path\n\n"
        "from my_research_project.model import Classifier\n\n\n"
        "class Model(Classifier):\n"
        "    def on_train_batch_end(self, *_):\n"
        "        if self.global_rank == 1 and Path('fail').exists():\n"
        "            raise ValueError('a mistake that only rank 1 makes')\n"
    )
    command = [sys.executable, project / "Train.py", "fit", "--model=two_ranks.Model", "--trainer.max_epochs=400"]
    command += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--cka=null"]
    command.append("--runs_dir=runs")
    environment = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))

    def attempt(disturb):
        step = newest_step(tmp_path)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        while newest_step(tmp_path) <= step and process.poll() is None:
            time.sleep(0.05)
        disturb(process)
        code = process.wait(timeout=300)
        status = json.loads(next(tmp_path.glob("runs/*/*/status.json")).read_text())
        return code, status["state"], status["reason"]

    assert attempt(lambda process: process.send_signal(signal.SIGTERM)) == (75, "preempted", None)
    assert attempt(lambda process: (tmp_path / "fail").touch()) == (
        1, "failed", "rank 1: ValueError: a mistake that only rank 1 makes",
    )  # fmt: skip


@pytest.mark.slow
def test_processes_that_are_killed_from_outside(project, tmp_path):
    """The real program with real signals: terminated, interrupted, killed, and at last left alone."""
    command = [sys.executable, project / "Train.py", "fit", "--trainer.max_epochs=25", "--trainer.accelerator=cpu"]
    command += ["--checkpoints.every_n_steps=20", "--cka=null", "--runs_dir=runs"]
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    ends = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, None):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if number is not None:
            step = newest_step(tmp_path)
            while newest_step(tmp_path) <= step and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(number)
        output = process.communicate(timeout=600)[0]
        status = json.loads(next(tmp_path.glob("runs/*/*/status.json")).read_text())
        ends.append((process.returncode, status["state"]))
        if status["attempt"] > 1:
            assert output.count("resuming from") == 1 and f"attempt {status['attempt']}" in output
    assert ends == [(75, "preempted"), (130, "interrupted"), (-signal.SIGKILL, "running"), (0, "done")]
    assert status["attempt"] == 4 and status["step"] == 25 * 17


def newest_step(folder) -> int:
    """Returns the step of the last whole row: it grows by training only, while a resume cuts rows off."""
    files = list(folder.glob("runs/*/*/metrics.csv"))
    if not files:
        return 0

    header, *rows = files[0].read_text().rpartition("\n")[0].split("\n")
    return int(rows[-1].split(",")[0]) if rows else 0
