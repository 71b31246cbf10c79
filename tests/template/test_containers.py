"""Dockerfile, Compose, development container, Apptainer: what can be known of them without a Docker engine.

Where there is an engine, the last test builds the image. There is none on the machines that test the template.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import ladder
import pytest
import yaml
from docker.utils.build import exclude_paths, tar

from lightning_hpc.code.snapshot import read_version
from lightning_hpc.sweeps import agent, creation

TOOLS = Path(sys.executable).parent
VARIANTS = {"cpu": "cpu", "cuda12": "cu129", "cuda13": "cu130"}  # of the conda environment → of PyTorch's wheels


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def instructions(project: Path) -> list[str]:
    """The instructions of the Dockerfile, continued lines joined."""
    text = (project / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("environment", VARIANTS)
def test_files_are_valid_and_have_the_pytorch_of_the_conda_environment(environment, bake):
    project = bake(deployment="docker-kubernetes", conda_environment=environment)
    run(TOOLS / "hadolint", "Dockerfile", cwd=project)
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=project)
    assert f"ARG VARIANT={VARIANTS[environment]}" in instructions(project)

    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    assert services["train"]["build"]["args"] == {"VARIANT": "cpu"}
    assert services["train-gpu"]["build"]["args"]["VARIANT"] in {"cu129", "cu130"} & {*VARIANTS.values()}


def test_image_is_in_stages_runs_as_a_user_and_has_the_code_last(bake):
    lines = instructions(bake(deployment="docker"))
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(starts) == 2 and lines[starts[1]].endswith("-slim")
    last = lines[starts[1] :]
    assert "USER 1000" in last and 'ENTRYPOINT ["tini", "--"]' in last

    # After the code no package is installed; and an image in which it does not start is not built.
    code = last.index("COPY --chown=1000:1000 . .")
    assert last[code + 1 :] == ['RUN ["python", "Train.py", "--help"]']
    assert not any("pip" in line for line in last)
    assert "COPY --from=packages /opt/venv /opt/venv" in last


def test_packages_of_the_image_are_those_of_the_project(bake_to_edit, tmp_path):
    """The Dockerfile installs an empty project of the same pyproject.toml; it is made by its own commands here."""
    project = bake_to_edit(deployment="docker")
    (line,) = [line for line in instructions(project) if "touch" in line]
    touched = re.search(r"touch ([\w. ]+) &&", line)[1].split()
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(project / "pyproject.toml", empty)
    for name in touched:
        (empty / name).touch()

    wanted, files = {}, {}
    for folder in (project, empty):
        wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir"]
        run(*wheel, tmp_path / folder.name, cwd=folder)
        (file,) = (tmp_path / folder.name).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            (metadata,) = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
        wanted[folder] = re.findall("^Requires-Dist: .*$", metadata, re.MULTILINE)
        files[folder] = [name for name in names if name.endswith(".py")]
    assert wanted[project] == wanted[empty] != [] and files[empty] == []


SECRETS = [".env", ".env.local", "notes/.env", "service/credentials.json", "id_ed25519", "x/server.pem", ".netrc"]
RESULTS = ["runs/grid/status.json", "data/x.bin", "wandb/x", "sweeps/server.json", "fetched/x", ".venv/bin/python"]
RESULTS += ["lightning_hpc/__pycache__/x.pyc", "my.sif", "mlruns/x", "slurm-train-1.log", ".sent/x"]


def test_nothing_secret_and_no_results_enter_the_build_context(bake_to_edit, tmp_path):
    """By the rules of .dockerignore as Docker's client for Python reads them; the context is packed and unpacked."""
    project = bake_to_edit(deployment="docker-kubernetes")
    for name in [*SECRETS, *RESULTS, "runs.py", "notes/data/x.yaml"]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x\n")
    run("git", "config", "remote.origin.url", "https://me:password@example.org/x.git", cwd=project)

    patterns = (project / ".dockerignore").read_text().splitlines()
    names = exclude_paths(str(project), [line for line in patterns if line and not line.startswith("#")])
    files = {name for name in names if (project / name).is_file()}
    assert not files & {*SECRETS, *RESULTS}
    assert {"runs.py", "notes/data/x.yaml", ".env.example"} <= files
    assert set(run("git", "ls-files", cwd=project).splitlines()) <= files

    # In the image git still tells the commit, with nothing missing; and no address with a password is there.
    with tar(str(project), exclude=[line for line in patterns if line and not line.startswith("#")]) as packed:
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(tmp_path / "image", filter="data")
    image = tmp_path / "image"
    assert not (image / ".git" / "config").exists()
    (image / "runs.py").unlink()
    shutil.rmtree(image / "notes")
    version = read_version(image)
    assert version.commit == run("git", "rev-parse", "HEAD", cwd=project).strip()
    assert version.uncommitted_changes is False


