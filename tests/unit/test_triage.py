"""Why runs are not done: the evidence of each cause, and what is evidence of nothing."""

import json
import re

import pytest

from lightning_hpc.experiments import triage
from lightning_hpc.experiments.experiment import Experiment
from lightning_hpc.experiments.standing import Standing
from lightning_hpc.experiments.triage import CAUSES, NAMES, cause_of, of_cause, why
from lightning_hpc.failures import WITHOUT_A_WORD
from lightning_hpc.scheduler import jobs
from lightning_hpc.settings import places


@pytest.fixture
def experiment(tmp_path):
    rows = [dict(index=i, identity=f"{i:016x}", folder=f"000-{i:08x}", overlay={}) for i in range(6)]
    (tmp_path / "wide" / "logs").mkdir(parents=True)
    (tmp_path / "wide" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Experiment(tmp_path / "wide")


def run(experiment, index=0, reason=None, state="failed", log=None) -> Standing:
    if log is not None:
        experiment.log(index).write_text(log)
    return Standing(index, experiment.folder / experiment.rows[index]["folder"], state, reason, {})


CUDA = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
CPU = "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"
KILLED = "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. : out of memory?"
NO_PROGRESS = "no progress between two restarts: still at step 0. A longer time limit may help, or more memory"
WORKER = "FileNotFoundError: Caught FileNotFoundError in DataLoader worker process 0. … No such file or directory: 'x'"


@pytest.mark.parametrize(
    "reason, name",
    [
        (CUDA, "memory"),
        (CPU, "memory"),
        (KILLED, "memory"),
        ("MemoryError: ", "memory"),
        ("its job has ended: OUT_OF_MEMORY", "memory"),
        ("Diverged: the training loss is nan at step 50: try a lower --model.optimizer.lr", "nan"),
        ("Diverged: the training loss is inf at step 50", "nan"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("OSError: [Errno 122] Disk quota exceeded: '/x'", "disk"),
        ("checkpoint of step 4 could not be written: File too large (/x/last.ckpt); there is no other", "disk"),
        ("DownloadError: train.zip: no space left in /data", "disk"),
        ("its job has ended: NODE_FAIL", "node"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "node"),
        ("OSError: [Errno 116] Stale file handle", "node"),
        ("ModuleNotFoundError: No module named 'timm'", "import"),
        ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", "import"),
        ("job 45 ended on node7 before Train.py began: line 9: module: command not found", "import"),
        ("job 45 ended on node7 before Train.py began: venv/bin/activate: No such file or directory", "import"),
        ("its job has ended: TIMEOUT", "time"),
        ("no progress in a slice of 30:00: still at step 40. It has to hold a start", "time"),
        ("put back into the queue 50 times, which is max_requeues", "time"),
        (NO_PROGRESS, "time"),
        ("its job has ended: CANCELLED by 0", "cancelled"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/x.npy'", "data"),
        (WORKER, "data"),
        ("DownloadError: train.zip can't be unpacked to data: it is damaged 512 bytes from its beginning", "data"),
        ("ValueError: information about nanotubes and infants", "other"),
        ("RuntimeError: this run fails on purpose", "other"),
        (WITHOUT_A_WORD, "unknown"),
        ("its job has gone without a word: killed, out of memory or out of time", "unknown"),
    ],
)
def test_a_reason_has_its_cause(experiment, reason, name):
    assert cause_of(experiment, run(experiment, reason=reason))[0].name == name


@pytest.mark.parametrize(
    "line, name",
    [
        (
            "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some were killed",
            "memory",
        ),
        ("slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-02-03T04:05:06 DUE TO TIME LIMIT ***", "time"),
        (
            "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-02-03T04:05:06 DUE TO NODE FAILURE, SEE ***",
            "node",
        ),
        ("slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-02-03T04:05:06 DUE TO PREEMPTION ***", "cancelled"),
        ("slurmstepd-n1: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-02-03T04:05:06 ***", "cancelled"),
        ("warning: the state failed could not be written to /x/status.json: [Errno 28] No space left", "disk"),
    ],
)
def test_what_slurm_prints_counts_where_the_reason_is_vague(experiment, line, name):
    log = f"run folder: runs/wide/x\nlr nan inf out of memory\n{line}\nerror: {NO_PROGRESS}\n"
    for reason, state in (
        ("killed without a word: out of memory, or a node has failed", "stopped"),
        (NO_PROGRESS, "failed"),
        ("preempted", "stopped"),
        ("its job has ended: FAILED", "lost"),
    ):
        found, shown = cause_of(experiment, run(experiment, reason=reason, state=state, log=log))
        assert (found.name, shown) == (name, line)

    # Its own error says more than what SLURM prints of the end that came of it.
    assert cause_of(experiment, run(experiment, reason="ValueError: no", log=log))[0].name == "other"
    assert cause_of(experiment, run(experiment, reason="Diverged: nan", log=log))[0].name == "nan"


def test_earlier_attempts_and_other_lines_are_no_evidence(experiment):
    log = (
        "run folder: x\nslurmstepd: error: *** JOB 1 ON n CANCELLED AT x DUE TO NODE FAILURE ***\nrun folder: x\nnan\n"
    )
    gone = run(experiment, reason="its job has gone without a word: killed", state="lost", log=log)
    assert cause_of(experiment, gone)[0].name == "unknown"
    assert cause_of(experiment, run(experiment, state="stopped", reason="preempted", log=log))[0].name == "cancelled"


def test_causes_are_grouped_with_one_line_and_one_remedy_each(experiment):
    (experiment.logs / ".job-3").write_text("12\n0\nnode7\n/x/3.log\n")
    (experiment.logs / ".job-4").write_text("12\n0\nnode9\n/x/4.log\n")
    stand = [
        run(experiment, 0, "ValueError: no"),
        run(experiment, 1, CUDA),
        run(experiment, 2, CUDA),
        run(experiment, 3, "its job has ended: NODE_FAIL", "lost"),
        run(experiment, 4, "its job has ended: NODE_FAIL", "lost"),
        run(experiment, 5, None, "waiting"),
    ]
    command = places.command("SlurmTrain.py", "retry", experiment.shown)
    assert why(experiment, stand) == [
        f"memory: out of memory, runs 1-2: {CUDA}",
        f"    {command} --cause memory --memory with more than before; on a GPU, a smaller data.batch_size in a new "
        "experiment",
        "node: a node or its GPU has failed, runs 3-4: its job has ended: NODE_FAIL",
        f"    {command} --cause node --exclude node7,node9",
        "other: an error of its own, run 0: ValueError: no",
        f"    see its log, {experiment.logs / '0.log'}",
    ]
    assert [each.index for each in of_cause(experiment, stand, "node")] == [3, 4]
    assert of_cause(experiment, stand, "disk") == [] and why(experiment, stand[5:]) == []


def test_the_table_of_causes_is_whole():
    assert len(set(NAMES)) == len(NAMES) == len(CAUSES) + 2
    for cause in (*CAUSES, triage.OTHER, triage.UNKNOWN):
        assert cause.says and cause.remedy.format(retry="r", nodes="n", log="l")
        re.compile(cause.signs)


def test_without_accounts_slurm_still_knows_for_some_minutes_how_a_job_ended(told):
    told.says("sacct", "error: Slurm accounting storage is disabled")
    told.says("squeue", "Maintenance\n@|7|NODE_FAIL\n@|8|CANCELLED")
    assert jobs.endings(["7", "8"]) == {"7": "NODE_FAIL", "8": "CANCELLED"}
    told.says("squeue", "error: Invalid job id specified")
    assert jobs.endings(["7"]) == {}
    told.says("sacct", "7|TIMEOUT")
    assert jobs.endings(["7"]) == {"7": "TIMEOUT"}
