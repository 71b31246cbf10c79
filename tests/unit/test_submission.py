"""What is pure about submission: index lists, chunks, cost, states. What SLURM does with it: tests/slurm."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_slurm import line

from lightning_hpc.arrays.calls import calls_for, send
from lightning_hpc.clusters.consequences import cost, trainer_settings
from lightning_hpc.clusters.presets import Preset
from lightning_hpc.clusters.resources import Resources
from lightning_hpc.experiments.early_endings import with_early_endings
from lightning_hpc.experiments.experiment import Experiment, clusters_asked
from lightning_hpc.experiments.standing import counts, index_of, standing
from lightning_hpc.experiments.standing import standings as standings_of
from lightning_hpc.experiments.table import advice, table
from lightning_hpc.locks import holder as locks
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.scheduler import jobs, sbatch
from lightning_hpc.scheduler.jobs import Element
from lightning_hpc.scheduler.sbatch import Job, array, chunks
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.places import command


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


@settings(deadline=None)
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
    assert chunks(range(2000), 1000, 1) == [(0, "0-999%1"), (1000, "0-999%1")]
    assert chunks([5, 1007], 1000, 1) == [(0, "5"), (1000, "7")]


@pytest.fixture
def experiment(tmp_path):
    rows = [
        dict(index=i, identity=f"{i:08x}00000000", folder=f"000-lr={i}-{i:08x}", overlay={"lr": i}) for i in range(4)
    ]
    (tmp_path / "100%").mkdir()
    (tmp_path / "100%" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = Experiment(tmp_path / "100%")
    experiment.write_resources({"cluster": "generic"})
    return experiment


PRESET = Preset("here", "", "", "", "current", array_limit=1000)


def test_all_runs_are_one_call(experiment):
    assert calls_for(experiment, range(108), PRESET, Resources(throttle=10)) == [
        ["--array=0-107%10", str(experiment.batch)]
    ]


def test_calls_of_chunks_canary_and_mail(experiment):
    resources = Resources(throttle=10, mail="me@example.org", mail_by_job=True)
    canary, first, second, notify = calls_for(experiment, range(1500), PRESET, resources, canary=0)
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
        (240, Resources(gpus=4, seconds=43200), "240 runs × 4 GPUs × 12 h = 11,520 GPU-hours at most"),
        (1, Resources(gpus=1, seconds=1800), "1 run × 1 GPU × 0.5 h = 0.5 GPU-hours at most"),
        (1, Resources(gpus=1, seconds=3600), "1 run × 1 GPU × 1 h = 1 GPU-hour at most"),
        (2, Resources(gpus=1), "2 runs × 1 GPU, as long as the partition allows"),
        (3, Resources(gpus=0, tasks=2, cpus=4, seconds=3600), "3 runs × 8 CPUs × 1 h = 24 CPU-hours at most"),
    ],
)  # fmt: skip
def test_what_it_may_cost(count, resources, text):
    assert cost(count, resources) == text


def test_arrays_that_depend_on_each_other(monkeypatch):
    """ID is the canary's job for the arrays, and every job for the message; a folder's name may hold :ID too."""
    made, cancelled = [], []

    def submit(arguments, command, clusters):
        made.append(arguments)
        if len(made) == 5:
            raise SettingsError("sbatch refused: no")
        return Job(str(len(made)))

    monkeypatch.setattr(sbatch, "submit_job", submit)
    monkeypatch.setattr(jobs, "cancel", lambda names, cluster: cancelled.append(names))
    canary, array = ["/a:ID/canary.sbatch"], ["--dependency=afterok:ID", "/a:ID/job.sbatch"]
    last = ["--dependency=afterany:ID", "/a:ID/notify.sbatch"]
    noted = []
    submitted = sbatch.submit_calls([canary, array, last], "sbatch", note=lambda job, arguments: noted.append(job.id))
    assert [job.id for job in submitted] == noted == ["1", "2", "3"]
    assert made[1:] == [
        ["--dependency=afterok:1", "/a:ID/job.sbatch"],
        ["--dependency=afterany:1:2", "/a:ID/notify.sbatch"],
    ]
    with pytest.raises(SettingsError, match="sbatch refused: no; submitted before that, and cancelled: 4$"):
        sbatch.submit_calls([canary, array], "sbatch")
    assert cancelled == [["4"]]  # a canary of nothing


def test_what_was_asked_for_is_remembered_as_it_was(experiment):
    """Names of variables are no settings, and may hold dots or look like anything."""
    asked = {"cluster": "hec", "environment": {"A.B_C": 1, "OMP_NUM_THREADS": "4"}, "before": ("a", "b")}
    experiment.write_resources(asked)
    assert experiment.resources == {**asked, "before": ["a", "b"]}
    (experiment.folder / "resources.yaml").rename(experiment.folder / "request.yaml")
    assert experiment.resources["environment"] == asked["environment"]  # of an earlier version


def test_devices_follow_the_resources():
    resources = Resources(nodes=2, gpus=4, tasks=4)
    assert trainer_settings(resources, {}, {}) == {"trainer.devices": 4, "trainer.num_nodes": 2}
    assert trainer_settings(resources, {"trainer.devices": 4, "trainer.num_nodes": 2}, {"gpus": 4, "nodes": 2}) == {}
    assert trainer_settings(Resources(), {"trainer.devices": 1}, {}) == {}
    with pytest.raises(SettingsError, match=r"trainer.devices is 2, but the resources give 4"):
        trainer_settings(resources, {"trainer.devices": 2}, {"gpus": 4})


def test_a_retry_beside_a_running_array_keeps_to_the_throttle(experiment):
    """Both together run no more at a time than was asked for; where the first uses all of it, the second waits."""
    resources = Resources(throttle=4)

    def beside(*states):
        active = [Element("12", task, state, "", str(experiment.batch)) for task, state in enumerate(states)]
        active.append(Element("13", None, "PENDING", "Dependency", str(experiment.notify)))
        return calls_for(experiment, range(100, 110), PRESET, resources, beside=active)

    assert beside() == [["--array=100-109%4", str(experiment.batch)]]
    assert beside("RUNNING", "RUNNING", "PENDING") == [["--array=100-109%1", str(experiment.batch)]]
    full = beside(*["RUNNING"] * 4, *["PENDING"] * 9)
    assert full == [["--array=100-109%4", "--dependency=afterany:12", str(experiment.batch)]]
    no_limit = calls_for(experiment, [1], PRESET, Resources(), beside=[element(batch=str(experiment.batch))])
    assert no_limit == [["--array=1", str(experiment.batch)]]


def test_a_submission_is_written_down_with_its_cluster(experiment, told):
    told.says("sbatch", "12;b")
    assert send(experiment, calls_for(experiment, [0, 1], PRESET, Resources()), PRESET) == 0
    (row,) = experiment.jobs
    assert (row["job"], row["cluster"], row["user"]) == ("12", "b", os.getuid())
    assert experiment.clusters == {"b"}
    told.says("squeue", "", line("12", "0", "PENDING", str(experiment.batch)))
    (found,) = experiment.queue()
    assert (found.name, found.cluster) == ("12_0", "b")
    assert "--clusters=b" in told.calls("squeue")[1]


def test_clusters_are_those_that_are_asked_for_and_those_that_have_taken_jobs(experiment):
    assert experiment.clusters == set()
    experiment.write_resources({"clusters": "b,c", "directives": ["--clusters=d", "--nice"]})
    experiment.note_job(Job("1", "e"), [])
    experiment.note_job(Job("2"), [])
    with (experiment.folder / "jobs.jsonl").open("a") as file:
        file.write('{"job": "3", "clus')  # a disk that was full
    assert experiment.clusters == {"b", "c", "d", "e"}
    assert clusters_asked({"clusters": "all"}) == set()


def test_a_colleagues_jobs_are_seen(experiment, told, monkeypatch):
    """In a folder of a group: whoever has submitted there, or written there, is asked about."""
    (experiment.folder / "jobs.jsonl").write_text('{"job": "5", "cluster": null, "user": 4711}\n')
    told.says("squeue", line("5", "2", "PENDING", str(experiment.batch)).replace(f"|{os.getuid()}|", "|4711|"))
    stand = standings_of(experiment, experiment.queue())
    assert "4711" in told.calls("squeue")[0]
    assert [run.state for run in stand] == ["waiting", "waiting", "pending", "waiting"]


def test_a_folder_of_a_colleague_is_said_before_jobs_fail_in_it(experiment, monkeypatch):
    experiment.check_writable([0, 1])
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != experiment.folder)
    with pytest.raises(SettingsError, match="belongs to user .* and you can't write there.*chmod -R g"):
        experiment.check_writable([])


def write_status(experiment, index, **status):
    folder = RunFolder(experiment.folder / experiment.rows[index]["folder"])
    folder.path.mkdir(exist_ok=True)
    folder.status_file.write_text(json.dumps(status))
    return folder


def test_a_run_by_hand_is_running_and_not_lost(experiment):
    folder = write_status(experiment, 1, state="running", slurm_job=None)
    assert standings_of(experiment, [])[1].state == "lost"
    with folder.locked():
        (run,) = [run for run in standings_of(experiment, []) if run.index == 1]
        assert run.state == "running" and run.reason.startswith(f"by hand: process {os.getpid()} on")
    assert standings_of(experiment, [])[1].state == "lost"


def test_a_last_sign_of_life_counts_unless_slurm_knows_better(experiment):
    """The lock of a process on another machine, where this one can't see locks: its job has gone, or it has none."""
    folder = write_status(experiment, 1, state="running", slurm_job="77")
    owner = {**locks.owner(), "host": "elsewhere", "job": "77"}
    folder.lock_file.write_text(json.dumps(owner))
    assert standings_of(experiment, [])[1].state == "lost"  # SLURM has no job 77
    assert standings_of(experiment, None)[1].state == "running"  # nobody knows
    folder.lock_file.write_text(json.dumps({**owner, "uid": 4711}))
    assert standings_of(experiment, [])[1].state == "running"  # SLURM was not asked about that user
    folder.lock_file.write_text(json.dumps({**owner, "job": None}))
    assert standings_of(experiment, [])[1].state == "running"
    os.utime(folder.lock_file, (1, 1))
    assert standings_of(experiment, [])[1].state == "lost"


