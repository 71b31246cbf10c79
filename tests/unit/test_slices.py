"""Slices: what a job asks for, what it costs, and which slice is refused."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_hpc.clusters.consequences import cost
from lightning_hpc.clusters.placement import resolve
from lightning_hpc.clusters.presets import load
from lightning_hpc.clusters.slices import SHORTEST
from lightning_hpc.experiments.measured import last_measured
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.slurm import batch
from lightning_hpc.slurm.asked import about_slices

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
GENERIC = load("generic", PROJECT)


def test_a_job_asks_for_a_slice_and_the_cost_is_that_of_the_whole_run():
    resources = resolve(GENERIC, {"time": "4:00:00", "slice": "30:00", "gpus": 1})
    assert (resources.seconds, resources.slice_seconds, resources.signal_seconds) == (14400, 1800, 300)
    assert cost(3, resources) == ("3 runs × 1 GPU × 4 h = 12 GPU-hours as estimated, in slices of 0.5 h, about 8 a run")
    assert cost(9, replace(resources, throttle=2)).endswith("about 8 a run, 2 at a time")


def test_the_notice_follows_the_slice():
    assert resolve(GENERIC, {"time": "4:00:00", "slice": 5}).signal_seconds == 60
    assert resolve(GENERIC, {"time": "4:00:00", "slice": 5, "signal_seconds": 20}).signal_seconds == 20


def test_a_run_may_take_as_much_time_in_all_as_in_whole_jobs():
    assert resolve(GENERIC, {"time": "4:00:00", "slice": "30:00"}).max_requeues == 51 * 8 - 1
    assert resolve(GENERIC, {"time": "3:50:00", "slice": "30:00"}).max_requeues == 51 * 8 - 1
    assert resolve(GENERIC, {"time": "4:00:00", "slice": "30:00", "max_requeues": 5}).max_requeues == 5


@pytest.mark.parametrize("slice_", ["4:00:00", "5:00:00", "UNLIMITED", None])
def test_a_run_that_fits_into_a_slice_is_not_cut(slice_):
    assert resolve(GENERIC, {"time": "4:00:00", "slice": slice_}) == resolve(GENERIC, {"time": "4:00:00"})


def test_a_partition_has_to_grant_the_slice_and_not_the_whole_time():
    hec = load("hec", PROJECT)
    resources = resolve(hec, {"partition": "gpu-short", "gpus": 1, "time": "5-00", "slice": "12:00:00"})
    assert resources.slice == "12:00:00" and resources.seconds == 5 * 24 * 3600
    with pytest.raises(SettingsError, match="slice 13:00:00 is over its limit, ask for at most 12:00:00"):
        resolve(hec, {"partition": "gpu-short", "gpus": 1, "time": "5-00", "slice": "13:00:00"})


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"slice": "1:59"}, "slice 1:59 is too short: ask for at least 2 minutes"),
        ({"slice": "30:00", "time": None}, "slice: say the `time` too"),
        ({"slice": "half an hour"}, "time half an hour is not a time limit"),
    ],
)
def test_what_can_not_be_a_slice(asked, words):
    with pytest.raises(SettingsError, match=words):
        resolve(GENERIC, asked)
    assert resolve(GENERIC, {"slice": SHORTEST // 60}).slice_seconds == SHORTEST


def test_batch_files_ask_for_the_slice_and_hand_it_on():
    resources = resolve(GENERIC, {"time": "4:00:00", "slice": "30:00"})
    places = dict(project=Path("/p"), code=Path("/p/c"), experiment=Path("/p/e"))
    for kind in ("array", "canary", "train", "agent"):
        text = batch.render(GENERIC, resources, kind, name="wide", **places)
        assert "#SBATCH --time=30:00\n" in text and "#SBATCH --time=4:00:00" not in text
        assert (" --slice 30:00 -- " in text) == (kind != "agent")  # an agent's runs look after themselves
    assert "#SBATCH --time=5\n" in batch.render(GENERIC, resources, "notify", name="wide", **places)


@pytest.fixture
def measured(tmp_path):
    """Writes what runs of an experiment have measured."""

    def write(experiment: str, *values: tuple[float, float] | None) -> Path:
        for number, value in enumerate(values):
            status = {} if value is None else dict(start_seconds=value[0], save_seconds=value[1])
            run = tmp_path / "runs" / experiment / f"{number:03d}-{number:08x}"
            run.mkdir(parents=True)
            (run / "status.json").write_text(json.dumps(status))
        return tmp_path / "runs"

    return write


def test_the_longest_start_and_save_of_the_newest_experiment_count(measured):
    assert last_measured(measured("by-hand", None)) is None
    assert last_measured(Path("/nowhere")) is None
    measured("old", (500.0, 1.0))
    runs = measured("new", (70.0, 3.0), None, (50.0, 12.0))
    assert vars(last_measured(runs)) == dict(start=70.0, save=12.0, experiment="new")
    assert last_measured(runs, "old").start == 500.0


def test_a_slice_without_room_for_training_is_refused_with_what_was_measured(measured):
    runs = measured("grid", (95.0, 12.0))
    short = resolve(GENERIC, {"time": "4:00:00", "slice": 2, "signal_seconds": 24})
    with pytest.raises(SettingsError) as refused:
        about_slices(short, runs)
    assert str(refused.value) == (
        "slice 2 is too short: a start took up to 95 s and a save 12 s in grid, and runs are told of the end 24 s "
        "before it (signal_seconds), or up to a minute earlier. Ask for at least 3 minutes"
    )
    resolved = resolve(GENERIC, {"time": "4:00:00", "slice": 10})
    assert about_slices(resolved, runs) == [
        "a start took up to 95 s and a save 12 s in grid: 22% of a slice, beside the wait for the next one"
    ]


def test_a_save_that_is_longer_than_the_notice_counts_in_full(measured):
    runs = measured("grid", (30.0, 200.0))
    with pytest.raises(SettingsError, match="Ask for at least 5 minutes"):
        about_slices(resolve(GENERIC, {"time": "4:00:00", "slice": 3}), runs)


def test_without_measurements_that_is_said(measured):
    sliced = resolve(GENERIC, {"time": "4:00:00", "slice": 3})
    (line,) = about_slices(sliced, measured("grid", None))
    assert line.startswith("how long a start and a save take is not known yet")
    assert about_slices(resolve(GENERIC, {"time": "4:00:00"}), Path("/nowhere")) == []


def test_a_run_notes_once_in_a_job_what_its_start_took(tmp_path, monkeypatch):
    from lightning_hpc.attempts.start_up import StartUp

    folder = RunFolder(tmp_path)
    monkeypatch.delenv("JOB_BEGAN", raising=False)
    StartUp(folder).on_train_batch_end(None, None, None, None, 0)
    assert folder.status() == {}

    monkeypatch.setenv("JOB_BEGAN", str(int(time.time()) - 40))
    start_up = StartUp(folder)
    start_up.on_train_batch_end(None, None, None, None, 0)
    assert 40 <= folder.status()["start_seconds"] < 60
    folder.update(start_seconds=None)
    start_up.on_train_batch_end(None, None, None, None, 1)
    assert folder.status()["start_seconds"] is None
