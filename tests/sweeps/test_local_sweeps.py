"""Local sweeps: agents that share nothing but a folder, and lose nothing when they are killed."""

import datetime
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from lightning_hpc.planning.specification import expand, read_axes
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.sweeps import local_agent
from lightning_hpc.sweeps import trial as trials
from lightning_hpc.sweeps.local_sweep import LocalSweep

GRID = dict(method="grid", parameters={"x": {"values": [0.1, 0.3, 0.5]}, "y": {"values": [0.5, 0.7]}})
BOX = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}


def results(local):
    """State and value of each trial, read anew."""
    local = LocalSweep(local.folder, local.root)
    return {trial.index: (r.get("state"), r.get("value")) for trial in local.trials() for r in [trial.result]}


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def attempts(local):
    """How often the run of each trial was started."""
    return Counter(len(file.read_text().splitlines()) for file in local.root.glob("runs/*/*/attempts.txt"))


def test_one_agent_goes_through_a_grid_in_the_planners_order(create, agent):
    local = create(**GRID)
    process = agent(str(local.folder))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert [trial.parameters["overlay"] for trial in local.trials()] == expand(read_axes(GRID))
    assert {state for state, _ in results(local).values()} == {"done"}
    trial, result = local.best()
    assert trial.parameters["overlay"] == {"x": 0.3, "y": 0.7} and result["value"] == pytest.approx(1 / 3)
    assert "best: trial 3, loss 0.33333" in local.table() and "6 of 6 trials have ended" in local.table()


def test_values_that_look_like_others_are_tried_as_they_are(create):
    values = ["null", "~", "# c", "&z", "a: b", "1e-3", "2026-01-01", {"a": None}, None, 1e-3, float("inf"), ["None"]]
    local = create(method="grid", parameters={"x": {"values": values}})
    kept = LocalSweep(local.folder, local.root)  # as an agent reads it
    assert kept.planned == [{"x.a": None} if isinstance(value, dict) else {"x": value} for value in values]


def test_a_date_is_tried_and_is_the_same_run_when_its_trial_is_continued(create):
    day = datetime.date(2026, 1, 1)
    local = create(method="grid", parameters={"x": {"values": [day]}})
    trial, _ = local.claim(None)
    first = local.run_folders(local.choose(trial)["overlay"])[0]
    assert trial.parameters == {"overlay": {"x": "2026-01-01"}}
    assert local.run_folders(trial.parameters["overlay"])[0].path == first.path


def test_random_trials_are_the_planners(create):
    config = dict(method="random", parameters=BOX, run_cap=5)
    local = create(**config)
    chosen = []
    for _ in range(5):
        trial, _ = local.claim(None)
        chosen.append(local.choose(trial)["overlay"])
        trial.end(state="done", value=0.0)
    assert chosen == expand(read_axes({**config, "seed": 0})) and local.claim(None) is None


@pytest.mark.parametrize("lost", [0, 2], ids=["never killed", "killed twice before"])
@pytest.mark.parametrize("state", ["stopped", "done"])
def test_a_trial_whose_agent_ends_it_and_leaves_in_this_moment_is_not_taken(create, monkeypatch, state, lost):
    """Another agent has just seen that it has no result, and sees now that its agent is no more."""
    local = create(method="grid", parameters={"x": {"values": [0.1]}})
    for number in range(1, lost + 2):
        trial = local.trial(0)
        assert trial.take(None, number)

    def ends_and_leaves(pid):
        trial.end(state=state, value=0.5, reason=None, run="000")
        return False

    monkeypatch.setattr(trials, "is_alive", ends_and_leaves)
    assert local.claim(None) is None
    assert len(trial.attempts) == lost + 1 and trial.result["state"] == state


