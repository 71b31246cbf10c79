"""What the pods would do, done here: the Job of an experiment is written, sent, run, ended as kubelet does, fetched.

There is no cluster. A folder with a copy of the project stands for the image and its claims, and a script for
`kubectl exec`; the commands, their arguments and their variables are those of the manifests, and so are the signals.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import kubernetes_rules
import pytest
import yaml
from test_kubernetes import build

from lightning_hpc.kubernetes.render import job_name

QUICK = {
    "trainer.max_epochs": 6,
    "trainer.limit_train_batches": 20,
    "trainer.limit_val_batches": 2,
    "trainer.accelerator": "cpu",
    "cka": None,
}
KUBECTL = """#!/bin/sh
# `kubectl exec [-i] deploy/NAME -- COMMAND`, in the folder that stands for a pod's /project.
[ "$1" = exec ] || exit 1
while [ "$1" != -- ]; do shift; done
shift
cd "$POD" && exec "$@"
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "WANDB_MODE": "disabled"} | more


def slurm_train(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "SlurmTrain.py", *arguments]
    return subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)


def write_spec(project: Path, **content) -> str:
    (project / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    spec = {
        "name": "my_Grid",
        "configs": ["quick.yaml"],
        "parameters": {"model.optimizer.lr": [0.01, 0.001]},
        "resources": {"gpus": 0, "cpus": 2, "memory": "2G", "time": "1:00:00", "environment": {"NOTE": "it's $(HOME)"}},
    }
    (project / "spec.yaml").write_text(yaml.safe_dump(spec | content, sort_keys=False))
    return "spec.yaml"


@pytest.fixture(scope="module")
def rendered(bake, tmp_path_factory) -> tuple[Path, str]:
    """A project in which an experiment of two runs is rendered, and what that has printed."""
    place = tmp_path_factory.mktemp("kubernetes")
    project = place / "project"
    subprocess.run(["cp", "-r", bake(deployment="docker-kubernetes"), project], check=True)
    done = slurm_train(project, "render", "--kubernetes", write_spec(project), "--throttle", "1")
    assert done.returncode == 0, done.stderr
    return project, done.stdout


def test_the_job_of_an_experiment_would_be_accepted(rendered):
    project, said = rendered
    (job,) = build(project / "runs" / "my_Grid" / "kubernetes")
    assert kubernetes_rules.faults([job]) == []
    assert job["spec"]["completions"] == 2 and job["spec"]["parallelism"] == 1
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][1:] == [
        "runs/my_Grid/code/Train.py", "fit", "--run", "runs/my_Grid", "--index", "$(JOB_COMPLETION_INDEX)",
    ]  # fmt: skip
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert {"name": "NOTE", "value": "it's $$(HOME)"} in container["env"]
    assert "left out, since they are for SLURM: time" in said
    assert "2 runs × 0 GPUs, 2 CPUs, 2Gi of memory, 1 at a time" in said


def test_a_planned_experiment_gets_a_job_too_and_is_not_planned_again(rendered):
    project, _ = rendered
    manifest = project / "runs" / "my_Grid" / "manifest.jsonl"
    before = manifest.read_bytes()
    again = slurm_train(project, "render", "--kubernetes", "spec.yaml")
    assert again.returncode == 2 and "is planned already" in again.stderr.splitlines()[0]
    assert "render --kubernetes runs/my_Grid" in again.stderr

    other = slurm_train(project, "render", "--kubernetes", "runs/my_Grid", "--gpus=1", "--dry-run")
    assert other.returncode == 0 and "nvidia.com/gpu: 1" in other.stdout and "completions: 2" in other.stdout
    assert manifest.read_bytes() == before
    assert "gpu" not in (manifest.parent / "kubernetes" / "job.yaml").read_text()


@pytest.mark.parametrize(
    "options, content, said",
    [
        (["--cluster=hec"], {}, "--cluster names a SLURM cluster"),
        ([], {"resources": {"nodes": 2}}, "is one pod, which is on one node"),
        ([], {"resources": {"pack": 2}}, "runs share a job in SLURM only"),
        ([], {"resources": {"environment": {"HF_TOKEN": "x"}}}, "HF_TOKEN looks like a secret"),
        ([], {"resources": {"gpus": 2}, "parameters": {"trainer.devices": [1]}}, "is the same for all runs"),
    ],
    ids=["cluster", "nodes", "pack", "secret", "devices"],
)
def test_what_kubernetes_can_not_serve_is_refused(rendered, options, content, said):
    project, _ = rendered
    before = sorted(path.name for path in (project / "runs").iterdir())
    done = slurm_train(project, "render", "--kubernetes", write_spec(project, name="no", **content), *options)
    assert done.returncode == 2 and said in done.stderr.splitlines()[0], done.stderr
    assert sorted(path.name for path in (project / "runs").iterdir()) == before


