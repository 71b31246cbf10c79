"""TensorBoard, MLflow and Comet, by their real clients: the cells of the table in docs/trackers.md.

W&B has a folder of its own, tests/wandb; metrics.csv: tests/resume/test_metrics_file.py.
"""

import json
import os
import sqlite3
import time
import zipfile
from pathlib import Path

import pytest
from disturbing import EVERY_STEP, Disturb, disturbed, log
from lightning.pytorch.utilities.rank_zero import rank_zero_only

QUICK = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu")


# ---- TensorBoard


def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run.folder / "tensorboard"), size_guidance=dict(scalars=0, images=0)).Reload()


def test_tensorboard_has_metrics_and_the_picture(train):
    run = train("fit", "--config=trackers/tensorboard.yaml", *QUICK, *EVERY_STEP[1:], defaults=True)
    found = events(run)
    assert {"train/loss", "val/loss", "val/acc"} <= set(found.Tags()["scalars"])
    assert found.Scalars("val/acc")[-1].value == pytest.approx(run.column("val/acc")[-1])
    assert len(found.Images("cka/init/map")) == 1


def test_tensorboard_continues_in_the_same_folder(train):
    command = ("fit", "--config=trackers/tensorboard.yaml", disturbed("SIGTERM"), *EVERY_STEP)
    assert train(*command).code == 75
    run = train(*command)
    assert run.code == 0
    assert [event.step for event in events(run).Scalars("train/loss")] == list(range(17))


# ---- MLflow


def mlflow_runs():
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/runs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "my-research-project"]
    return client, client.search_runs([experiment.experiment_id])


MLFLOW = ("fit", "--config=trackers/mlflow.yaml")


