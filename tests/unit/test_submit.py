"""What is pure about submission: index lists, chunks, cost, states. What SLURM does with it: tests/slurm."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from package.launch import sbatch
from package.launch.experiment import Experiment, index_of, standing
from package.launch.presets import Preset
from package.launch.resources import Resources
from package.launch.sbatch import Element
from package.launch.submit import array, calls_for, chunks, cost, trainer_settings
from package.launch.table import advice, counts, table
from package.runs.settings import SettingsError


@pytest.mark.parametrize(
    "indices, throttle, text",
    [
        ([0], None, "0"),
        (range(108), 10, "0-107%10"),
        ([0, 1, 2, 5, 7, 8], None, "0-2,5,7-8"),
        ([3, 4], 2, "3-4"),  # a throttle that changes nothing is not written
    ],
)
def test_indices_are_written_as_sbatch_reads_them(indices, throttle, text):
    assert array(list(indices), throttle) == text


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(1, 50))
def test_chunks_hold_every_index_once_and_stay_below_the_limit(indices, limit):
    found = []
    groups = chunks(sorted(indices), limit, None)
    for offset, text in groups:
        for part in text.split(","):
            first, _, last = part.partition("-")
            assert int(last or first) < limit
            found += range(offset + int(first), offset + int(last or first) + 1)
    assert found == sorted(indices)
    assert len(groups) == len({index // limit for index in indices})


def test_chunks_share_the_throttle():
    assert chunks(range(2500), 1000, 30) == [(0, "0-999%10"), (1000, "0-999%10"), (2000, "0-499%10")]
    assert chunks([5, 1007], 1000, 1) == [(0, "5"), (1000, "7")]


@pytest.fixture
def experiment(tmp_path):
    rows = [
        dict(index=i, identity=f"{i:08x}00000000", folder=f"000-lr={i}-{i:08x}", overlay={"lr": i}) for i in range(4)
    ]
    (tmp_path / "100%").mkdir()
    (tmp_path / "100%" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Experiment(tmp_path / "100%")


PRESET = Preset("here", "", "", "", "current", array_limit=1000)


def test_all_runs_are_one_call(experiment):
    assert calls_for(experiment, range(108), PRESET, Resources(throttle=10)) == [
        ["--array=0-107%10", str(experiment.batch)]
    ]


def test_calls_of_chunks_canary_and_mail(experiment):
    resources = Resources(throttle=10, mail="me@example.org", mail_by_job=True)
    canary, first, second, notify = calls_for(experiment, range(1500), PRESET, resources, canary=True)
    assert canary == ["--array=0", str(experiment.canary)]
    after = ["--dependency=afterok:ID", "--kill-on-invalid-dep=yes"]
    assert first == ["--array=0-999%5", *after, str(experiment.batch)]
    log = f"--output={experiment.folder.parent}/100%%/logs/1000+%a.log"  # sbatch would read 100% as a pattern
    assert second == ["--array=0-499%5", log, *after, str(experiment.batch), "1000"]
    assert notify == ["--dependency=afterany:ID", str(experiment.folder / "notify.sbatch")]


def test_the_log_of_a_run(experiment):
    experiment.logs.mkdir()
    (experiment.logs / "1000+7.log").touch()
    assert experiment.log(1007).name == "1000+7.log" and experiment.log(7).name == "7.log"


@pytest.mark.parametrize(
    "count, resources, text",
    [
        (
            108, Resources(gpus=2, nodes=2, seconds=12 * 3600, throttle=10),
            "108 runs × 4 GPUs × 12 h = 5,184 GPU-hours at most, 10 at a time",
        ),
        (1, Resources(gpus=1, seconds=1800), "1 run × 1 GPU × 0.5 h = 0.5 GPU-hours at most"),
        (3, Resources(gpus=0, tasks=2, cpus=4, seconds=3600), "3 runs × 8 CPUs × 1 h = 24 CPU-hours at most"),
        (3, Resources(gpus=1), "3 runs × 1 GPUs, as long as the partition allows"),
    ],
)  # fmt: skip
def test_what_it_may_cost(count, resources, text):
    assert cost(count, resources) == text


def test_devices_follow_the_resources():
    resources = Resources(nodes=2, gpus=4, tasks=4)
    assert trainer_settings(resources, {}, {}) == {"trainer.devices": 4, "trainer.num_nodes": 2}
    assert trainer_settings(resources, {"trainer.devices": 4, "trainer.num_nodes": 2}, {"gpus": 4, "nodes": 2}) == {}
    assert trainer_settings(Resources(), {"trainer.devices": 1}, {}) == {}
    with pytest.raises(SettingsError, match=r"trainer.devices is 2, but the resources give 4"):
        trainer_settings(resources, {"trainer.devices": 2}, {"gpus": 4})


def element(state="RUNNING", task=3, batch="/x/job.sbatch"):
    return Element("12", task, state, "Priority", batch)


@pytest.mark.parametrize(
    "state, job, asked, shown, reason",
    [
        (None, None, True, "waiting", None),
        (None, element("PENDING"), True, "pending", "Priority"),
        (None, element(), True, "running", "starting or ending"),
        ("running", element(), True, "running", None),
        ("running", element("PENDING"), True, "pending", "goes on after: running"),
        ("running", None, True, "lost", "its job has gone"),
        ("running", None, False, "running", None),  # unknown is not failed
        ("time limit", element("PENDING"), True, "pending", "goes on after: time limit"),
        ("preempted", None, True, "stopped", "preempted"),
        ("failed", None, True, "failed", None),
        ("failed", element("COMPLETING"), True, "running", "starting or ending"),
        ("done", element("COMPLETING"), True, "done", None),
    ],
)
def test_how_a_run_stands(state, job, asked, shown, reason):
    found = standing(0, Path("x"), {"state": state} if state else {}, job, asked)
    assert found.state == shown
    assert found.reason is None if reason is None else reason in found.reason


def test_an_element_is_a_run_by_its_offset():
    assert index_of(element(task=3)) == 3
    assert index_of(element(task=3, batch="/a folder/job.sbatch 1000")) == 1003


def test_the_table_and_its_advice(experiment):
    def run(index, **status):
        folder = experiment.folder / experiment.rows[index]["folder"]
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps(status))

    run(0, state="done", epoch=3, step=30, best=0.25, monitor="val/loss", attempt=2)
    run(1, state="failed", reason="ValueError: no", attempt=1)
    standings = experiment.standings([element("PENDING", task=2)])
    text = table(experiment, standings, width=100)
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        ["0", "done"], ["1", "failed"], ["2", "pending"], ["3", "waiting"],
    ]  # fmt: skip
    assert "best val/loss" in text and "0.25" in text and "(ValueError: no)" in text
    assert counts(standings) == "4 runs: 1 done, 1 pending, 1 failed, 1 waiting"
    told = advice(experiment, standings, queue_known=True)
    assert told == [
        f"why run 1 failed: {experiment.logs / '1.log'}",
        f"to go on: python SlurmTrain.py retry {experiment.shown}",
    ]
    assert "squeue does not answer" in advice(experiment, standings, queue_known=False)[0]


def test_a_run_under_another_name_is_known_by_its_identity(experiment):
    other = experiment.folder / "007-by-hand-00000002"
    other.mkdir()
    (other / "status.json").write_text(json.dumps(dict(state="done")))
    assert [each.state for each in experiment.standings([])] == ["waiting", "waiting", "done", "waiting"]


def test_where_accounts_are_kept_they_say_how_a_lost_job_ended(experiment, tmp_path, monkeypatch):
    """With a stand-in for sacct: the private SLURM of the tests keeps no accounts."""
    folder = experiment.folder / experiment.rows[1]["folder"]
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(dict(state="running", slurm_job="41")))
    assert experiment.standings([])[1].reason.startswith("its job has gone without a word")
    (tmp_path / "sacct").write_text('#!/bin/sh\necho "41|OUT_OF_MEMORY"\necho "42|COMPLETED"\n')
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert experiment.standings([])[1].reason == "its job has ended: OUT_OF_MEMORY"


# A controller that is busy: a stand-in for sbatch and squeue, because the real one can't be made to fail on demand


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """Programs first on PATH: sbatch says what it is told to, once for each line of `says`."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755 | stat.S_IXUSR)

    program("sbatch", f'echo x >> {folder}/calls; n=$(wc -l < {folder}/calls); line=$(sed -n "${{n}}p" {folder}/says)\n'
            'case "$line" in ok*) echo "${line#ok }";; *) echo "sbatch: error: $line" >&2; exit 1;; esac')  # fmt: skip
    program("squeue", f"cat {folder}/queue 2>/dev/null || true")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sbatch, "PAUSES", (0, 0, 0))
    return folder