def test_a_project_without_manifests_says_how_to_get_them(bake):
    done = slurm_train(bake(), "render", "--kubernetes", "configs/jobs/grid.yaml")
    assert done.returncode == 2 and "deployment=docker-kubernetes" in done.stderr.splitlines()[0]
    done = slurm_train(bake(), "render", "--name", "x", "--dry-run")
    assert done.returncode == 2 and "--kubernetes SPEC" in done.stderr.splitlines()[0]


def test_names_of_jobs_are_labels_and_stay_different():
    assert job_name("study-grid", 108) == "study-grid"
    names = [
        job_name(text, 100_000) for text in ("study-my_grid", "study-my-grid", "study-My.grid", "s-" + "x" * 99, "_")
    ]
    assert len(set(names)) == 5 and names[1] == "study-my-grid"
    for name in names:
        assert kubernetes_rules.LABEL.fullmatch(f"{name}-99999"), name


class Pod:
    """Starts what a container of a manifest would, in a folder that stands for its /project."""

    def __init__(self, folder: Path, manifest: dict) -> None:
        self.folder = folder
        self.spec = manifest["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]

    def start(self, index: int | None = None, **replaced: str) -> subprocess.Popen:
        """Start it; `replaced` are other words for some of its arguments."""
        variables = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        variables |= {each["name"]: each["value"] for each in self.container["env"] if "value" in each}
        if index is not None:
            variables["JOB_COMPLETION_INDEX"] = str(index)
        arguments = [replaced.get(word, word) for word in self.container["args"]]
        arguments = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in arguments]
        assert arguments[0] == "python"
        command = [sys.executable, "-u", *arguments[1:]]
        # A process group of its own, as a container is: a signal goes to its first process alone.
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen) -> int:
        """As kubelet ends it: SIGTERM, and SIGKILL after the grace; returns the exit code."""
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def ended(process: subprocess.Popen) -> str:
    """Wait for its end, which has to be a good one; returns what it has printed."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture
def pod_folder(rendered, tmp_path, monkeypatch) -> Path:
    """What is in the image: the project without its results; a `kubectl` that runs commands there."""
    project, _ = rendered
    folder = tmp_path / "pod"
    subprocess.run(["git", "clone", "--quiet", project, folder], check=True)
    (folder / "runs").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text(KUBECTL)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    monkeypatch.setenv("POD", str(folder))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.slow
def test_an_experiment_is_sent_run_ended_as_kubelet_does_and_fetched(rendered, pod_folder):
    project, said = rendered
    (job,) = build_elsewhere(project / "runs" / "my_Grid" / "kubernetes")
    send, fetch = [line.strip() for line in said.splitlines() if "kubectl exec" in line]
    subprocess.run(["bash", "-o", "pipefail", "-c", send], cwd=project, check=True)
    experiment = pod_folder / "runs" / "my_Grid"
    assert (experiment / "manifest.jsonl").is_file() and not (experiment / "logs").exists()

    # The node is needed for something else while the run trains: it saves, and its next pod resumes.
    pod = Pod(pod_folder, job)
    first = pod.start(index=0)
    wait_for(lambda: list(experiment.glob("000-*/checkpoints/last.ckpt")), first)
    assert pod.end(first) == 75
    assert "resum" in ended(pod.start(index=0)).lower()

    # A node that dies says nothing.
    second = pod.start(index=1)
    wait_for(lambda: list(experiment.glob("*lr=0.001*/checkpoints/last.ckpt")), second)
    second.kill()
    second.wait()
    ended(pod.start(index=1))
    assert "done already" in ended(pod.start(index=1))  # a Job that is applied again

    subprocess.run(["bash", "-o", "pipefail", "-c", fetch], cwd=project, check=True)
    assert not list(project.glob("runs/my_Grid/*/checkpoints/*.ckpt"))
    table = subprocess.run(
        [sys.executable, "Report.py", "table", "runs/my_Grid"], cwd=project, env=environment(), capture_output=True,
        text=True,
    )  # fmt: skip
    assert table.stdout.count("done") == 2, table.stdout + table.stderr


def build_elsewhere(folder: Path) -> list[dict]:
    """As `build`, with the real kubectl although another one comes first on the PATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(os.environ["PATH"].split(os.pathsep)[1:]))
        return build(folder)


