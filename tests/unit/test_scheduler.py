"""SLURM's commands: an answer is yes or no, or there is none. Silence is no empty queue; nothing is submitted twice."""

import os
import pwd
import subprocess

import pytest
from told_slurm import line

from lightning_hpc.scheduler import commands, jobs, sbatch
from lightning_hpc.scheduler.commands import NoAnswer
from lightning_hpc.scheduler.jobs import Element
from lightning_hpc.scheduler.sbatch import Job
from lightning_hpc.settings.errors import SettingsError

BUSY = "error: squeue: error: Socket timed out on send/recv operation"


# The queue


def test_a_queue_that_is_empty_and_one_that_does_not_answer(told):
    assert jobs.queue() == []
    told.says("squeue", BUSY)
    with pytest.raises(NoAnswer, match="squeue does not answer: squeue: error: Socket timed out"):
        jobs.queue()


def test_patience_outlasts_a_busy_controller_and_says_what_it_waits_for(told, capsys):
    told.says("squeue", BUSY, "error:", line("7", "3", "RUNNING", "/x/job.sbatch"))
    assert [element.name for element in jobs.queue(pauses=(1, 5))] == ["7_3"]
    said = capsys.readouterr().err
    assert "Socket timed out on send/recv operation; trying again in 1 s" in said
    assert "exit code 1 without a word; trying again in 5 s" in said


def test_patience_ends_at_last_and_at_once_where_asking_again_is_of_no_use(told):
    told.says("squeue", BUSY)
    with pytest.raises(NoAnswer):
        jobs.queue(pauses=commands.PAUSES)
    assert len(told.calls("squeue")) == 5
    told.says("squeue", "error: fatal: Could not establish a configuration source")
    with pytest.raises(NoAnswer):
        jobs.queue(pauses=commands.PAUSES)
    assert len(told.calls("squeue")) == 1


def test_the_pauses_at_a_terminal_and_inside_a_job():
    assert sum(commands.PAUSES) == 66 and commands.PAUSES[0] == 1
    assert 300 < sum(commands.LONG_PAUSES) < 900 and commands.LONG_PAUSES[0] == 1


def test_notices_around_the_table_are_no_jobs(told):
    told.says("squeue", f"Maintenance | on | Monday\n{line('7', 'N/A', 'PENDING', '/x/a|b.sbatch 1')}\n\nbye")
    assert jobs.queue() == [
        Element("7", None, "PENDING", "None", "/x/a|b.sbatch 1", "7", os.getuid(), "", None, "main")
    ]
    told.says("squeue", "Maintenance on Monday\n@|RUNNING")
    assert jobs.state_of("7") == "RUNNING"


def test_other_clusters_and_other_users_are_asked_for(told):
    told.says("squeue", line("7", "0", "PENDING", "/x/a"), line("8", "0", "RUNNING", "/x/a"))
    here, there = jobs.queue(users=[4711], clusters=["b"])
    assert (here.job, here.cluster, there.job, there.cluster) == ("7", None, "8", "b")
    first, second = told.calls("squeue")
    people = ",".join(str(user) for user in sorted({os.getuid(), 4711}))
    assert f"--user={people} " in first and "--clusters" not in first and "--clusters=b " in second
    told.says("squeue", "", "error: can't reach b")
    with pytest.raises(NoAnswer, match="can't reach b"):  # half an answer is none
        jobs.queue(clusters=["b"])


def test_a_job_that_waits_for_no_other_depends_on_none(told):
    told.says(
        "squeue", line("7", "0", "PENDING", "/x", depends="(null)"), line("7", "0", "PENDING", "/x", depends="a:7")
    )
    assert [jobs.queue()[0].depends, jobs.queue()[0].depends] == ["", "a:7"]


def test_whose_a_job_is():
    element = Element("7", None, "PENDING", "None", "/x/a", uid=os.getuid())
    assert element.user == pwd.getpwuid(os.getuid()).pw_name
    assert Element("7", None, "PENDING", "None", "/x/a", uid=987654).user == "987654"
    assert element.is_of("/y", "/x/a") and not element.is_of("/x")


@pytest.mark.parametrize(
    "name", ["SQUEUE_STATES", "SQUEUE_PARTITION", "SQUEUE_FORMAT", "SLURM_CLUSTERS", "SLURM_JOB_ID"]
)
def test_the_shells_own_habits_change_no_answer(told, monkeypatch, name):
    for variable in (name, "SCANCEL_STATE", "SCANCEL_INTERACTIVE", "SACCT_FEDERATION", "SCONTROL_ALL"):
        monkeypatch.setenv(variable, "RUNNING")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    jobs.queue()
    jobs.cancel(["7"])
    jobs.endings(["7"])
    jobs.requeue("7")
    for program in ("squeue", "scancel", "sacct", "scontrol"):
        found = told.environment(program)
        assert "RUNNING" not in found and "SLURM_CONF=/etc/slurm.conf" in found


