"""Runs in W&B, recorded by the real client: one run per identity, whatever happens to the server or to the run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from disturbing import EVERY_STEP, Disturb, disturbed, log

from lightning_hpc.trackers import WandB


def restart():
    """What a new process would find: a client that knows nothing."""
    wandb.teardown()


def offline_runs(run):
    return sorted(run.folder.glob("wandb/offline-run-*"))


def test_with_a_key_the_run_and_all_its_settings_are_online(train, server, key, capsys):
    run = train("fit", "--name=wide", "--model.network.width=8", "--trial=3", *EVERY_STEP)
    assert run.code == 0
    (online,) = server.runs.values()
    assert online.id == f"wide-{run.status['identity']}"
    assert (online.name, online.group) == (run.folder.name, "wide")
    assert {"model.network.width=8", "trial=3"} <= set(online.tags)
    assert online.settings == run.config
    assert online.settings["model"]["init_args"]["network"]["init_args"]["input_shape"] == [1, 8, 8]
    assert online.exit_codes == [0]
    assert online.summary["val/acc"] == pytest.approx(run.column("val/acc")[-1])
    assert len([row for row in online.history if "train/loss" in row]) == 17
    assert server.keys == {key}
    address = f"{server.url}/researcher/{online.project}/runs/{online.id}"
    assert f"W&B: {address}" in log(run) and f"see it in W&B    {address}" in capsys.readouterr().out


def test_a_picture_is_read_from_this_machine(tmp_path, monkeypatch):
    """W&B reads its file three times, and the run's folder may be on a shared file system."""

    class Watched(WandB):
        def log_image(self, key, images, step=None):
            self.logged = key, step, Path(images[0]), Path(images[0]).read_bytes()

    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Watched("project", save_dir=str(tmp_path))
    tracker.log_png("cka/init/map", b"picture", step=3)
    key, step, file, content = tracker.logged
    assert (key, step, content) == ("cka/init/map", 3, b"picture")
    assert not file.exists() and tmp_path not in file.parents


def test_the_picture_of_cka_is_online(train, server, key):
    quick = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu")
    assert train("fit", *quick, defaults=True).code == 0
    (online,) = server.runs.values()
    (picture,) = [content for name, content in online.files.items() if name.startswith("media/images/cka/init/map")]
    assert picture.startswith(b"\x89PNG")


def test_a_preempted_run_continues_in_the_same_run_with_continuous_steps(train, server, key):
    command = ("fit", disturbed("SIGTERM"), *EVERY_STEP)
    assert train(*command).code == 75
    (online,) = server.runs.values()
    before = len(online.history)
    restart()
    assert train(*command).code == 0
    assert list(server.runs.values()) == [online] and online.exit_codes == [75, 0]
    assert len(online.history) > before > 5
    assert [row["_step"] for row in online.history] == list(range(len(online.history)))
    losses = [row["trainer/global_step"] for row in online.history if "train/loss" in row]
    assert losses == list(range(17))  # no step is missing and none is there twice


def test_a_crash_is_a_crash_in_wandb_and_the_next_attempt_continues(train, server, key):
    command = ("fit", disturbed("crash"), *EVERY_STEP)
    assert train(*command).code == 1
    restart()
    assert train(*command).code == 0
    (online,) = server.runs.values()
    assert online.exit_codes == [1, 0]
    assert [row["_step"] for row in online.history] == list(range(len(online.history)))


def test_a_service_that_dies_does_not_cost_the_run(train, server, key):
    run = train("fit", disturbed("service dies"), *EVERY_STEP)
    assert run.code == 0 and run.status["state"] == "done" and run.status["step"] == 17
    assert "W&B's service has died, so the rest of this run is recorded offline" in log(run)
    assert len(offline_runs(run)) == 1


def test_the_test_belongs_to_the_same_run(train, server, key):
    train("fit")
    restart()
    assert train("test").code == 0
    (online,) = server.runs.values()
    assert "test/acc" in online.summary and "val/acc" in online.summary


