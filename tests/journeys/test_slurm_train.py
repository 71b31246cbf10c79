"""SlurmTrain.py as far as it goes without a cluster: plans, checks, dry runs. With one: tests/slurm."""

import json
import subprocess
import sys
import time

import pytest
import yaml


@pytest.fixture
def slurm_train(project, tmp_path, monkeypatch, capsys):
    """Runs SlurmTrain.py in this process, in an empty folder; returns exit code, output and errors."""
    from lightning_hpc.entrance import slurm_train as main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(each) for each in arguments], root=project)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def spec(tmp_path, tmp_path_factory):
    """Writes a request whose runs go to tmp_path/runs; returns its file."""
    here = tmp_path_factory.mktemp("settings") / "here.yaml"
    here.write_text(f"runs_dir: {tmp_path / 'runs'}\n")

    def write(configs=(), **content):
        file = tmp_path / "spec.yaml"
        whole = {"name": "study", "configs": [*configs, str(here)], **content}
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        return file

    return write


GRID = {"data.batch_size": [8, 16], "model.optimizer.lr": [0.1, 0.01, 0.001]}


def test_plan_prints_the_runs(slurm_train, spec, tmp_path):
    code, told, _ = slurm_train("plan", spec(parameters=GRID))
    assert code == 0 and told.splitlines()[-1] == "6 runs = 2 data.batch_size × 3 model.optimizer.lr"
    assert len(told.splitlines()) == 7 and "batch_size=16,lr=0.001" in told
    code, told, _ = slurm_train("plan", spec(parameters=GRID), "--jsonl")
    rows = [json.loads(line) for line in told.splitlines()]
    assert [row["index"] for row in rows] == list(range(6)) and rows[5]["overlay"]["model.optimizer.lr"] == 0.001
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


@pytest.mark.parametrize("name", ["grid", "random", "folds"])
def test_the_examples_plan_and_pass_the_check(slurm_train, project, name):
    code, told, errors = slurm_train("submit", project / "configs" / "jobs" / f"{name}.yaml", "--dry-run")
    assert code == 0, errors
    counts = {"grid": "108 runs = 18 LIST_OF_OPTIMIZERS × 6 data.batch_size", "random": "60 runs", "folds": "10 runs"}
    assert told.startswith(counts[name])


