"""Sweeps in W&B: created by CreateSweep.py, run by real agents, with real runs, against the stand-in of the server."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from sweep_stand_in import Sweep, SweepRun
from yaml_values import as_text, yaml_values

# Waits at the second batch of the epoch that the file `hold` names; hangs at its exit if there is a file `hang`.
DISTURB = """
import os, threading, time
from pathlib import Path
from lightning.pytorch import Callback

class Disturb(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        while batch_idx == 1 and Path("hold").exists() and Path("hold").read_text() == str(trainer.current_epoch):
            Path(f"held-{trainer.current_epoch}-{os.getpid()}").touch()
            time.sleep(0.05)

    def on_fit_end(self, trainer, pl_module):
        if os.path.exists("hang"):
            os.remove("hang")
            threading.Thread(target=time.sleep, args=[1000]).start()
"""
SETTINGS = ["--trainer.max_epochs=5", "--trainer.limit_train_batches=3", "--trainer.accelerator=cpu", "--cka=null"]
ONE = {"model.network.width": {"value": 4}}  # parameters of a sweep with one run
SETTINGS += ["--trainer.callbacks+=disturb.Disturb", "--trainer.log_every_n_steps=1"]


@pytest.fixture
def root(project, tmp_path, wandb_env):
    """A project of our own, with a sweep over two learning rates."""
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=lambda folder, _: {"runs", "wandb", ".git"} if folder == str(project) else ())
    (root / "disturb.py").write_text(DISTURB)
    write_sweep(root)
    wandb_env.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")
    wandb_env.setenv("OMP_NUM_THREADS", "1")
    wandb_env.setenv("COLUMNS", "200")
    return root


def write_sweep(root, **changes):
    command = ["${env}", "${interpreter}", "Train.py", "fit", "--name=rates", *SETTINGS, "${args}"]
    parameters = {
        "model.optimizer": {"parameters": {"lr": {"values": [1e-3, 3e-3]}}},
        "model.network.width": {"value": 4},
    }
    config = dict(name="rates", method="grid", parameters=parameters, command=command) | changes
    config["metric"] = {"name": "val/loss_best", "goal": "minimize"} | changes.get("metric", {})
    (root / "configs" / "sweeps" / "rates.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def create(root, capsys, monkeypatch):
    """CreateSweep.py in this process, which forks its run: exit code, what it says, what it complains of."""
    import warm

    from lightning_hpc import processes
    from lightning_hpc.entrance import create_sweep as main

    monkeypatch.setattr(processes, "subprocess", warm.stand_in)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)

    def run(*arguments):
        code = main(["rates", *arguments], root)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@contextlib.contextmanager
def agents(root, sweep, count=1):
    """Agents that run; what is left of them at the end is killed, their runs included."""
    started = [
        subprocess.Popen(
            [sys.executable, "SweepAgent.py", sweep], cwd=root, start_new_session=True,
            stdout=(root / f"agent-{number}.log").open("a"), stderr=subprocess.STDOUT,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        yield started
    finally:
        for process in started:
            for pid in [*tree(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def tree(pid):
    """Process ids of all descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *tree(child)]
    return found


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def made(server, root, **changes):
    """A sweep that is there, without the checks of CreateSweep.py, which have tests of their own."""
    from lightning_hpc.sweeps.sweep_file import read_sweep
    from lightning_hpc.sweeps.wandb_sweeps import create_in_wandb

    write_sweep(root, **changes)
    sweep, address = create_in_wandb(read_sweep("rates", root), root)
    assert address.endswith(sweep.rpartition("/")[2])
    return sweep


def hold(root, epoch):
    """Let the run go on to an epoch, and wait there."""
    for old in root.glob("held-*"):
        old.unlink()
    (root / "hold").write_text(str(epoch))
    wait_for(lambda: list(root.glob(f"held-{epoch}-*")))