def calls(busy):
    return (busy / "calls").read_text().count("x")


def test_a_busy_controller_is_asked_again_a_few_times(busy, capsys):
    (busy / "says").write_text(
        "Socket timed out on send/recv operation\nUnable to contact slurm controller\nok 77;cluster\n"
    )
    assert sbatch.submit(["job.sbatch"]) == "77"
    assert calls(busy) == 3 and "trying again" in capsys.readouterr().err


def test_a_controller_that_stays_busy_is_given_up(busy):
    (busy / "says").write_text("Resource temporarily unavailable\n" * 9)
    with pytest.raises(SettingsError, match="sbatch refused: Resource temporarily unavailable"):
        sbatch.submit(["job.sbatch"])
    assert calls(busy) == 4


def test_a_refusal_is_passed_on_at_once(busy):
    (busy / "says").write_text("invalid partition specified: gpux\n")
    with pytest.raises(SettingsError, match="sbatch refused: invalid partition specified: gpux"):
        sbatch.submit(["job.sbatch"])
    assert calls(busy) == 1


def test_a_submission_whose_answer_was_lost_is_not_repeated(busy):
    (busy / "says").write_text("Socket timed out on send/recv operation\nok 2\n")
    (busy / "sbatch").write_text((busy / "sbatch").read_text() + "\n")
    script = (
        (busy / "sbatch")
        .read_text()
        .replace("#!/bin/sh\n", f'#!/bin/sh\necho "41|0|PENDING|None|/x/job.sbatch" > {busy}/queue\n')
    )
    (busy / "sbatch").write_text(script)
    assert sbatch.submit(["--array=0", "/x/job.sbatch"]) == "41"
    assert calls(busy) == 1


def test_without_slurm_the_queue_is_unknown_and_submission_says_where_to_go(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert sbatch.queue("x") is None
    with pytest.raises(SettingsError, match="sbatch is not installed here: go to a login node"):
        sbatch.submit(["x"])


def test_the_surrounding_jobs_options_are_not_inherited(busy, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    (busy / "sbatch").write_text("#!/bin/sh\nenv | grep -c '^S[LB][UA][RT][MC].*_' >&2; exit 1\n")
    with pytest.raises(SettingsError, match="sbatch refused: 0"):
        sbatch.submit(["job.sbatch"])