def test_the_array_of_elements_that_wait_is_not_the_job_of_the_one_that_has_its_number(experiment):
    """SLURM gives an array's own id to its last element, and shows it for all that have not started."""
    write_status(experiment, 1, state="running", slurm_job="12")
    waiting = Element("12", 2, "PENDING", "Resources", str(experiment.batch), own_id="12")
    stand = standings_of(experiment, [waiting])
    assert [run.state for run in stand] == ["waiting", "lost", "pending", "waiting"]


def test_a_run_that_was_submitted_by_itself_waits_in_the_queue(experiment):
    write_status(experiment, 1, state="preempted", slurm_job="77")
    assert standings_of(experiment, [])[1].state == "stopped"
    waiting = Element("77", None, "PENDING", "BeginTime", "/x/slurm/train.sbatch --name a", own_id="77")
    assert standings_of(experiment, [waiting])[1].state == "pending"


@pytest.mark.parametrize("reason", ["JobHeldAdmin", "JobHeldUser", "launch failed requeued held", "JobHoldMaxRequeue"])
def test_what_holds_a_run_is_said_and_how_it_is_released(experiment, reason):
    write_status(experiment, 1, state="time limit")
    held = Element("12", 1, "PENDING", reason, str(experiment.batch))
    stand = standings_of(experiment, [held])
    assert stand[1].state == "pending" and f"held by SLURM: {reason}" in table(stand, 200)
    told = f"run 1 will not start by itself, held by SLURM: {reason}: scontrol release 12_1"
    assert told in advice(experiment, stand)


