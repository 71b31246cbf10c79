"""What one sees: on a terminal, on one without Unicode, and when something goes wrong."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

ASCII = dict(LC_ALL="C", PYTHONIOENCODING="ascii")

BROKEN_DATA = """
from torch.utils.data import Dataset

from my_research_project.data import Digits


class Broken(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        if index == 3:
            raise ValueError("picture 3\\nis damaged")
        return self.inner[index]


class Data(Digits):
    def train_dataloader(self):
        return self.loader(Broken(self.train_set) if self.test_on == "train" else self.train_set)

    def test_dataloader(self):
        return self.loader(Broken(self.test_set))

    predict_dataloader = test_dataloader
"""


def seen(command, **environment):
    """What a program writes to a terminal of 200 columns, with its exit code; colours and movements are left out."""
    leader, follower = pty.openpty()
    variables = os.environ | {"WANDB_MODE": "disabled", "TERM": "xterm", "COLUMNS": "200"} | environment
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=variables)
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # all that wrote have ended
            break
        if not part:
            break
        written += part
    os.close(leader)
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", written.decode("utf-8", errors="replace"))
    return process.wait(), [line.strip() for line in re.split(r"[\r\n]+", text)]


@pytest.mark.slow
def test_a_terminal_keeps_a_line_of_each_epoch_above_the_bar(project):
    """The same lines as in a file, which README shows; a bar counts epochs as they do."""
    command = [sys.executable, str(project / "Train.py"), "fit", "--name=on-a-terminal", "--trainer.max_epochs=3"]
    command += ["--trainer.limit_train_batches=12", "--cka=null", "--trainer.accelerator=cpu"]
    code, lines = seen(command)
    (folder,) = project.glob("runs/on-a-terminal/*")
    assert code == 0, lines

    logged = [line.partition(" INFO    ")[2] for line in (folder / "logs" / "rank-0.log").read_text().splitlines()]
    history = [line for line in logged if line.startswith("epoch ")]
    assert [line.split(" train/")[0] for line in history] == [f"epoch {n}/3 step {12 * n}" for n in (1, 2, 3)]
    places = [lines.index(line) for line in history]
    bars = [re.match(r"(epoch \d/\d)\s+[━╸╺]", line) for line in lines]
    shown = [(number, bar[1]) for number, bar in enumerate(bars) if bar]
    for n, place in enumerate(places, start=1):
        assert {words for number, words in shown if number < place} == {f"epoch {k}/3" for k in range(1, n + 1)}
    assert not any(line.startswith("Epoch") for line in lines), "Lightning counts from 0"


def test_epochs_are_counted_alike_everywhere(train):
    run = train("fit", "--trainer.max_epochs=2", "--cka.max_batches=1", "--cka.class_path=CKACallback")
    log = (run.folder / "logs" / "rank-0.log").read_text()
    assert "epoch 1/2 " in log and "epoch 2/2 " in log and "epoch 0" not in log
    assert [row["epoch"] for row in run.rows if row["val/loss"]] == ["1", "2"]
    assert sorted(path.name for path in (run.folder / "cka").glob("*.png")) == ["epoch-001.png", "epoch-002.png"]
    assert run.status["epoch"] == 2


def test_commands_in_ascii(train, project, tmp_path, monkeypatch):
    """fit, crossvalidate, table and status end well, and what they print is there, spelled out."""
    from lightning_hpc import entrance
    from lightning_hpc.training import crossvalidation

    monkeypatch.setattr(crossvalidation, "train", lambda run, root, *_: entrance.train(["fit", *run.typed], root))
    outputs = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, output in outputs.items():
        monkeypatch.setattr(sys, name, output)
    assert train("fit", "--name=plain", "--data.batch_size=32").code == 0
    assert train("crossvalidate", "--name=folds", "--folds=2").code == 0
    assert entrance.report(["table", "runs/folds", "--over", "fold", "--columns", "val/acc"], project) == 0
    text = outputs["stdout"].buffer.getvalue().decode("ascii")
    assert text.count(" +- ") >= 2 and "best checkpoint" in text


def test_doors_in_ascii_as_programs(project, tmp_path):
    folder = tmp_path / "runs" / "folds"
    for fold in (0, 1):
        run = folder / f"000-fold={fold}-0000000{fold}"
        run.mkdir(parents=True)
        changes = {"data.mode": "cross-validation", "data.folds": 2, "data.fold": fold}
        (run / "overlay.yaml").write_text(json.dumps(changes))
        (run / "status.json").write_text(json.dumps({"state": "done", "metrics": {"val/acc": 0.5 + fold / 10}}))
    (tmp_path / "settings.yaml").write_text(f"runs_dir: {tmp_path / 'runs'}\n")
    (tmp_path / "spec.yaml").write_text(
        "name: many\nconfigs: [settings.yaml]\nparameters: {trial: [0, 1], data.batch_size: [8, 16]}\n"
    )

    def say(door, *arguments):
        command = [sys.executable, project / door, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | ASCII, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("ascii")

    assert "val/acc 0.55 +- 0.07" in say("Report.py", "cross-validation", "runs/folds")
    assert "4 runs = 2 trial x 2 data.batch_size" in say("SlurmTrain.py", "plan", "spec.yaml")
    submit = ("submit", "spec.yaml", "--dry-run", "--no-check", "--cluster=generic")
    assert "4 runs x " in say("SlurmTrain.py", *submit)


@pytest.mark.parametrize("command, words", [("test", []), ("predict", []), ("fit", ["--data.test_on=train"])])
def test_the_first_line_of_an_error_in_a_worker_is_its_cause(train, tmp_path, capsys, command, words):
    (tmp_path / "broken_data.py").write_text(BROKEN_DATA)
    settings = ("--data=broken_data.Data", "--data.num_workers=1")
    if command != "fit":
        assert train("fit", *settings).code == 0
    capsys.readouterr()
    run = train(command, *settings, *words)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert run.code == 1
    assert errors == ["error: ValueError: picture 3 is damaged (in DataLoader worker process 0)"]


def test_runs_that_cannot_be_written_are_one_line(train, capfd):
    for command in ("fit", "crossvalidate"):
        run = train(command, "--runs_dir=/proc/runs", *(["--folds=2"] if command == "crossvalidate" else []))
        assert run.code != 0
        (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
        assert line.startswith("error: the run's folder can't be made: /proc/runs") and "--runs_dir" in line