def kill(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def losses(root):
    """Column val/loss of each run."""
    found = {}
    for file in sorted(root.glob("runs/rates/*/metrics.csv")):
        rows = list(csv.DictReader(file.open(newline="")))
        found[file.parent.name[-8:]] = [row["val/loss"] for row in rows if row.get("val/loss")]
    return found


def test_a_sweep_is_checked_and_created_and_says_how_to_start_agents(root, create, server, key):
    code, said, complaints = create()
    assert code == 0, complaints
    assert "grid, 2 runs" in said and "metric val/loss_best is logged" in said
    assert "python SweepAgent.py researcher/" in said
    assert "sbatch --array=1-4 slurm/sweep_agent.sbatch researcher/" in said
    assert f"see it: {server.url}/researcher/" in said
    config = server.sweep.config
    assert config["parameters"]["model.optimizer.lr"] == {"values": [0.001, 0.003]}
    assert config["project"] == "my-research-project"  # of the logger in configs/base.yaml
    assert not list(root.glob("runs/*")) and not list(root.glob("sweeps/*"))


@settings(deadline=None, max_examples=30)
@given(yaml_values)
def test_what_a_sweep_tries_passes_through_wandb_unchanged(value):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args  # how W&B's agent writes a run's arguments

    from lightning_hpc.settings.command_line import parse_arguments
    from lightning_hpc.settings.flat import flatten
    from lightning_hpc.sweeps.sweep_file import Sweep as SweepFile

    sent = SweepFile({"parameters": {"key": {"values": [value]}}}, Path("sweep.yaml")).for_wandb()
    read_by_client = yaml.safe_load(yaml.safe_dump(sent))
    kept_by_server = json.loads(json.dumps(read_by_client["parameters"]["key"]["values"][0], allow_nan=False))
    arguments = create_sweep_command_args({"args": {"key": {"value": kept_by_server}}})["args"]
    assert as_text(parse_arguments(arguments)) == as_text(flatten({"key": value}))


@pytest.mark.slow
def test_an_agent_that_gives_up_says_so_and_sends_no_message_that_the_sweep_has_ended(root, server, key, webhook):
    """The code can't be imported on this node: W&B's agent ends after a few runs, with exit code 0."""
    sweep = made(server, root, parameters={"x": {"values": [1, 2, 3, 4, 5, 6, 7, 8]}})
    (root / "Train.py").write_text("import no_such_package\n")
    log = root / "agent-0.log"
    with agents(root, sweep) as (process,):
        assert process.wait(timeout=300) == 1, log.read_text()
    assert (
        "error: run after run has failed here, so W&B's agent has given up; the sweep has not ended" in log.read_text()
    )
    assert server.sweep.state == "RUNNING" and len(server.sweep.runs) < 8 and webhook == []


@pytest.mark.slow
def test_a_mistyped_id_is_said_at_once(root, server, key):
    with agents(root, "researcher/project/mistyped") as (process,):
        assert process.wait(timeout=300) == 2
    log = (root / "agent-0.log").read_text()
    assert "error: W&B has no sweep researcher/project/mistyped" in log and "starting it again" not in log


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_sweep_in_wandb_is_refused_where_its_runs_would_not_be_recorded_there(root, server, key, wandb_env, mode):
    import wandb

    from lightning_hpc.settings.errors import SettingsError
    from lightning_hpc.sweeps.agent import main as agent
    from lightning_hpc.sweeps.creation import main as create

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    wandb_env.setenv("WANDB_MODE", mode)
    wandb.teardown()
    try:
        for command, arguments in ((create, ["rates"]), (create, ["--resume", "a/b/c"]), (agent, ["a/b/c"])):
            with pytest.raises(SettingsError, match=f"W&B is {mode} here.*unset WANDB_MODE.*--local"):
                command(arguments, root)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert server.operations == []


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("x1y2z3", "x1y2z3"),
        ("team/project/x1y2z3", "team/project/x1y2z3"),
        ("team/project/sweeps/x1y2z3", "team/project/x1y2z3"),
        ("https://wandb.ai/team/project/sweeps/x1y2z3?nw=nwuser#top", "team/project/x1y2z3"),
        ("https://wandb.example.org/team/sweeps/sweeps/x1y2z3/table", "team/sweeps/x1y2z3"),
        ("wandb.ai/team/project/sweeps/x1y2z3", "team/project/x1y2z3"),
    ],
)
def test_a_sweep_is_found_by_the_address_of_its_page(typed, meant):
    from lightning_hpc.sweeps.wandb_sweeps import plain_id

    assert plain_id(typed) == meant


