"""metrics.csv: continuous over restarts, whole after a kill, patient on a full disk."""

import csv
import math
import os
import time

import pytest
from small_disk import no_file_larger_than

from lightning_hpc.survive.metrics_file import MetricsFile


def read(folder):
    """The rows without their times."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.pop("seconds", None)
    return rows


def seconds(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


def test_rows_are_there_at_once_with_all_digits(tmp_path):
    file = MetricsFile(tmp_path)
    for step, value in enumerate((1 / 3, 1e-300, float("nan"), float("-inf"))):
        file.log_metrics(dict(loss=value), step)
        got = float(read(tmp_path)[-1]["loss"])
        assert got == value or math.isnan(value) and math.isnan(got)


def test_a_new_metric_adds_a_column(tmp_path):
    file = MetricsFile(tmp_path)
    file.log_metrics({"epoch": 0, "train/loss": 1.0}, 10)
    file.log_metrics({"epoch": 0, "a, b": 2.0}, 10)
    file.log_metrics({"epoch": 1, "train/loss": 3.0}, 20)
    assert read(tmp_path) == [
        {"step": "10", "epoch": "1", "train/loss": "1.0", "a, b": ""},
        {"step": "10", "epoch": "1", "train/loss": "", "a, b": "2.0"},
        {"step": "20", "epoch": "2", "train/loss": "3.0", "a, b": ""},
    ]


def test_a_restart_goes_on_and_drops_what_comes_again(tmp_path):
    first = MetricsFile(tmp_path)
    for step in range(5):
        first.log_metrics(dict(loss=float(step)), step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,0,0.")  # cut off by a kill
    second = MetricsFile(tmp_path)
    second.rewind(3)
    second.log_metrics(dict(loss=3.5), 3)
    second.finalize("success")
    assert [row["loss"] for row in read(tmp_path)] == ["0.0", "1.0", "2.0", "3.5"]
    assert second.rows == 4


def test_rows_that_are_dropped_may_be_kept_and_are_missed_later(tmp_path):
    file = MetricsFile(tmp_path)
    for step in range(5):
        file.log_metrics(dict(loss=float(step)), step)
    with pytest.warns(UserWarning, match=r"of .*metrics.csv the last 3 rows are now in .*\.old/metrics.csv-1"):
        file.rewind(2, keep=True)
    with (tmp_path / ".old" / "metrics.csv-1").open(newline="") as stream:
        assert [row["loss"] for row in csv.DictReader(stream)] == ["2.0", "3.0", "4.0"]
    with pytest.warns(UserWarning, match=r"has 2 rows, and had 5 .* see .*\.old for rows"):
        file.rewind(5)
    file.finalize("success")
    assert file.rows == 2


def test_seconds_are_those_of_all_attempts_without_the_waiting(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = MetricsFile(tmp_path)
    for step in range(3):
        now += 10
        first.log_metrics(dict(loss=1.0), step)
    now += 5000  # killed, and waiting in the queue
    second = MetricsFile(tmp_path)
    now += 4
    second.rewind(1)  # two steps are lost, and the time that they took is spent
    second.log_metrics(dict(loss=1.0), 1)
    second.finalize("success")
    now += 3
    second.log_metrics(dict(loss=1.0), 2)
    assert seconds(tmp_path) == [10, 34, 37]


def test_a_file_of_an_earlier_version_gets_the_column(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,loss\n0,0,1.5\n")
    MetricsFile(tmp_path).log_metrics(dict(epoch=0, loss=1.0), 1)
    with (tmp_path / "metrics.csv").open() as file:
        old, new = csv.DictReader(file)
    assert (old["loss"], old["seconds"]) == ("1.5", "") and float(new["seconds"]) >= 0


def test_a_file_that_is_not_open_yet_is_opened_by_whatever_comes_first(tmp_path):
    MetricsFile(tmp_path / "a" / "b").sync()
    assert (tmp_path / "a" / "b" / "metrics.csv").read_text() == "step,epoch,seconds\n"
    MetricsFile(tmp_path).log_metrics(dict(epoch=0), 1)  # no new column
    assert read(tmp_path) == [dict(step="1", epoch="1")]
    MetricsFile(tmp_path / "unused").finalize("success")
    assert not (tmp_path / "unused").exists()


def test_a_file_that_is_closed_is_on_disk_and_can_be_opened_again(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    file = MetricsFile(tmp_path)
    file.log_metrics(dict(loss=1.0), 0)
    synced.clear()
    stream = file._file
    file.finalize("success")
    assert synced == [str(tmp_path / "metrics.csv"), str(tmp_path)]
    assert stream.closed
    file.log_metrics(dict(loss=2.0), 1)
    assert (len(read(tmp_path)), file.rows) == (2, 2)


def test_nothing_waits_for_the_disk_before_a_checkpoint_counts_on_the_rows(tmp_path, monkeypatch):
    """From then on, a file that takes the place of another is on disk before it does."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    whole, part = str(tmp_path / "metrics.csv"), str(tmp_path / f".metrics.csv.{os.getpid()}.part")
    file = MetricsFile(tmp_path)
    for step, name in enumerate(("loss", "accuracy", "loss")):
        file.log_metrics({name: 1.0}, step)
    assert synced == []
    file.sync()
    file.log_metrics(dict(loss=1.0), 3)
    file.sync()
    assert synced == [whole, str(tmp_path), whole]

    synced.clear()
    file.log_metrics(dict(error=0.5), 4)
    assert synced == [part] and len(read(tmp_path)) == 5
    MetricsFile(tmp_path).rewind(2)  # another process, after a restart
    assert synced == [part, part, part] and len(read(tmp_path)) == 2


def test_on_a_full_disk_rows_wait(tmp_path):
    file = MetricsFile(tmp_path)
    file.log_metrics(dict(loss=0.0), 0)
    with no_file_larger_than(300):
        with pytest.warns(UserWarning, match="File too large; its rows wait in memory"):
            for step in range(1, 50):
                file.log_metrics(dict(loss=step / 3), step)
        with pytest.raises(OSError):
            file.sync()
        whole = len(read(tmp_path))
        assert (tmp_path / "metrics.csv").read_text().endswith("\n")
        assert 1 < whole < 50
    file.log_metrics(dict(accuracy=1.0), 50)
    file.sync()
    assert [row["step"] for row in read(tmp_path)] == [str(step) for step in range(51)]


def test_rows_that_a_foreign_checkpoint_does_not_know_are_cut_by_its_step_and_kept(tmp_path):
    first = MetricsFile(tmp_path)
    for step in range(5):
        first.log_metrics(dict(loss=float(step)), step)
    first.log_metrics(dict(note=1.0))  # without a step: it belongs to the row before
    second = MetricsFile(tmp_path)
    with pytest.warns(UserWarning, match=r"of .*metrics.csv the last 3 rows are now in .*\.old/metrics.csv-1"):
        second.cut(3)
    second.log_metrics(dict(loss=3.5), 3)
    second.cut(9)  # nothing to cut
    assert [row["loss"] for row in read(tmp_path)] == ["0.0", "1.0", "2.0", "3.5"] and second.rows == 4
    with (tmp_path / ".old" / "metrics.csv-1").open() as file:
        assert [(row["step"], row["loss"]) for row in csv.DictReader(file)] == [("3", "3.0"), ("4", "4.0"), ("", "")]
    assert not (tmp_path / ".old" / "metrics.csv-2").exists()
