"""Receipts: a number in a paper is found again in the runs it comes from, or named."""

import json
import re
import subprocess
import sys

import pytest

from lightning_hpc import entrance
from lightning_hpc.settings.yaml_files import dump


def write_run(folder, accuracy, rate, trial):
    folder.mkdir(parents=True)
    identity = folder.name[-8:] * 2
    status = dict(state="done", reason=None, identity=identity, metrics={"val/acc_1": accuracy, "val/loss": 1 / 3})
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "config.yaml").write_text(dump({"seed_everything": trial, "model": {"class_path": "M", "lr": rate}}))
    (folder / "overlay.yaml").write_text(dump({"trial": trial, "model.lr": rate}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        rate, trial = (0.1, 0.01)[number // 3], number % 3
        write_run(
            tmp_path / "runs" / "e_1" / f"{number:03d}-x-{number + 0xA0000000:08x}", 0.5 + number / 7, rate, trial
        )
    return tmp_path


def report(project, *command):
    return entrance.report([str(part) for part in command], project)


def change(project, number, accuracy):
    (file,) = project.glob(f"runs/e_1/{number:03d}-*/status.json")
    status = json.loads(file.read_text())
    status["metrics"]["val/acc_1"] = accuracy
    file.write_text(json.dumps(status))


@pytest.mark.parametrize("options", [[], ["--over", "trial"], ["--over", "trial", "--sort", "val/acc_1-"]])
def test_numbers_that_were_written_hold(project, capsys, options):
    assert report(project, "table", *options, "--latex", "a.tex") == 0
    assert "& val/acc\\_1 " in (project / "a.tex").read_text()
    capsys.readouterr()
    assert report(project, "verify", "a.tex") == 0
    count = 8 if options else 12  # two rows of two means and their deviations; six rows of two values
    assert capsys.readouterr().out == f"{count} of {count} numbers hold\n"


def test_means_and_deviations_are_those_of_the_right_runs(project):
    report(project, "table", "--over", "trial", "--sort", "val/acc_1-", "--latex", "a.tex")
    text = (project / "a.tex").read_text()
    best = next(line for line in text.splitlines() if "\\receipt" in line and "&" in line)
    assert "0.01" in best and "{1.071} $\\pm$" in best and "{0.14}" in best
    identity = re.search(r"mean of val/acc_1 = 1\.0714\d+ from (.*)", text)[1].split()
    assert identity == [f"{number + 0xA0000000:08x}" * 2 for number in (3, 4, 5)]


def test_each_number_that_no_longer_holds_is_named(project, capsys):
    report(project, "table", "--columns", "run", "val/acc_1", "--latex", "a.tex")
    file = project / "a.tex"
    file.write_text(file.read_text().replace("{0.7857}", "{0.95}"))  # somebody has edited run 2
    change(project, 0, 0.25)
    missing = next(project.glob("runs/e_1/001-*"))
    missing.rename(project / "elsewhere")
    capsys.readouterr()

    assert report(project, "verify", "a.tex") == 1
    said = capsys.readouterr()
    assert said.out == "3 of 6 numbers hold\n"
    lines = said.err.splitlines()
    assert lines[0] == "error: 0.5, value of val/acc_1: was 0.5 and is 0.25 now"
    assert lines[1].startswith("error: 0.6429, value of val/acc_1: 1 of its 1 runs are not here: a0000001a0000001")
    assert lines[2] == "error: 0.95, value of val/acc_1: the receipt says 0.7857"


def test_a_change_in_a_late_digit_is_noticed(project, capsys):
    report(project, "table", "--over", "trial", "--latex", "a.tex")
    change(project, 4, 0.5 + 4 / 7 + 1e-6)
    assert report(project, "verify", "a.tex") == 1
    assert "mean of val/acc_1: was" in capsys.readouterr().err


def test_a_table_that_was_copied_into_a_paper_is_found_there(project, capsys):
    report(project, "table", "--latex", "a.tex")
    table = (project / "a.tex").read_text()
    paper = project / "paper.tex"
    paper.write_text(f"\\section{{Results}} % \\receipt{{r0}}{{1}} in a comment\n100\\% of\n{table}\\end{{document}}\n")
    assert report(project, "verify", paper) == 0

    paper.write_text(re.sub(r"% receipt .*\n", "", table, count=1))
    assert report(project, "verify", paper) == 1
    assert "…` is missing" in capsys.readouterr().err


def test_a_paper_is_not_overwritten_but_an_older_table_is(project, capsys):
    (project / "paper.tex").write_text("\\documentclass{article}\n")
    assert report(project, "table", "--latex", "paper.tex") == 2
    assert "name another" in capsys.readouterr().err
    assert (project / "paper.tex").read_text() == "\\documentclass{article}\n"
    assert [report(project, "table", "--latex", "a.tex") for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(("text", "message"), [(None, "can't be read"), ("no numbers\n", "has no \\receipt")])
def test_a_file_without_receipts_is_said(project, capsys, text, message):
    if text:
        (project / "b.tex").write_text(text)
    assert report(project, "verify", "b.tex") == 2
    assert message in capsys.readouterr().err


def test_no_torch_is_loaded(project):
    program = (
        "import sys; from pathlib import Path; from lightning_hpc.entrance import report;"
        "report(['table', '--latex', 'a.tex'], Path.cwd()); report(['verify', 'a.tex'], Path.cwd());"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