@pytest.mark.slow
def test_sixteen_agents_of_which_half_are_killed_lose_no_trial_and_double_none(create, agent):
    values = [round(0.1 * step, 1) for step in range(8)]
    local = create(
        method="grid", parameters={"x": {"values": values}, "y": {"values": values[:3]}, "steps": {"value": 4}}
    )
    agents = [agent(str(local.folder)) for _ in range(16)]
    rng = random.Random(0)
    wait_for(lambda: any(local.root.glob("runs/*/*/attempts.txt")))
    for process in rng.sample(agents, 8):
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
    codes = [process.wait(timeout=600) for process in agents]
    assert codes.count(-signal.SIGKILL) >= 6 and set(codes) <= {0, -signal.SIGKILL}
    agent(str(local.folder)).wait(timeout=600)  # what the last ones left
    found = results(local)
    assert len(found) == 24 and {state for state, _ in found.values()} == {"done"}
    settings = [tuple(trial.parameters["overlay"].values()) for trial in local.trials()]
    assert sorted(settings) == sorted((4, x, y) for x, y in itertools.product(values, values[:3]))
    runs = list(local.root.glob("runs/*/*/metrics.csv"))
    assert len(runs) == 24 and all(len(run.read_text().splitlines()) == 1 + 4 for run in runs)
    assert sum(attempts(local).values()) == 24 and max(attempts(local)) <= 3


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 76), (signal.SIGINT, 130)])
def test_an_agent_that_has_to_leave_lets_its_trial_save_and_its_next_self_goes_on(create, agent, number, code):
    local = create(**GRID | dict(parameters={"x": {"value": 0.3}, "steps": {"value": 20}, "pause": {"value": 0.1}}))
    element = dict(SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="2")
    process = agent(str(local.folder), **element)
    wait_for(lambda: any(local.root.glob("runs/*/*/checkpoint.txt")))
    process.send_signal(number)
    assert process.wait(timeout=600) == code
    (run,) = local.root.glob("runs/*/*")
    step = int((run / "checkpoint.txt").read_text())
    assert 0 < step < 20 and results(local) == {0: (None, None)}
    again = agent(str(local.folder), **element)
    assert again.wait(timeout=600) == 0
    assert results(local)[0][0] == "done" and len((run / "metrics.csv").read_text().splitlines()) == 21
    (trial,) = local.trials()
    assert [attempt.get("left") for attempt in trial.attempts][0] is not None and len(trial.attempts) == 2


def test_a_signal_while_an_agent_starts_ends_it_with_the_code_that_asks_for_another_start(agent):
    process = agent("--server", "http://127.0.0.1:9")
    assert "waiting for the sweep server" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 75


def test_a_run_that_is_killed_while_it_starts_is_taken_again(create, agent, tiny):
    train = tiny / "Train.py"
    train.write_text("import time\nopen('started', 'w').close()\ntime.sleep(2)\n" + train.read_text())
    local = create(**GRID)
    process = agent(str(local.folder), SLURM_JOB_ID="7")
    wait_for((tiny / "started").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 75
    assert local.trial(0).attempts[0]["left"] == "preempted"
    assert agent(str(local.folder), "--count=1", SLURM_JOB_ID="7").wait(timeout=600) == 0
    assert results(local)[0][0] == "done"


def test_an_agent_waits_for_a_run_that_somebody_else_has_started_and_can_still_leave(create, agent, tiny):
    local = create(**GRID)
    run = RunFolder(tiny / local.run_folders({"x": 0.1, "y": 0.5})[0].path)  # as the agent, who works in the project
    with run.locked():
        process = agent(str(local.folder))
        wait_for(lambda: list(local.trials()))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) == 75
    assert results(local) == {0: (None, None)}


def test_a_trial_belongs_to_its_array_element_even_when_nobody_can_say_whether_its_host_is_alive(create):
    local = create(**GRID)
    trial, _ = local.claim("7_1")
    file = trial.attempt_file(1)
    file.write_text(file.read_text().replace('"host": "', '"host": "another-'))
    other, _ = local.claim("7_2")
    assert other.index == 1  # not the first one's trial, which may be running
    again, number = local.claim("7_1")
    assert (again.index, number) == (0, 2)


def test_agents_that_share_a_job_leave_each_other_their_trials(create):
    """In an interactive job all have its number; a trial that three of them took would count as killed three times."""
    local = create(**GRID)
    gone = subprocess.Popen(["true"])
    gone.wait()
    for index, pid in enumerate([os.getppid(), os.getppid(), gone.pid]):
        trial, attempt = local.claim("7")
        assert (trial.index, attempt) == (index, 1)
        file = trial.attempt_file(1)
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": pid}))

    trial, attempt = local.claim("7")
    assert (trial.index, attempt) == (2, 2)