def test_a_dry_run_shows_everything_and_touches_nothing(slurm_train, spec, tmp_path):
    resources = {"time": "2:00:00", "gpus": 2, "throttle": 3}
    code, told, _ = slurm_train("submit", spec(parameters=GRID, resources=resources), "--dry-run", "--time=4:00:00")
    assert code == 0
    assert "6 runs × 2 GPUs × 4 h = 48 GPU-hours at most, 3 at a time" in told
    assert "#SBATCH --time=4:00:00" in told and "#SBATCH --ntasks-per-node=2" in told
    assert told.splitlines()[-1] == f"sbatch --array=0-5%3 {tmp_path}/runs/study/job.sbatch"
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_plan_and_dry_run_say_which_runs_share_a_job(slurm_train, spec, tmp_path):
    file = spec(parameters=GRID, resources={"time": "2:00:00", "gpus": 1, "pack": 4})
    assert slurm_train("plan", file)[1].splitlines()[-1] == "6 runs, 4 runs per job: 2 jobs"
    code, told, errors = slurm_train("submit", file, "--dry-run", "--no-check", "--canary")
    assert code == 0, errors
    assert "6 runs, 4 runs per job: 2 jobs × 1 GPU × 2 h = 4 GPU-hours at most" in told
    assert "#SBATCH --cpus-per-task=4" in told and "#SBATCH --ntasks-per-node=1" in told
    folder = tmp_path / "runs" / "study"
    dependency = "--dependency=afterok:ID --kill-on-invalid-dep=yes"
    assert told.splitlines()[-2:] == [
        f"sbatch --array=0 {folder}/canary.sbatch",
        f"sbatch --array=0-1 {dependency} {folder}/pack.sbatch",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    code, _, errors = slurm_train("submit", file, "--dry-run", "--no-check", "--nodes=2")
    assert code == 2 and errors.startswith("error: pack 4: runs over several nodes can't share a job")


def test_sbatchs_own_options_are_taken_under_their_names(slurm_train, spec):
    file = spec(parameters=GRID, resources={"ntasks-per-node": 2, "mem": "8G", "exclude": ["n1", "n2"]})
    options = ["--mem=4G", "--constraint", "a100", "--exclusive", "--time-min=10", "--gpu-type=a100", "--gpus", "2"]
    code, told, errors = slurm_train("submit", file, "--dry-run", "--no-check", *options)
    assert code == 0, errors
    lines = [line.removeprefix("#SBATCH ") for line in told.splitlines() if line.startswith("#SBATCH")]
    assert {"--ntasks-per-node=2", "--mem=4G", "--gres=gpu:a100:2"} <= set(lines)
    assert lines[-4:] == ["--exclude=n1,n2", "--constraint=a100", "--exclusive", "--time-min=10"]


def test_help_comes_from_the_table(capsys, slurm_train):
    with pytest.raises(SystemExit) as end:
        slurm_train("submit", "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "--memory …, --mem …" in told and "memory per node with a unit, such as 16G; 0: all of it" in told
    assert "--constraint=…" in told and "--core-spec" not in told


def test_a_changed_machine_room_is_noted(slurm_train, spec, monkeypatch):
    from lightning_hpc.code import snapshot

    submit = ["submit", spec(parameters=GRID), "--dry-run", "--no-check"]
    monkeypatch.setattr(snapshot, "machine_room_changed", lambda root: ["lightning_hpc/files.py"])
    assert "note: lightning_hpc/ is not as delivered" in slurm_train(*submit)[1]
    for unchanged in ([], None):
        monkeypatch.setattr(snapshot, "machine_room_changed", lambda root, answer=unchanged: answer)
        assert "note:" not in slurm_train(*submit)[1]


@pytest.mark.parametrize(
    "parameters, message",
    [
        (
            {**GRID, "model.optimizer.lr": [0.1, "fast"]},
            'error: run 1 (data.batch_size=8, model.optimizer.lr="fast"): `model.optimizer.lr` in run 1',
        ),
        ({"model.optimizer.momentun": [0.9], "model.optimizer": ["SGD"]}, "did you mean model.optimizer.momentum?"),
        ({"data.batchsize": [8]}, "`data.batchsize` in run 0"),
        ({"trainer.max_epochs": [1, 2, 1.5]}, "run 2 (trainer.max_epochs=1.5)"),
        ({"model.network": ["ConvNet", "ConvNot"]}, "run 1 (model.network="),
    ],
)
def test_one_wrong_run_stops_everything_and_is_named(slurm_train, spec, tmp_path, parameters, message):
    code, _, errors = slurm_train("submit", spec(parameters=parameters), "--yes")
    assert code == 2 and errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "runs").exists()


def test_run_73_of_108(slurm_train, spec):
    rates = [0.001 * (i + 1) for i in range(18)]
    rates[73 // 6] = "O.1"
    _, _, errors = slurm_train(
        "submit", spec(parameters={"model.optimizer.lr": rates, "data.batch_size": [8, 16, 32, 64, 128, 256]}), "--yes"
    )
    assert 'error: run 72 (model.optimizer.lr="O.1", data.batch_size=8): ' in errors
    assert "expected Tensor or float, got O.1\n" in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["submit", "away.yaml"], "error: away.yaml can't be read"),
        (["status", "nowhere"], "error: nowhere is no planned experiment"),
        (["retry", "nowhere"], "error: nowhere is no planned experiment"),
        (["eval", "nowhere"], "error: nowhere is no run's folder"),
        (["submit", "spec.yaml", "--cluster", "hac"], "error: no such cluster: hac (did you mean hec?)"),
        (["submit", "spec.yaml", "--time", "soon"], "error: "),
        (["submit", "spec.yaml", "--cluster", "hec", "--time", "9-0"], "error: hec can't serve this"),
        (["submit", "spec.yaml", "--gpus", "two"], "error: command line: gpus: 'two' is not a whole number (GPUs per"),
        (["submit", "spec.yaml", "--mem=4G", "--memory=8G"], "error: command line: mem and memory mean the same and"),
        (["submit", "spec.yaml", "--job-name=x"], "error: command line: job-name can't be set"),
        (["submit", "spec.yaml", "--no-check"], "error: nobody is here to answer: say --yes"),
        (["debug", "spec.yaml", "--index", "99"], "error: --index 99: the plan has runs 0 to 5"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(slurm_train, spec, monkeypatch, arguments, message):
    spec(parameters=GRID)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, errors = slurm_train(*arguments)
    assert code == 2 and errors.startswith(message) and errors.count("\n") == 1


def test_more_devices_in_the_settings_than_in_the_request_are_refused(slurm_train, spec):
    code, _, errors = slurm_train(
        "submit", spec(parameters={**GRID, "trainer.max_epochs": [1]}, resources={"gpus": 2}), "--dry-run"
    )
    assert code == 0
    file = spec(parameters=GRID, configs=["more.yaml"], resources={"gpus": 2})
    (file.parent / "more.yaml").write_text("trainer.devices: 4\n")
    code, _, errors = slurm_train("submit", file, "--dry-run")
    assert code == 2 and "trainer.devices is 4, but the resources give 2" in errors


def test_debug_runs_one_of_the_runs_here(spec, project, tmp_path):
    quick = {
        "trainer.max_epochs": [1],
        "trainer.limit_train_batches": [1],
        "trainer.accelerator": ["cpu"],
        "cka": [None],
    }
    file = spec(parameters={**GRID, **quick})
    command = [sys.executable, str(project / "SlurmTrain.py"), "debug", str(file), "--index", "4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run 4 (data.batch_size=16, model.optimizer.lr=0.01,")
    (status,) = (tmp_path / "runs" / "study-debug").glob("*/status.json")
    assert json.loads(status.read_text())["state"] == "done"


def test_a_login_node_is_no_place_to_debug(slurm_train, spec, monkeypatch):
    from lightning_hpc.slurm import command_line

    monkeypatch.setattr(command_line, "gethostname", lambda: "wayland-2022.hec.lancaster.ac.uk")
    code, _, errors = slurm_train("debug", spec(parameters=GRID))
    assert code == 2 and "is a login node of hec" in errors


def test_an_array_that_a_request_repeats_leaves_out_what_is_done(slurm_train, spec, tmp_path):
    _, told, _ = slurm_train("plan", spec(parameters=GRID), "--jsonl")
    row = json.loads(told.splitlines()[2])
    for name, state in ((row["folder"], "done"), (json.loads(told.splitlines()[3])["folder"], "failed")):
        (tmp_path / "runs" / "study" / name).mkdir(parents=True)
        identity = next(
            json.loads(line)["identity"] for line in told.splitlines() if json.loads(line)["folder"] == name
        )
        (tmp_path / "runs" / "study" / name / "status.json").write_text(
            json.dumps(dict(state=state, identity=identity))
        )
    _, told, _ = slurm_train("submit", spec(parameters=GRID), "--dry-run", "--no-check")
    assert "1 of them are done already" in told and "--array=0-1,3-5 " in told
    _, told, _ = slurm_train("submit", spec(parameters=GRID), "--dry-run", "--no-check", "--overwrite")
    assert "--array=0-5 " in told


def test_an_experiment_with_variables_is_tried_again_and_evaluated(slurm_train, spec, project, tmp_path, monkeypatch):
    """`environment:` is a mapping of names, not settings."""
    from lightning_hpc.experiments import writing
    from lightning_hpc.planning.plan import plan
    from lightning_hpc.planning.specification import read_specification

    planned = plan(read_specification(spec(parameters={"data.batch_size": [8, 16]})), project)
    writing.write(planned, project, {"cluster": "generic", "environment": {"A": "1", "B": 2}}, "")
    run = planned.folder / planned.runs[0].folder
    run.mkdir()
    (run / "status.json").write_text(json.dumps(dict(state="failed")))
    code, told, errors = slurm_train("eval", run, "--dry-run")
    assert code == 0 and "export A=1\nexport B=2\n" in told, errors
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    code, told, errors = slurm_train("retry", planned.folder, "--dry-run")
    assert code == 0 and "to submit: 0-1;" in told, errors


def test_one_message_says_how_an_experiment_has_ended(slurm_train, spec, project, webhook):
    """The command of the job that waits for the array, with a webhook on this machine."""
    from lightning_hpc.experiments import writing
    from lightning_hpc.planning.plan import plan
    from lightning_hpc.planning.specification import read_specification

    found = plan(read_specification(spec(parameters={"data.batch_size": [8, 16]})), project)
    writing.write(found, project, {}, "")
    folder = found.folder / found.runs[0].folder
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(dict(state="failed", reason="ValueError: no")))

    code, told, _ = slurm_train("notify", found.folder)
    (message,) = webhook
    assert message["title"] == "study has ended"
    assert "2 runs: 1 failed, 1 waiting\nrun 0 failed: ValueError: no" in message["text"]
    assert code == 0 and "webhook: sent" in told and "secret" not in told


def test_help_status_and_a_dry_run_of_1000_runs_are_quick(project, spec, tmp_path):
    """DESIGN's numbers: --help under 1 s, a dry run of 1,000 runs without the check under 3 s of CPU."""
    file = spec(parameters={"data.batch_size": {"range": {"start": 1, "stop": 101}}, "trial": {"repeat": 10}})
    door = [sys.executable, str(project / "SlurmTrain.py")]
    for arguments, limit in ((["--help"], 1), (["submit", str(file), "--dry-run", "--no-check"], 3)):
        started = time.process_time(), children()
        done = subprocess.run([*door, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert children() - started[1] < limit


def children() -> float:
    """CPU seconds of the child processes that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