def test_without_a_key_the_run_is_offline_and_one_line_says_how_to_sync(train, server, capfd):
    run = train("fit")
    assert run.code == 0 and run.status["state"] == "done"
    assert len(offline_runs(run)) == 1 and server.operations == []
    output = capfd.readouterr()
    relative = run.folder.relative_to(Path.cwd())
    lines = (output.out + output.err + log(run)).splitlines()
    assert [line for line in lines if "wandb sync" in line] == [
        f"see it in W&B    wandb sync {relative}/wandb/offline-run-*"
    ]


def test_offline_attempts_are_synced_into_one_run_with_continuous_steps(train, server, wandb_env, key):
    wandb_env.setenv("WANDB_MODE", "offline")  # as on a node without internet, where there may be a key
    command = ("fit", disturbed("SIGTERM"), *EVERY_STEP)
    assert train(*command).code == 75
    restart()
    time.sleep(1)  # W&B names a record by its second; a new process would take longer to start
    run = train(*command)
    assert run.code == 0 and server.operations == []
    wandb_env.delenv("WANDB_MODE")
    assert len(offline_runs(run)) == 2
    sync(*offline_runs(run))
    (online,) = server.runs.values()
    assert online.id == f"default-{run.status['identity']}"
    assert [row["_step"] for row in online.history] == list(range(len(online.history)))
    assert [row["trainer/global_step"] for row in online.history if "train/loss" in row] == list(range(17))


def sync(*folders):
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *folders], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_disabled_means_no_trace(train, server, key, wandb_env, capsys):
    wandb_env.setenv("WANDB_MODE", "disabled")
    run = train("fit")
    assert run.code == 0
    assert server.operations == [] and not (run.folder / "wandb").exists()
    assert "W&B" not in capsys.readouterr().out + log(run)


def test_the_key_of_wandb_login_is_found_for_the_server_in_use(train, server, home, key, wandb_env):
    wandb_env.delenv("WANDB_API_KEY")
    (home / ".netrc").write_text(f"machine {server.url.removeprefix('http://')}\n  login user\n  password {key}\n")
    (home / ".netrc").chmod(0o600)
    assert train("fit").code == 0
    assert len(server.runs) == 1 and server.keys == {key}


def test_the_key_is_in_no_file(train, server, key, project, tmp_path, home):
    run = train("fit")
    train("test")
    assert (run.folder / "logs" / "rank-0.log").stat().st_size > 0
    files = [path for place in (tmp_path, project, home) for path in place.rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in files) and len(files) > 50
    assert [path for path in files if key.encode() in path.read_bytes()] == []
    (online,) = server.runs.values()
    assert online.files and not any(key.encode() in content for content in online.files.values())


def test_a_server_that_is_away_costs_a_bounded_time_and_not_the_run(train, wandb_env, key):
    wandb_env.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    run = train("fit", "--trainer.logger.init_timeout=2")
    assert run.code == 0 and time.monotonic() - started < 30
    assert len(offline_runs(run)) == 1
    assert "warning: W&B can't be reached, so this run is recorded offline" in log(run)


def test_a_key_that_is_not_accepted_is_said_and_does_not_cost_the_run(train, server, key):
    server.refused.add(key)
    run = train("fit", "--trainer.logger.init_timeout=5")
    assert run.code == 0 and len(offline_runs(run)) == 1
    (line,) = [line for line in log(run).splitlines() if "W&B can't be reached" in line]
    assert "401" in line


def test_a_server_that_breaks_down_does_not_cost_the_run(train, server, key):
    Disturb.server = server
    started = time.monotonic()
    run = train("fit", disturbed("server breaks down"), "--trainer.logger.finish_timeout=2", *EVERY_STEP)
    assert run.code == 0 and run.status["state"] == "done" and time.monotonic() - started < 30
    relative = run.folder.relative_to(Path.cwd())
    assert f"the rest: wandb sync {relative}/wandb/run-*" in log(run)