def test_a_trial_without_a_sign_of_life_is_taken_over_from_another_host(create, monkeypatch):
    local = create(**GRID)
    trial, _ = local.claim(None)
    file = trial.attempt_file(1)
    file.write_text(file.read_text().replace('"host": "', '"host": "another-'))
    assert local.claim(None)[0].index == 1
    os.utime(file, (time.time() - 301,) * 2)
    assert local.claim(None)[0].index == 0


def test_a_trial_that_is_killed_again_and_again_fails_in_the_end(create):
    local = create(**GRID)
    for number in (1, 2, 3):
        trial, attempt = local.claim("7_1")
        assert (trial.index, attempt) == (0, number)
    assert local.claim("7_1")[0].index == 1
    assert local.trial(0).result["reason"] == "killed 3 times"


def test_a_crash_is_a_failure_and_is_not_repeated(create, agent):
    local = create(method="grid", parameters={"x": {"values": [0.1, 0.2]}, "crash": {"value": 1}})
    process = agent(str(local.folder))
    assert process.wait(timeout=600) == 0
    assert [state for state, _ in results(local).values()] == ["failed", "failed"]
    assert local.trial(0).result["reason"] == "ValueError: the run has a fault" and attempts(local) == {1: 2}


def test_an_agent_stops_when_its_first_three_trials_fail(create, agent):
    local = create(method="random", run_cap=20, parameters=BOX | {"crash": {"value": 0}})
    process = agent(str(local.folder))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1 and "the first three trials have failed" in output
    assert len(results(local)) == 3


def test_a_metric_that_no_run_logs_is_said(create, agent):
    local = create(method="grid", metric={"name": "los", "goal": "minimize"}, parameters={"x": {"value": 0.1}})
    assert agent(str(local.folder)).wait(timeout=600) == 0
    assert local.trial(0).result["reason"] == "the run logs no los"


@pytest.fixture
def run_here(tiny, monkeypatch):
    """Runs an agent in this process; it looks at its run often."""
    monkeypatch.chdir(tiny)
    monkeypatch.setattr(local_agent, "POLL", 0.05)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    yield lambda local, **options: local_agent.LocalAgent(local, tiny, **options).run()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_run_that_hangs_at_its_end_is_done_and_does_not_keep_the_agent(create, run_here, monkeypatch):
    monkeypatch.setattr(local_agent, "SECONDS_TO_EXIT", 0.2)
    local = create(method="grid", parameters={"x": {"values": [0.1, 0.2]}, "stuck": {"value": True}})
    assert run_here(local) == 0
    assert [state for state, _ in results(local).values()] == ["done", "done"]


def test_count_ends_an_agent(create, run_here):
    local = create(**GRID)
    assert run_here(local, count=2) == 0
    assert len(results(local)) == 2


def test_worse_trials_are_stopped_early(create, run_here, tiny):
    local = create(
        method="grid",
        parameters={"x": {"values": [0.3, 0.31, 0.32, 0.9]}, "steps": {"value": 12}, "pause": {"value": 0.1}},
        early_terminate=dict(type="hyperband", min_iter=2, eta=2),
    )
    assert run_here(local) == 0
    states = [state for state, _ in results(local).values()]
    assert states[0] == "done" and states[3] == "stopped"
    stopped = tiny / local.run_folders({"x": 0.9, "steps": 12, "pause": 0.1})[0].path
    assert 0 < len(local.history(stopped)) < 12


def test_variables_of_wandb_that_are_empty_do_not_disturb_an_agent(create, agent):
    """.env.example ships them so, and they are read before any door is open."""
    local = create(method="grid", parameters={"x": {"value": 0.1}})
    process = agent(str(local.folder), WANDB_MODE="", WANDB_API_KEY="", WANDB_PROJECT="")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and results(local)[0][0] == "done", output


@pytest.mark.parametrize("program, arguments", [("SweepAgent.py", ["team/project/id"]), ("CreateSweep.py", ["bowl"])])
def test_without_a_key_an_empty_mode_of_wandb_is_no_traceback(start, tiny, tmp_path, program, arguments):
    (tiny / "configs" / "sweeps").mkdir()
    (tiny / "configs" / "sweeps" / "bowl.yaml").write_text("method: grid\nparameters: {x: {value: 0.1}}\n")
    process = start(program, *arguments, WANDB_MODE="", HOME=str(tmp_path))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2 and "there is no W&B key: run `wandb login`" in output.splitlines()[-1]
    assert "Traceback" not in output