# One job


def test_the_state_of_a_job_has_three_answers(told):
    told.says("squeue", "@|RUNNING")
    assert jobs.state_of("7_1") == "RUNNING"
    told.says("squeue", "error: slurm_load_jobs error: Invalid job id specified")
    assert jobs.state_of("7_1") is None
    told.says("squeue", "")
    assert jobs.state_of("7_1") is None
    told.says("squeue", BUSY)
    with pytest.raises(NoAnswer):
        jobs.state_of("7_1")


def test_a_requeue_that_is_refused_is_not_repeated_and_one_without_answer_is(told):
    told.says("scontrol", "error: Invalid job id specified")
    assert jobs.requeue("7_1", (1, 5)) == "scontrol: Invalid job id specified"
    assert told.calls("scontrol") == ["requeue 7_1"]
    told.says("scontrol", "error: Unable to contact slurm controller", "")
    assert jobs.requeue("7_1", (1, 5)) is None and len(told.calls("scontrol")) == 2


def test_jobs_are_cancelled_where_they_are(told):
    jobs.cancel(["7", "8"])
    jobs.cancel(["9"], "b")
    assert told.calls("scancel") == ["7 8", "--clusters=b 9"]
    told.says("scancel", "error: Access/permission denied")
    with pytest.raises(SettingsError, match="scancel refused: Access/permission denied"):
        jobs.cancel(["7"])


def test_without_slurm_nobody_knows_and_submission_says_where_to_go(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoAnswer, match="squeue is not installed here"):
        jobs.queue()
    with pytest.raises(SettingsError, match="sbatch is not installed here: go to a login node"):
        sbatch.submit_job(["x"])


def test_a_command_that_hangs_is_no_answer():
    done = commands.call(["sleep", "9"], timeout=0.05)
    assert done.returncode == 1 and commands.words(done) == "timed out after 0 s"


# Submission


@pytest.mark.parametrize(
    "printed, job",
    [
        ("77", Job("77")),
        ("77;b", Job("77", "b")),
        ("Welcome to the cluster\n77;b\nYour budget is at 12 %", Job("77", "b")),
        ("77\nsbatch: note: your account ends soon", Job("77")),
        ("Submitted batch job 42", Job("42")),
        ("notice\nSubmitted batch job 42 on cluster b\nbye", Job("42", "b")),
    ],
)
def test_an_id_is_found_whatever_is_printed_around_it(told, printed, job):
    told.says("sbatch", printed)
    assert sbatch.submit_job(["job.sbatch"]) == job
    assert str(job) == (f"{job.id} on b" if job.cluster else job.id)


def test_a_busy_controller_is_asked_again_a_few_times(told, capsys):
    told.says("sbatch", BUSY, "error: Unable to contact slurm controller", "77")
    assert sbatch.submit_job(["job.sbatch"]) == Job("77")
    assert len(told.calls("sbatch")) == 3 and "looking in the queue in 1 s" in capsys.readouterr().err


def test_a_controller_that_stays_busy_is_given_up(told):
    told.says("sbatch", "error: sbatch: error: Resource temporarily unavailable")
    with pytest.raises(SettingsError, match="sbatch refused: Resource temporarily unavailable"):
        sbatch.submit_job(["job.sbatch"])
    assert len(told.calls("sbatch")) == 5


def test_a_refusal_is_passed_on_at_once(told):
    told.says("sbatch", "error: invalid partition specified: gpux")
    with pytest.raises(SettingsError, match="sbatch refused: invalid partition specified: gpux"):
        sbatch.submit_job(["job.sbatch"])
    assert len(told.calls("sbatch")) == 1


ARRAY = ["--array=0-1", "/x/job.sbatch"]
ARRIVED = "\n".join(line("41", task, "PENDING", "/x/job.sbatch") for task in ("0", "1"))


def test_a_submission_whose_answer_was_lost_is_not_repeated(told):
    """Even where squeue is busy too, for a while."""
    told.says("sbatch", BUSY)
    told.says("squeue", "", BUSY, BUSY, ARRIVED)
    assert sbatch.submit_job(ARRAY) == Job("41")
    assert len(told.calls("sbatch")) == 1


def test_the_last_try_may_have_arrived_too(told):
    told.says("sbatch", BUSY)
    told.says("squeue", *[""] * 5, ARRIVED)
    assert sbatch.submit_job(ARRAY) == Job("41") and len(told.calls("sbatch")) == 5


def test_another_job_of_the_experiment_is_not_taken_for_the_one_whose_answer_was_lost(told):
    """It was there before, or has other elements, or another start: an agent that puts itself back, for example."""
    before = line("7", "0", "RUNNING", "/x/job.sbatch")
    others = [before, line("8", "5", "PENDING", "/x/job.sbatch"), line("9", "0", "PENDING", "/x/job.sbatch 1000")]
    told.says("sbatch", BUSY, "41")
    told.says("squeue", before, "\n".join(others))
    assert sbatch.submit_job(ARRAY) == Job("41") and len(told.calls("sbatch")) == 2