@pytest.mark.slow
def test_one_run_of_its_own(rendered, pod_folder):
    """With a quick configs/base.yaml over that of the image, as settings.yaml mounts it."""
    project, _ = rendered
    (job,) = build_elsewhere(project / "kubernetes" / "run")
    settings = pod_folder / "configs" / "base.yaml"
    quick = yaml.safe_load(settings.read_text())
    quick["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2}
    settings.write_text(yaml.safe_dump(quick | {"cka": None}))
    assert "run folder" in ended(Pod(pod_folder, job).start())


@pytest.mark.slow
def test_with_a_mirror_a_new_pod_goes_on_in_an_empty_folder(rendered, pod_folder, tmp_path):
    """The mirror is a folder here; the settings are those that base/mirror.yaml names."""
    project, _ = rendered
    (job,) = build_elsewhere(project / "kubernetes" / "run")
    note = (project / "kubernetes" / "base" / "mirror.yaml").read_text()
    mirror = yaml.safe_load(note.split("mirror:", 1)[1].splitlines()[0])
    assert mirror.pop("url").startswith("s3://")
    settings = pod_folder / "configs" / "base.yaml"
    quick = yaml.safe_load(settings.read_text())
    quick["trainer"] |= {"max_epochs": 8, "limit_train_batches": 20}
    quick["checkpoints"]["every_n_steps"] = 20
    quick |= {"cka": None, "mirror": mirror | {"url": f"file://{tmp_path}/bucket", "every_n_minutes": 0.02}}
    settings.write_text(yaml.safe_dump(quick))
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", pod_folder, other], check=True)

    (tmp_path / "bucket").mkdir()
    first = Pod(pod_folder, job).start()
    bucket = tmp_path / "bucket"

    def has_a_checkpoint() -> bool:
        return any(json.loads(file.read_text())["checkpoints"] for file in bucket.glob("*/latest.json"))

    wait_for(has_a_checkpoint, first)
    first.kill()  # the node is gone, and what was in the pod with it
    first.wait()
    said = ended(Pod(other, job).start())
    assert "resum" in said.lower(), said


@pytest.mark.slow
def test_a_sweep_is_served_from_a_config_map_and_run_by_agents(pod_folder, rendered, tmp_path):
    project, _ = rendered
    deployment = next(
        each for each in build_elsewhere(project / "kubernetes" / "sweep-server") if each["kind"] == "Deployment"
    )
    (job,) = build_elsewhere(project / "kubernetes" / "agents")

    # A ConfigMap in a pod: the files are links into a folder that is a link to one with a time in its name.
    data = tmp_path / "sweep" / "..2026_11_30_04_05_06.123"
    data.mkdir(parents=True)
    quick = [f"--{key}={value}" for key, value in QUICK.items() if key.startswith("trainer")]
    command = ["${env}", "${interpreter}", "Train.py", "fit", "--name=sweep", "--cka=null", *quick, "${args}"]
    sweep = {"method": "grid", "command": command, "parameters": {}}
    (data / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (data / "model.yaml").write_text("model.optimizer.lr: {values: [0.01, 0.001]}\n")
    (data.parent / "..data").symlink_to(data.name)
    for name in ("sweep.yaml", "model.yaml"):
        (data.parent / name).symlink_to(f"..data/{name}")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pod = Pod(pod_folder, deployment)
    pod.container["args"].append("--local")  # W&B can't be reached here
    server = pod.start(**{"/sweep": str(data.parent), "0.0.0.0:5001": address})

    def asks(probe: str) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://{address}{pod.container[probe]['httpGet']['path']}", timeout=5
            ) as answer:
                return answer.status == 200
        except OSError:
            return False

    agents = Pod(pod_folder, job)
    (url,) = [word for word in agents.container["args"] if word.startswith("http://")]
    try:
        wait_for(lambda: asks("livenessProbe"), server)
        both = [agents.start(index, **{url: f"http://{address}"}) for index in range(2)]  # agents wait for the sweep
        wait_for(lambda: asks("readinessProbe"), server)
        for agent in both:
            ended(agent)
    finally:
        assert pod.end(server) == 0
    states = [yaml.safe_load(file.read_text())["state"] for file in pod_folder.glob("runs/sweep/*/status.json")]
    assert states == ["done", "done"]