def test_mlflow_has_the_run_by_its_name_with_settings_metrics_and_picture(train, environment, capsys):
    run = train(*MLFLOW, "--name=wide", "--model.network.width=8", *QUICK, defaults=True)
    client, (logged,) = mlflow_runs()
    assert (logged.info.run_name, logged.info.status) == (run.folder.name, "FINISHED")
    assert logged.data.metrics["val/acc"] == pytest.approx(run.column("val/acc")[-1])
    assert logged.data.params["data/init_args/batch_size"] == "64"
    assert (logged.data.tags["experiment"], logged.data.tags["model.network.width"]) == ("wide", "8")
    (picture,) = client.list_artifacts(logged.info.run_id, "cka/init/map")
    assert picture.path == "cka/init/map/epoch-001.png" and picture.file_size > 1000
    assert sorted(path.name for path in Path.cwd().iterdir() if path.name != "data") == ["runs"]
    assert (
        f"see it in MLflow mlflow ui --backend-store-uri sqlite:///{Path.cwd()}/runs/mlflow.db"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("wish, code, status", [("SIGTERM", 75, "KILLED"), ("crash", 1, "FAILED")])
def test_mlflow_continues_the_same_run_and_has_each_step_once(train, environment, wish, code, status):
    command = (*MLFLOW, disturbed(wish), *EVERY_STEP)
    assert train(*command).code == code
    client, (first,) = mlflow_runs()
    assert first.info.status == status
    assert train(*command).code == 0
    client, (logged,) = mlflow_runs()
    assert (logged.info.run_id, logged.info.status) == (first.info.run_id, "FINISHED")
    history = client.get_metric_history(logged.info.run_id, "train/loss")
    assert [value.step for value in history] == list(range(17))


def test_mlflow_has_the_test_in_the_same_run_and_a_new_run_for_one_that_starts_over(train, environment):
    train(*MLFLOW)
    run = train("test", "--config=trackers/mlflow.yaml")
    client, (logged,) = mlflow_runs()
    tested = json.loads((run.folder / "test.json").read_text())
    assert logged.data.metrics["test/acc"] == pytest.approx(tested["test/acc"]) and logged.info.status == "FINISHED"
    train(*MLFLOW, "--resume=never")
    client, runs = mlflow_runs()
    assert len(runs) == 2


def test_mlflow_that_is_away_costs_a_bounded_time_and_not_the_run(train, environment):
    pytest.importorskip("mlflow")
    environment.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    run = train(*MLFLOW)
    assert run.code == 0 and run.status["state"] == "done" and time.monotonic() - started < 60
    said = log(run)
    assert said.count("warning: MLflow (http://127.0.0.1:9): what it has not taken is sent later") == 1
    assert "warning: MLflow has not taken all data; metrics.csv has all values" in said


@pytest.fixture
def tracker(environment, tmp_path, monkeypatch):
    """MLflow with a database of its own, which can be locked, and which is tried again at once."""
    pytest.importorskip("mlflow")
    from lightning_hpc.trackers import mlflow_runs as module

    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db?timeout=0.1"
    return module.MLflow("mine", tracking_uri=uri, save_dir=str(tmp_path))


def test_mlflow_gets_later_what_it_has_not_taken_at_once(tracker, tmp_path):
    tracker.log_metrics({"loss": 3.0}, step=0)

    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("begin exclusive")  # as another process that hangs
    tracker.log_metrics({"loss": 2.0}, step=1)
    tracker.log_hyperparams({"lr": 0.1})
    database.rollback()
    tracker.log_metrics({"loss": 1.0}, step=2)
    tracker.finish(0)
    logged = tracker.experiment.get_run(tracker.run_id)
    assert (logged.info.status, logged.data.params) == ("FINISHED", {"lr": "0.1"})
    assert [value.step for value in tracker.experiment.get_metric_history(tracker.run_id, "loss")] == [0, 1, 2]


def test_mlflow_whose_experiment_is_made_later_gets_all_later(tracker, tmp_path, monkeypatch):
    """Many runs of a new experiment start at once: one makes it, and another finds the database locked."""
    create, database = tracker._client.create_experiment, None

    def locked_meanwhile(*arguments, **options):
        nonlocal database
        if database is not None:
            return create(*arguments, **options)
        database = sqlite3.connect(tmp_path / "mlflow.db")
        database.execute("begin exclusive")
        try:
            return create(*arguments, **options)
        finally:
            database.rollback()

    monkeypatch.setattr(tracker._client, "create_experiment", locked_meanwhile)
    tracker.log_metrics({"loss": 2.0}, step=0)
    assert tracker.run_id is None
    tracker.log_metrics({"loss": 1.0}, step=1)
    assert [value.step for value in tracker.experiment.get_metric_history(tracker.run_id, "loss")] == [0, 1]


# ---- Comet


COMET = ("fit", "--config=trackers/comet.yaml")


def recorded(run):
    """What each archive of Comet's holds: its experiment, and all messages in it."""
    for archive in sorted((run.folder / "comet").glob("*/*.zip"), key=os.path.getmtime):
        with zipfile.ZipFile(archive) as files:
            lines = files.read("messages.json").decode().splitlines()
            yield json.loads(files.read("experiment.json")), [json.loads(line) for line in lines], files.namelist()


def metrics_in(messages, name):
    """(step, value) of a metric, in the order in which it was logged."""
    found = [message["payload"]["metric"] for message in messages if message["type"] == "metric_msg"]
    return [(metric["step"], metric["metricValue"]) for metric in found if metric["metricName"] == name]


def test_comet_without_a_key_records_everything_offline(train, environment, capsys):
    pytest.importorskip("comet_ml")
    run = train(*COMET, "--name=wide", "--model.network.width=8", *QUICK, defaults=True)
    ((experiment, messages, files),) = recorded(run)
    assert {"wide", "model.network.width=8"} <= set(experiment["tags"])
    assert metrics_in(messages, "val/acc")[-1][1] == pytest.approx(run.column("val/acc")[-1])
    assert "data|init_args|batch_size" in json.dumps(messages) and run.folder.name in json.dumps(messages)
    (picture,) = [message["payload"] for message in messages if message["type"] == "file_upload"]
    assert picture["additional_params"]["figName"] == "cka/init/map" and picture["file_path"] in files
    relative = run.folder.relative_to(Path.cwd())
    assert f"see it in Comet  comet upload {relative}/comet/*/*.zip" in capsys.readouterr().out


def test_comet_offline_attempts_are_of_one_experiment(train, environment):
    command = (*COMET, disturbed("SIGTERM"), *EVERY_STEP)
    assert train(*command).code == 75
    run = train(*command)
    assert run.code == 0
    first, second = recorded(run)
    assert first[0]["offline_id"] == second[0]["offline_id"] and second[0]["resume_strategy"] == "get_or_create"
    steps = [step for part in (first, second) for step, _ in metrics_in(part[1], "train/loss")]
    assert steps == list(range(17))


def test_comet_online_has_settings_metrics_and_picture(train, comet):
    run = train(*COMET, "--name=wide", *QUICK, defaults=True)
    (online,) = comet.experiments.values()
    assert online["project"] == "my-research-project" and "wide" in online["tags"]
    assert (online["others"]["Name"], online["others"]["state"]) == (run.folder.name, "done")
    assert online["params"]["data|init_args|batch_size"] == 64
    values = [value for name, _, value in online["metrics"] if name == "val/acc"]
    assert values[-1] == pytest.approx(run.column("val/acc")[-1])
    ((query, picture),) = online["uploads"]
    assert "figName=cka%2Finit%2Fmap" in query and b"PNG" in picture


def test_comet_online_continues_the_same_experiment(train, comet):
    command = (*COMET, disturbed("SIGTERM"), *EVERY_STEP)
    assert train(*command).code == 75
    assert [each["others"]["state"] for each in comet.experiments.values()] == ["preempted"]
    assert train(*command).code == 0
    (online,) = comet.experiments.values()
    assert online["others"]["state"] == "done"
    assert [step for name, step, _ in online["metrics"] if name == "train/loss"] == list(range(17))


def test_comet_that_is_away_costs_a_bounded_time_and_not_the_record(train, comet):
    comet.go_away()
    started = time.monotonic()
    run = train(*COMET)
    assert run.code == 0 and time.monotonic() - started < 60
    assert "warning: Comet can't be reached, so this run is recorded offline" in log(run)
    ((experiment, messages, _),) = recorded(run)
    assert metrics_in(messages, "val/acc")[-1][1] == pytest.approx(run.column("val/acc")[-1])


def test_a_comet_server_that_breaks_down_does_not_cost_the_run(train, comet):
    Disturb.server = comet
    started = time.monotonic()
    run = train(*COMET, disturbed("server breaks down"), *EVERY_STEP)
    assert run.code == 0 and run.status["state"] == "done"
    assert time.monotonic() - started < 60 and run.column("train/loss")[16]