def test_where_nobody_knows_nothing_is_submitted_a_second_time(told):
    told.says("sbatch", BUSY, "42")
    told.says("squeue", "", BUSY)
    with pytest.raises(NoAnswer, match="Socket timed out.*may have been submitted or not"):
        sbatch.submit_job(ARRAY)
    assert len(told.calls("sbatch")) == 1
    told.says("squeue", BUSY)  # not even before
    told.says("sbatch", BUSY, "42")
    with pytest.raises(NoAnswer, match="may have been submitted or not"):
        sbatch.submit_job(ARRAY)
    assert len(told.calls("sbatch")) == 1


def test_a_first_try_needs_no_queue(told):
    told.says("squeue", BUSY)
    told.says("sbatch", "42")
    assert sbatch.submit_job(ARRAY) == Job("42")


def test_a_try_that_arrives_late_beside_the_next_one_is_cancelled(told):
    late = f"{ARRIVED}\n{line('42', '0', 'PENDING', '/x/job.sbatch')}"
    told.says("sbatch", BUSY, "42")
    told.says("squeue", "", "", late)
    assert sbatch.submit_job(ARRAY) == Job("42")
    assert told.calls("scancel") == ["41"]


def test_an_answer_without_an_id_is_looked_up_and_never_taken_for_one(told):
    told.says("sbatch", "thank you")
    told.says("squeue", "", ARRIVED)
    assert sbatch.submit_job(ARRAY) == Job("41")
    told.says("squeue", "")
    told.says("sbatch", "thank you")
    with pytest.raises(SettingsError, match="has said no job id, and the queue has no such job. It said: thank you"):
        sbatch.submit_job(ARRAY)
    assert len(told.calls("sbatch")) == 1


def test_the_real_error_is_not_hidden_by_that_of_cancelling(told):
    told.says("sbatch", "Submitted batch job 4", "error: QOS has no time left")
    told.says("scancel", "error: Access/permission denied")
    calls = [["/x/canary.sbatch"], ["--dependency=afterok:ID", "/x/job.sbatch"]]
    with pytest.raises(SettingsError, match=r"QOS has no time left; .* still there: 4 \(scancel refused: Access"):
        sbatch.submit_calls(calls, "sbatch")
    assert told.calls("sbatch")[1] == "--parsable --dependency=afterok:4 /x/job.sbatch"


def test_what_may_be_waiting_for_a_canary_keeps_it(told):
    told.says("sbatch", "4", BUSY)
    told.says("squeue", "", "", BUSY)
    calls = [["/x/canary.sbatch"], ["--dependency=afterok:ID", "/x/job.sbatch"]]
    with pytest.raises(SettingsError, match="may have been submitted or not.*; submitted before that: 4$"):
        sbatch.submit_calls(calls, "sbatch")
    assert told.calls("scancel") == []


def test_indices_are_read_as_they_are_written():
    for indices in ([0], [0, 1, 2, 5, 7, 8], list(range(108))):
        assert sbatch.read_array(sbatch.array(indices, 3)) == indices


def test_the_surrounding_jobs_options_are_not_inherited(told, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    told.says("sbatch", "77")
    sbatch.submit_job(["job.sbatch"])
    assert "SBATCH_" not in told.environment("sbatch") and "SLURM_JOB_ID" not in told.environment("sbatch")


def test_what_a_site_has_set_is_kept_where_the_batch_file_says_nothing(told, monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    file = tmp_path / "job.sbatch"
    file.write_text("#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH --mem=4G\n#SBATCH --requeue\n")
    dropped = ("PARTITION", "MEM_PER_CPU", "MEM_PER_NODE", "NO_REQUEUE", "WAIT", "ARRAY_INX")
    for name in (*dropped, "ACCOUNT", "TIMELIMIT"):
        monkeypatch.setenv(f"SBATCH_{name}", "theirs")
    monkeypatch.setenv("SLURM_CLUSTERS", "b")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "9")
    told.says("sbatch", "77;b")
    assert sbatch.submit_job([str(file)]) == Job("77", "b")
    got = told.environment("sbatch")
    assert all(name in got for name in ("SBATCH_ACCOUNT", "SBATCH_TIMELIMIT", "SLURM_CLUSTERS"))
    assert not any(f"SBATCH_{name}" in got for name in dropped) and "SLURM_MEM_PER_CPU" not in got
    assert any("--clusters=b" in call for call in told.calls("squeue"))


def test_commands_do_not_wait_for_an_answer_of_the_user():
    assert commands.call(["cat"]).stdout == "" and isinstance(commands.call(["true"]), subprocess.CompletedProcess)
