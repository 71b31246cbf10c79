"""One run that an agent of a W&B sweep has started: which W&B run it is, and what the sweep hears of its end."""

import json

import pytest
import wandb
from disturbing import EVERY_STEP, disturbed
from sweep_stand_in import Sweep, SweepRun

from lightning_hpc.trackers import WandB


@pytest.fixture
def member(server, key, wandb_env, tmp_path):
    """A run that the sweep has handed out; the environment is that of its process."""
    sweep = server.sweeps["s1"] = Sweep("s1", {})
    member = sweep.runs["abc"] = SweepRun("abc", {})
    variables = dict(SWEEP_ID="s1", RUN_ID="abc", PROJECT="sweeps", ENTITY="researcher")
    for name, value in variables.items():
        wandb_env.setenv(f"WANDB_{name}", value)
    wandb_env.setenv("SWEEP_AGENT_LEAVING", str(tmp_path / "leaving"))
    wandb.teardown()
    yield member
    wandb.teardown()


def test_the_run_is_the_sweeps_and_its_checkpoints_are_found_by_identity(train, server, member):
    run = train("fit", "--model.optimizer.lr=0.01")
    assert run.code == 0 and member.state == "finished"
    (online,) = server.runs.values()
    assert (online.id, online.project) == ("abc", "sweeps")
    assert run.folder.name.endswith(run.status["identity"][:8])
    assert online.settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01
    assert online.summary["val/loss_best"] == pytest.approx(min(run.column("val/loss")))
    assert isinstance(online.summary["val/loss_best"], float)  # Bayesian search needs a number


def test_the_run_is_tested_at_its_end(train, server, member):
    run = train("fit", "--then=test")
    assert run.code == 0 and member.state == "finished"
    tested = json.loads((run.folder / "test.json").read_text())
    (online,) = server.runs.values()
    assert online.summary["test/acc"] == pytest.approx(tested["test/acc"])
    assert online.summary["val/loss_best"] == pytest.approx(min(run.column("val/loss")))


def test_a_run_that_ends_because_its_agent_leaves_comes_back_and_goes_on(train, server, member, tmp_path):
    command = ("fit", disturbed("SIGTERM"), *EVERY_STEP)
    (tmp_path / "leaving").touch()
    assert train(*command).code == 75
    assert member.state == "preempted"
    (tmp_path / "leaving").unlink()
    wandb.teardown()
    member.state, member.preempting = "running", False  # handed out again
    run = train(*command)
    assert run.code == 0 and member.state == "finished"
    (online,) = server.runs.values()
    assert [row["_step"] for row in online.history] == list(range(len(online.history)))
    assert [row["trainer/global_step"] for row in online.history if "train/loss" in row] == list(range(17))


@pytest.mark.parametrize("wish, code", [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_run_that_the_sweep_stops_early_does_not_come_back(train, server, member, wish, code):
    assert train("fit", disturbed(wish), *EVERY_STEP).code == code
    assert member.state == "finished"


def test_a_run_near_its_time_limit_comes_back_at_any_attempt(train, server, member, tmp_path):
    (tmp_path / "leaving").touch()
    for _ in range(4):
        member.state, member.preempting = "running", False
        assert train("fit", disturbed("SIGUSR1"), *EVERY_STEP).code in (0, 76)
        if member.state == "finished":
            break
        assert member.state == "preempted"
        wandb.teardown()


def test_a_run_with_a_fault_comes_back_twice_and_then_is_crashed(train, server, member):
    states = []
    for _ in range(3):
        member.state, member.preempting = "running", False
        assert train("fit", disturbed("crash"), *EVERY_STEP).code == 1
        states.append(member.state)
        wandb.teardown()
    assert states == ["preempted", "preempted", "crashed"]


def test_a_run_that_was_done_already_gives_the_sweep_its_results(train, server, member, wandb_env):
    for name in ("SWEEP_ID", "RUN_ID"):
        wandb_env.delenv(f"WANDB_{name}")
    wandb.teardown()
    first = train("fit", "--trainer.max_epochs=2")
    assert first.code == 0 and member.state == "running"
    wandb.teardown()
    wandb_env.setenv("WANDB_SWEEP_ID", "s1")
    wandb_env.setenv("WANDB_RUN_ID", "abc")
    assert train("fit", "--trainer.max_epochs=2").code == 0
    assert member.state == "finished" and first.status["attempt"] == 1
    online = server.runs["abc"]
    assert online.summary["val/loss_best"] == pytest.approx(min(first.column("val/loss")))
    assert [row["val/loss"] for row in online.history if "val/loss" in row] == pytest.approx(first.column("val/loss"))


def test_a_run_that_is_killed_while_it_gives_its_results_gives_the_others_later(
    train, server, member, wandb_env, monkeypatch
):
    for name in ("SWEEP_ID", "RUN_ID"):
        wandb_env.delenv(f"WANDB_{name}")
    wandb.teardown()
    first = train("fit", "--trainer.max_epochs=2")
    wandb.teardown()
    wandb_env.setenv("WANDB_SWEEP_ID", "s1")
    wandb_env.setenv("WANDB_RUN_ID", "abc")
    log_metrics, rows = WandB.log_metrics, iter(range(2))

    def up_to_the_kill(tracker, metrics, step=None):
        if next(rows, None) is not None:
            log_metrics(tracker, metrics, step)

    with monkeypatch.context() as patch:
        patch.setattr(WandB, "log_metrics", up_to_the_kill)
        assert train("fit", "--trainer.max_epochs=2").code == 0
    wandb.teardown()
    assert len(server.runs["abc"].history) == 2

    member.state, member.preempting = "running", False
    assert train("fit", "--trainer.max_epochs=2").code == 0
    losses = [row["val/loss"] for row in server.runs["abc"].history if "val/loss" in row]
    assert member.state == "finished" and losses == pytest.approx(first.column("val/loss"))