def test_compose_reserves_gpus_waits_for_saves_and_its_commands_are_understood(bake):
    project = bake(deployment="docker")
    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["stop_grace_period"] == "5m" and service["user"].startswith("${HOST_USER"), name
        # A folder that is not there is an error: Docker would make it as root, and no run could write into it.
        assert {volume["target"] for volume in service["volumes"]} == {
            f"/project/{n}" for n in ("runs", "data", "sweeps")
        }
        assert not any(volume["bind"]["create_host_path"] for volume in service["volumes"])
    for name in ("train-gpu", "agent"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert "deploy" not in services["train"]

    server = services["sweep-server"]["command"].split()
    port = creation.read_arguments(server[2:]).serve.rpartition(":")[2]
    url = agent.read_arguments(services["agent"]["command"].split()[2:]).server
    assert url == f"http://sweep-server:{port}"
    assert f":{port}/healthz" in services["sweep-server"]["healthcheck"]["test"][-1]
    compile(services["sweep-server"]["healthcheck"]["test"][-1], "healthcheck", "exec")
    assert "ports" not in services["sweep-server"]


def test_docker_reads_the_compose_file(bake, tmp_path):
    if (
        subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
        if shutil.which("docker")
        else 1
    ):
        pytest.skip("there is no Docker Compose")
    run(
        "docker",
        "compose",
        "--profile",
        "gpu",
        "--profile",
        "sweep",
        "config",
        "--quiet",
        cwd=bake(deployment="docker"),
    )


def test_development_container_is_that_of_the_dockerfile(bake):
    project = bake(**ladder.UNUSUAL_TEXT, deployment="docker")
    settings = json.loads((project / ".devcontainer.json").read_text())
    assert (project / settings["build"]["context"] / settings["build"]["dockerfile"]).is_file()
    assert any(f" {settings['remoteUser']} " in f"{line} " and "useradd" in line for line in instructions(project))
    # `pip install --user` needs an environment that sees the user's own packages.
    assert "--user" in settings["postCreateCommand"]
    assert "RUN python -m venv --system-site-packages /opt/venv" in instructions(project)


def test_apptainer_only_converts(bake):
    project = bake(deployment="docker")
    lines = [line for line in (project / "apptainer.def").read_text().splitlines() if not line.startswith("#")]
    assert lines[:2] == ["Bootstrap: docker-archive", "From: my-research-project.tar"]
    assert [line for line in lines if line.startswith("%")] == ["%labels"]


@pytest.mark.slow
def test_the_image_builds_and_trains_as_a_user(bake, tmp_path):
    """Needs a Docker engine and PyTorch's index; never run on the machines that test the template."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("there is no Docker engine")
    project = bake(deployment="docker")
    run("docker", "build", "--tag", "template-test", "--build-arg", "VARIANT=cpu", ".", cwd=project)
    quick = ["python", "Train.py", "fit", "--trainer.fast_dev_run=true", "--cka=null"]
    run("docker", "run", "--rm", "--network=none", "template-test", *quick, cwd=project)
    assert run("docker", "run", "--rm", "template-test", "id", "-u", cwd=project) == "1000\n"