def test_a_dependency_that_never_comes_about_is_said(experiment):
    blocked = Element("12", 1, "PENDING", "DependencyNeverSatisfied", str(experiment.batch), cluster="b")
    stand = standings_of(experiment, [blocked])
    assert (
        "run 1 will not start by itself, what it waits for can never come about: scancel --clusters=b 12_1"
        in advice(experiment, stand)
    )
    many = [Element("12", 1, "PENDING", "JobHeldUser", f"{experiment.batch} {index - 1}") for index in range(1, 4)]
    assert sum("will not start" in text for text in advice(experiment, standings_of(experiment, many))) == 3


def element(state="RUNNING", task=3, batch="/x/job.sbatch"):
    return Element("12", task, state, "Priority", batch)


@pytest.mark.parametrize(
    "state, job, asked, shown, reason",
    [
        (None, None, True, "waiting", None),
        (None, element("PENDING"), True, "pending", "Priority"),
        (None, element(), True, "running", "starting or ending"),
        ("running", element(), True, "running", None),
        ("running", element("PENDING"), True, "pending", "resumes after: running"),
        ("running", None, True, "lost", "its job has gone"),
        ("running", None, False, "running", None),  # unknown is not failed
        ("time limit", element("PENDING"), True, "pending", "resumes after: time limit"),
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
    standings = standings_of(experiment, [element("PENDING", 2, f"{experiment.batch}")])
    text = table(standings, width=100)
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        ["0", "done"], ["1", "failed"], ["2", "pending"], ["3", "waiting"],
    ]  # fmt: skip
    assert "best val/loss" in text and "0.25" in text and "(ValueError: no)" in text
    assert counts(standings) == "4 runs: 1 done, 1 pending, 1 failed, 1 waiting"
    told = advice(experiment, standings)
    assert told == [
        f"why run 1 failed: {experiment.logs / '1.log'}",
        f"to continue: {command('SlurmTrain.py', 'retry', experiment.shown)}",
    ]
    assert "squeue does not answer: no" in advice(experiment, standings, "squeue does not answer: no")[0]


def test_a_job_that_ended_before_its_run_began_is_told_with_the_last_line_of_its_log(experiment, tmp_path):
    def stand():
        found = with_early_endings(experiment, standings_of(experiment, []), queue_known=True)
        return found[1].state, found[1].reason

    experiment.logs.mkdir()
    log = tmp_path / "canary-45.log"
    log.write_text("/var/spool/slurmd/job00045/slurm_script: line 9: module: command not found\n\n")
    (experiment.logs / ".job-1").write_text(f"45\n0\nnode7\n{log}\n")
    assert stand() == ("failed", "job 45 ended on node7 before Train.py began: line 9: module: command not found")
    assert experiment.log(1) == log
    unknown = with_early_endings(experiment, standings_of(experiment, None), queue_known=False)
    assert unknown[1].state == "waiting"

    # An earlier attempt, this attempt, and one by hand after it.
    folder = experiment.folder / experiment.rows[1]["folder"]
    folder.mkdir()
    status = folder / "status.json"
    for slurm_job, seconds, state in (("41", -60, "failed"), ("45", -60, "stopped"), (None, 60, "stopped")):
        status.write_text(json.dumps(dict(state="preempted", slurm_job=slurm_job, restarts=0)))
        shifted = (experiment.logs / ".job-1").stat().st_mtime + seconds
        os.utime(status, (shifted, shifted))
        assert stand()[0] == state


def test_a_run_under_another_name_is_known_by_its_identity(experiment):
    other = experiment.folder / "007-by-hand-00000002"
    other.mkdir()
    (other / "status.json").write_text(json.dumps(dict(state="done")))
    assert [each.state for each in standings_of(experiment, [])] == ["waiting", "waiting", "done", "waiting"]


def test_a_run_whose_digits_another_has_is_known_by_its_whole_identity(experiment):
    row = experiment.rows[2]
    other = experiment.folder / row["folder"]
    other.mkdir()
    (other / "status.json").write_text(json.dumps(dict(state="done", identity=row["identity"][:8] + "f" * 8)))
    assert standings_of(experiment, [])[2].state == "waiting"

    own = other.with_name(f"002-a-2-{row['identity'][:8]}")
    own.mkdir()
    (own / "status.json").write_text(json.dumps(dict(state="preempted", identity=row["identity"])))
    stand = standings_of(experiment, [])[2]
    assert (stand.state, stand.folder) == ("stopped", own)


def test_where_accounts_are_kept_they_say_how_a_lost_job_ended(experiment, tmp_path, monkeypatch):
    """With a stand-in for sacct: the private SLURM of the tests keeps no accounts."""
    folder = experiment.folder / experiment.rows[1]["folder"]
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(dict(state="running", slurm_job="41")))
    assert standings_of(experiment, [])[1].reason.startswith("its job has gone without a word")
    (tmp_path / "sacct").write_text('#!/bin/sh\necho "41|OUT_OF_MEMORY"\necho "42|COMPLETED"\n')
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert standings_of(experiment, [])[1].reason == "its job has ended: OUT_OF_MEMORY"
