"""Results of many runs: the quick ways of reading give what the plain ones give, and nothing ends with an exception."""

import csv
import json
import math
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpc import entrance, printing
from lightning_hpc.results import read, rows, run_files
from lightning_hpc.results.curves import logged, read_curves
from lightning_hpc.results.similar_yaml import SimilarFiles
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.flat import flatten
from lightning_hpc.settings.yaml_files import Loader, dump

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20),
    st.sampled_from(["1e-3", "yes", "null", "12:00:00", "a: b", "# c", "|", "> x", "'", "- a", "{a", "&z", "*z", ""]),
    st.lists(st.integers(), max_size=3), st.just({}), st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
)  # fmt: skip


def run(folder, state="done", metrics=None, changes=None, rows=(), started=0, **settings):
    """Write a run's folder as Train.py does."""
    folder.mkdir(parents=True)
    status = dict(state=state, reason=None, started=f"2026-01-01T00:00:{started:02d}+00:00", identity="0" * 16)
    (folder / "status.json").write_text(json.dumps(status | dict(metrics=metrics or {})))
    config = dict(seed_everything=0, model={"class_path": "my.Model", "init_args": {"lr": 0.1, "width": 3} | settings})
    (folder / "config.yaml").write_text(f"# Resolved settings of: {folder.name}\n{dump(config)}")
    (folder / "overlay.yaml").write_text(dump(dict(name="x") | (changes or {})))
    if rows:
        with (folder / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    header = ("step", "epoch", "seconds", "loss", "val/acc")
    for number, rate in enumerate([0.1, 0.1, 0.01, 0.01]):
        trial = number % 2
        run(
            folder / "rates" / f"{number:03d}-lr", metrics={"val/acc": 0.5 + number / 10}, lr=rate, started=9 - number,
            changes={"trial": trial, "model.lr": rate},
            rows=[header, (0, 0, 2.5, 1.5, ""), (1, 0, 4.0, 0.25, 0.5 + number / 10)],
        )  # fmt: skip
    for file in folder.glob("*/00[13]*/config.yaml"):
        file.write_text(file.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    diverged = [("step", "epoch", "loss"), (0, 0, "nan")]
    run(folder / "other" / "000-deep", state="failed", depth=4, changes={"model.depth": 4}, rows=diverged)
    return folder


def test_where_a_copy_of_a_run_is_makes_no_difference(tmp_path):
    for name, url in (("000", "s3://one/place"), ("001", "s3://another/place")):
        run(tmp_path / "x" / name, lr=float(name) + 1, changes={"mirror.url": url, "mirror.public": False})
    assert read(tmp_path).settings == ["model.lr"]


@given(st.lists(st.dictionaries(st.sampled_from(["lr", "width", "name", "block1"]), VALUES), min_size=2, max_size=6))
def test_files_read_by_comparison_are_what_the_parser_makes_of_them(many):
    files = SimilarFiles()
    for settings in many:
        text = "# a comment\n" + dump({"seed": 0, "model": {"class_path": "M", "init_args": settings}, "end": [1, 2]})
        assert files.read(text.encode()) == flatten(yaml.load(text, Loader))


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b", "a: b: c", "\tx: 1", "a: \xff"])
def test_a_file_that_is_no_mapping_is_said(text):
    files = SimilarFiles()
    files.read(b"a: 1")
    with pytest.raises(ValueError):
        files.read(text.encode("latin-1"))


def test_one_row_for_each_run_with_what_differs_or_was_asked_for(runs):
    results = read(runs)
    assert results.settings == ["model.lr", "model.depth", "trial"]  # the width is the same, the seed is the trial
    table = results.table.set_index("run")
    assert list(table.loc["003-lr", ["experiment", "state", "model.lr", "trial", "val/acc"]]) == [
        "rates", "done", 0.01, 1, 0.8,
    ]  # fmt: skip
    assert table.loc["000-deep", "state"] == "failed" and table.loc["000-deep", "model.depth"] == 4


def test_curves_are_those_of_the_files(runs):
    curves = read(runs).curves
    mine = curves[curves["run"] == str(runs / "rates" / "002-lr")]
    assert mine[["step", "epoch", "seconds", "metric", "value"]].values.tolist() == [
        [0, 0, 2.5, "loss", 1.5], [1, 0, 4.0, "loss", 0.25], [1, 0, 4.0, "val/acc", 0.7],
    ]  # fmt: skip
    assert curves[curves["run"] == str(runs / "other" / "000-deep")]["seconds"].isna().all()  # of an earlier version
    (diverged,) = curves[curves["run"] == str(runs / "other" / "000-deep")]["value"]
    assert math.isnan(diverged)  # logged as NaN, which is not an empty cell


@given(st.lists(st.lists(st.none() | st.floats(), min_size=2, max_size=2), max_size=5), st.booleans())
def test_every_float_is_read_as_it_was_written(rows, cut_off):
    text = "step,epoch,a,b\n"
    expected = []
    for step, row in enumerate(rows):
        text += ",".join([str(step), "0", *("" if value is None else repr(value) for value in row)]) + "\n"
        expected += [(step, name, value) for name, value in zip("ab", row, strict=True) if value is not None]
    if cut_off:
        text += "99,0,1.2"

    table, reasons = read_curves({"x": text.encode(), "y": text.encode()})
    mine = table[table["run"] == "x"].sort_values(["step", "metric"])
    assert not reasons and list(zip(mine["step"], mine["metric"], strict=True)) == [row[:2] for row in expected]
    assert np.array_equal(mine["value"], [row[2] for row in expected], equal_nan=True)


def test_what_a_run_has_logged_so_far_is_without_the_line_that_is_being_written(tmp_path):
    assert logged(tmp_path, "a") == []
    (tmp_path / "metrics.csv").write_text("step,epoch,a,b\n0,0,1.5,\n1,0,,2\n2,0,nan,\n3,1,0.25,\n4,1,0.1")
    assert logged(tmp_path, "a") == [1.5, 0.25] and logged(tmp_path, "c") == []


def test_a_broken_file_of_metrics_costs_the_others_nothing():
    good = b"step,epoch,a\n0,0,1.5\n"
    table, reasons = read_curves(
        {"a": good, "b": b"step,epoch,a\n0,0,1.5,7\n", "c": b"step,epoch,a\n0,0,x\n", "d": b""}
    )
    assert list(table["run"]) == ["a"] and set(reasons) == {"b", "c"}
    assert reasons["b"] == "metrics.csv can't be read: a row has 4 cells under 3 names"


def test_what_cannot_be_read_is_a_row_with_its_reason(runs):
    (runs / "rates" / "000-lr" / "status.json").write_text('{"state": "do')
    (runs / "rates" / "001-lr" / "config.yaml").write_text("a: [1")
    (runs / "rates" / "002-lr" / "metrics.csv").write_text("step,epoch,loss\n0,0,much\n")
    results = read(runs)
    table = results.table.set_index("run")
    (reason,) = results.without_curves.values()
    assert reason.startswith("metrics.csv can't be read") and str(runs / "rates" / "003-lr") in set(
        results.curves["run"]
    )
    assert table.loc["000-lr", "state"] == "unknown" and "status.json is damaged" in table.loc["000-lr", "reason"]
    assert (
        table.loc["001-lr", "state"] == "done" and "config.yaml can't be read: no YAML" in table.loc["001-lr", "reason"]
    )


def test_a_run_of_a_newer_version_is_a_row_that_says_so(runs):
    file = runs / "rates" / "000-lr" / "status.json"
    status = json.loads(file.read_text())
    for version, reason in [("9.0.0", "of lightning_hpc 9.0.0, newer than this one"), ("0.0.9", None), (None, None)]:
        file.write_text(json.dumps(status | dict(lightning_hpc=version)))
        row = read(runs).table.set_index("run").loc["000-lr"]
        assert (row["state"], row["val/acc"]) == ("done", 0.5) and (row["reason"] or None) == reason


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read every folder")
def test_a_folder_that_cannot_be_listed_is_a_row(runs):
    (runs / "closed").mkdir(mode=0)
    table = read(runs).table.set_index("run")
    assert table.loc["closed", "state"] == "unknown" and "Permission denied" in table.loc["closed", "reason"]


def test_a_second_look_reads_only_what_has_changed(runs, monkeypatch):
    read(runs)
    asked = []
    plain = rows.read_runs
    monkeypatch.setattr(rows, "read_runs", lambda folders, names: asked.extend(folders) or plain(folders, names))

    changed = runs / "rates" / "001-lr"
    (changed / "test.json").write_text(json.dumps({"test/acc": 0.25, "step": 3, "checkpoint": "best.ckpt"}))
    table = read(runs).table
    assert asked == [changed]
    assert table.loc[str(changed), "test/acc"] == 0.25


def test_a_table_that_was_changed_is_not_what_the_next_look_gets(runs):
    first = read(runs)
    before = first.table.copy()
    first.table["val/acc"] = 0.0
    del first.table["state"]
    pd.testing.assert_frame_equal(read(runs).table, before)


@pytest.mark.parametrize("seconds", [0.0001, 0.01])
def test_slow_file_systems_are_read_by_several_threads_and_quick_ones_by_one(seconds, tmp_path, monkeypatch):
    folders = [tmp_path / str(number) for number in range(200)]
    clock = iter([0.0, seconds * run_files.FEW])  # before and after the first ones
    monkeypatch.setattr(run_files, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    threads = set()

    def look(folder):
        threads.add(threading.current_thread().name)
        return folder

    assert run_files.for_each(folders, look) == folders
    assert (len(threads) > 1) == (seconds > run_files.SLOW)


def test_runs_are_chosen_by_experiment_query_and_time(runs):
    assert [folder.name for folder in read(runs, experiment="other").folders] == ["000-deep"]
    assert [folder.name for folder in read(runs, where="`val/acc` > 0.65").folders] == ["002-lr", "003-lr"]
    assert [folder.name for folder in read(runs, last=2).folders] == ["000-lr", "001-lr"]
    assert len(read(runs / "rates")) == 4 and len(read(runs / "rates" / "000-lr", runs / "rates" / "000-lr")) == 1

    with pytest.raises(SettingsError, match=r"there is no column val/accc \(did you mean val/acc"):
        read(runs, where="`val/accc` > 0.65")
    with pytest.raises(SettingsError, match="--where 'state ='"):
        read(runs, where="state =")
    with pytest.raises(SettingsError, match="there is no folder"):
        read(runs / "nothing")


def test_what_was_moved_aside_is_no_result(runs):
    run(runs / "rates" / ".old" / "000-lr-1")
    assert len(read(runs)) == 5


@pytest.fixture
def report(runs, capsys, monkeypatch):
    """`Report.py table`: its exit code, what it prints, what it complains of."""
    monkeypatch.setenv("COLUMNS", "60")

    def call(*arguments):
        code = entrance.report(["table", *arguments], runs.parent)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_table_that_fits_the_terminal(report):
    code, out, _ = report()
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["run", "experiment", "state", "model.lr", "model.depth", "trial"]
    assert max(len(line) for line in lines[:-1]) <= 60 and lines[-1].startswith("not shown: val/acc (")

    _, out, _ = report("--columns", "run", "val/acc", "--sort", "val/acc-", "--last", "4")
    assert [line.split() for line in out.splitlines()] == [
        ["run", "val/acc"], ["003-lr", "0.8"], ["002-lr", "0.7"], ["001-lr", "0.6"], ["000-lr", "0.5"],
    ]  # fmt: skip


def test_means_over_trials(report):
    _, out, _ = report("--over", "trial", "--json")
    rates = {row["model.lr"]: row for row in json.loads(out)}
    assert rates[0.01]["n"] == 2 and rates[0.01]["val/acc"] == pytest.approx(0.75)
    assert rates[0.1]["val/acc_sd"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert "0.75 ± 0.071" in report("--over", "trial", "--markdown")[1]

    code, _, complaint = report("--over", "trail")
    assert code == 2 and "(did you mean trial?)" in complaint


def test_other_programs_get_all_digits(report, runs):
    (runs / "rates" / "000-lr" / "status.json").write_text(json.dumps({"state": "done", "metrics": {"a": 0.1 + 0.2}}))
    _, out, _ = report("--csv")
    rows = {row["run"]: row for row in csv.DictReader(out.splitlines())}
    assert float(rows["000-lr"]["a"]) == 0.1 + 0.2 and rows["003-lr"]["identity"] == "0" * 16


@pytest.mark.parametrize("arguments, message", [
    (["--columns", "val/ac"], "there is no column val/ac (did you mean val/acc"),
    (["--sort", "nothing"], "there is no column nothing"),
    (["nowhere"], "there is no folder nowhere"),
])  # fmt: skip
def test_mistakes_are_one_line(report, arguments, message):
    code, out, complaint = report(*arguments)
    assert (code, out) == (2, "") and complaint.startswith(f"error: {message}") and complaint.count("\n") == 1


def test_what_a_terminal_takes_for_a_command_is_not_printed():
    text = printing.as_text({"run": ["a\x1b]0;owned\x07b\u202e"], "value": [1.5]}, 80)
    assert text == "run           value\na ]0;owned b    1.5"


def test_names_and_values_of_others_do_not_break_a_table(report, runs):
    run(runs / "other" / "001-x", metrics={"a|b": 1.0}, note="two\nlines | and a bar", changes={"model.note": "x"})
    _, out, _ = report("--markdown")
    assert "a\\|b" in out and "two lines \\| and a bar" in out
    assert len({line.replace("\\|", "").count("|") for line in out.splitlines()}) == 1


def test_pandas_is_loaded_late_and_a_query_gets_no_names_of_ours(runs):
    assert isinstance(read(runs).table, pd.DataFrame)
    with pytest.raises(SettingsError):
        read(runs, where="@rows.json")

    program = "import sys, lightning_hpc.results; assert not {'pandas', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