@pytest.mark.parametrize("typed", ["https://wandb.ai/team/project", "a/b/c/d", "/"])
def test_an_address_that_is_no_sweeps_is_refused(typed):
    from lightning_hpc.settings.errors import SettingsError
    from lightning_hpc.sweeps.wandb_sweeps import plain_id

    with pytest.raises(SettingsError, match="write ENTITY/PROJECT/ID"):
        plain_id(typed)


@pytest.mark.slow
def test_two_agents_go_through_a_grid_to_its_end(root, server, key):
    sweep = made(server, root)
    with agents(root, sweep, count=2) as started:
        assert [process.wait(timeout=600) for process in started] == [0, 0]
    assert [run.state for run in server.sweep.runs.values()] == ["finished", "finished"]
    assert set(server.runs) == set(server.sweep.runs) and len(losses(root)) == 2
    for run in server.runs.values():
        assert run.summary["val/loss_best"] > 0 and run.group == "rates"
        assert run.exit_codes == [0]


@pytest.mark.slow
def test_a_run_that_is_disturbed_ends_as_if_nothing_had_happened(root, train, server, key):
    sweep = made(server, root, parameters=ONE)
    server.gone = 8.0  # agents show that they are alive every 5 s
    log = root / "agent-0.log"
    with agents(root, sweep) as (process,):  # the node is gone
        hold(root, 1)
        kill([*tree(process.pid), process.pid], signal.SIGKILL)
        assert process.wait(timeout=600) == -9
    with agents(root, sweep) as (process,):  # preempted: the scheduler tells every process
        hold(root, 2)
        kill([*tree(process.pid), process.pid], signal.SIGTERM)
        wait_for(lambda: "the run saves and stops" in log.read_text())
        (root / "hold").unlink()
        assert process.wait(timeout=600) == 75
    with agents(root, sweep) as (process,):
        assert process.wait(timeout=600) == 0, log.read_text()
    (run,) = server.sweep.runs.values()
    assert run.state == "finished" and run.handed_out == 3 and list(server.runs) == [run.id]
    (status,) = [json.loads(file.read_text()) for file in root.glob("runs/rates/*/status.json")]
    assert status["state"] == "done" and status["attempt"] == 3
    ((loss,),) = [list(losses(root).values())]
    undisturbed = train("fit", *(each for each in SETTINGS if "disturb" not in each), "--model.network.width=4")
    assert [float(each) for each in loss] == undisturbed.column("val/loss")
    history = server.runs[run.id].history
    assert [row["_step"] for row in history] == list(range(len(history)))


@pytest.mark.slow
def test_what_fails_around_a_run_costs_neither_the_run_nor_the_agent(root, server, key):
    """The server is away for a while, W&B's own agent breaks down, and the run hangs at its exit."""
    sweep = made(server, root, parameters=ONE)
    trackers = next(root.glob("*/trackers/wandb_runs.py"))
    trackers.write_text(trackers.read_text().replace("SECONDS_TO_EXIT = 60", "SECONDS_TO_EXIT = 2"))
    (root / "hang").touch()
    with agents(root, sweep) as (process,):
        hold(root, 1)
        server.away = True
        hold(root, 3)
        wait_for(lambda: server.turned_away >= 5)  # the run's, and those of the agent, which asks every 5 s
        server.away = False
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in tree(process.pid)}
        kill(
            [pid for pid, command in commands.items() if "lightning_hpc.sweeps.wandb_sweeps" in command], signal.SIGKILL
        )
        (root / "hold").unlink()
        assert process.wait(timeout=600) == 0, (root / "agent-0.log").read_text()
    assert "W&B's agent has gone, its run is still there" in (root / "agent-0.log").read_text()
    assert not (root / "hang").exists()
    assert [(run.state, run.handed_out) for run in server.sweep.runs.values()] == [("finished", 1)]
    (run,) = server.runs.values()
    assert [row["epoch"] for row in run.history if "val/loss" in row] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_on_two_ranks_is_one_run_and_starts_its_ranks_itself(root, server, key, wandb_env):
    from lightning_hpc.processes import trial_environment

    member = SweepRun("abc", {})
    server.sweeps["s1"] = Sweep("s1", {}, runs={"abc": member})
    variables = dict(SLURM_JOB_ID=7, SLURM_NTASKS=1, SLURM_PROCID=0, SLURM_LOCALID=0)  # the agent is a task of SLURM's
    for name, value in variables.items():
        wandb_env.setenv(name, str(value))
    environment = trial_environment() | dict(WANDB_SWEEP_ID="s1", WANDB_RUN_ID="abc", WANDB_PROJECT="p")
    command = [sys.executable, "Train.py", "fit", *SETTINGS, "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert list(server.runs) == ["abc"] and member.state == "finished"
    assert len(list(root.glob("runs/default/*/logs/rank-*.log"))) == 2


def test_without_a_key_nothing_is_created_and_the_other_way_is_offered(root, create, server):
    code, said, complaints = create()
    assert (code, said) == (2, "")
    assert complaints == "error: there is no W&B key: run `wandb login`, or sweep without W&B: --local\n"
    agent = subprocess.run([sys.executable, "SweepAgent.py", "a/b/c"], cwd=root, capture_output=True, text=True)
    assert agent.returncode == 2 and "there is no W&B key: run `wandb login`" in agent.stderr
    assert server.operations == []


def test_a_wrong_key_is_said(create, server, key):
    server.refused.add(key)
    code, _, complaints = create("--no-metric-check")
    assert code == 2 and "\nerror: W&B refuses: " in f"\n{complaints}" and "not logged in" in complaints
    assert not server.sweeps


def test_a_server_that_does_not_answer_costs_a_bounded_time(root, key, wandb_env, server, monkeypatch):
    from lightning_hpc.settings.errors import SettingsError
    from lightning_hpc.sweeps import wandb_sweeps

    server.away = True
    monkeypatch.setattr(wandb_sweeps, "CREATE_TIMEOUT", 4.0)
    with pytest.raises(SettingsError, match="has not answered for 4 s.*--local|W&B refuses"):
        made(server, root)


def test_a_sweep_that_was_stopped_can_go_on(root, create, server, key):
    sweep = made(server, root)
    server.sweep.state = "STOPPED"
    code, said, complaints = create("--resume", sweep)
    assert code == 0, complaints
    assert server.sweep.state == "RUNNING" and f"python SweepAgent.py {sweep}" in said


def test_a_dry_run_creates_nothing(create, server, key):
    code, said, _ = create("--dry-run", "--no-metric-check")
    assert code == 0 and "nothing is created" in said
    assert server.operations == []


def test_what_is_wrong_anywhere_in_the_space_is_found_before_anything_is_created(root, create, server, key):
    write_sweep(root, parameters={"model.network.width": {"values": [4, 8, "wide"]}})
    code, _, complaints = create()
    assert code == 2 and "error: with model.network.width=wide: " in complaints
    write_sweep(root, metric={"name": "val/f1"})
    code, _, complaints = create()
    assert code == 2 and "error: metric val/f1: no run logs it; there are " in complaints
    assert not server.sweeps and not list(root.glob("runs/*"))


def test_the_same_file_is_swept_without_wandb(root, create, server, monkeypatch):
    from lightning_hpc.sweeps.local_agent import LocalAgent
    from lightning_hpc.sweeps.local_sweep import LocalSweep

    write_sweep(root, parameters=ONE)
    code, said, complaints = create("--local", "--no-metric-check")
    assert code == 0 and "python SweepAgent.py sweeps/rates" in said, complaints
    monkeypatch.chdir(root)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        assert LocalAgent(LocalSweep.open("rates", root), root).run() == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    _, result = LocalSweep.open("rates", root).best()
    ((loss,),) = [list(losses(root).values())]
    assert result["value"] == pytest.approx(min(map(float, loss))) and server.operations == []
