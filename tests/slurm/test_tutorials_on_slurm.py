"""The tutorials on HEC and Bede, typed command by command on a SLURM with the partitions, GPUs and rules of each.

What is typed is read from the pages. There are fewer runs, and short ones on the CPU; the first look is at all hundred.
"""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from page_blocks import blocks, commands, named_file
from private_slurm import PrivateSlurm
from sites import site
from submitted import Experiment, Project

pytestmark = pytest.mark.slow

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
# In the specification, once something is to be trained.
FEWER = {
    "[trainer/gpu.yaml]": "[trainer/gpu.yaml, few.yaml]",
    "[16, 32, 64, 128]": "[16, 32]",
    "num: 5": "num: 2",
    "repeat: 5": "repeat: 1",
}
FEW = {
    "cka": None,
    "trainer": {"max_epochs": 1, "limit_train_batches": 5, "accelerator": "cpu"},
    "data": {"init_args": {"num_workers": 0}},
}
# What the pages name in their text and this machine lacks. No block of theirs has it.
NOT_HERE = {
    "module": "a function of HEC's shells, which the preset calls; here it does nothing",
    "source activate": "conda: tests/template/test_environments.py solves the environments",
    "ghlogin": "opens a shell on Bede's other login nodes",
}
LOGIN = "me@wayland-2022.hec.lancaster.ac.uk"


@pytest.fixture(params=["hec", "bede-gh"])
def cluster(request, project, slurm, tmp_path) -> Iterator[Project]:
    """The project, as a user of that cluster has it."""
    mine = project.with_train(tmp_path / "project", (project.folder / "Train.py").read_text())
    preset = yaml.safe_load((mine.folder / "configs" / "clusters" / f"{request.param}.yaml").read_text())
    (mine.folder / "configs" / "few.yaml").write_text(yaml.safe_dump(FEW))
    with PrivateSlurm(**site(preset)) as there:
        for name in ("WANDB_MODE", "OMP_NUM_THREADS", "HOME"):
            there.environment[name] = slurm.environment[name]
        there.environment.pop("PYTHONPATH", None)
        there.environment["BASH_FUNC_module%%"] = "() { :; }"
        mine.slurm = there
        yield mine


class User:
    """Somebody at a terminal, who says yes."""

    def __init__(self, project: Project, page: str) -> None:
        self.project, self.shown = project, blocks((TUTORIALS / page).read_text(encoding="utf-8"))
        self.written = [name for _, content in self.shown if (name := named_file(content))]
        for _, content in self.shown:
            if name := named_file(content):
                (project.folder / name).write_text(content)

    def commands(self) -> list[tuple[list[str], str]]:
        """All commands of the page in their order, each with the line below it."""
        found = [command for _, content in self.shown for command in commands(content)]
        lines = [line for language, content in self.shown if language != "yaml" for line in content.splitlines()]
        typed = [line for line in lines if line.removeprefix("$ ").startswith("python ")]
        assert len(typed) == len(found), "a command of the page would not be typed"
        return found

    def shrink(self) -> None:
        """Ask for fewer runs from here on."""
        for name in self.written:
            file = self.project.folder / name
            for many, few in FEWER.items():
                assert many in file.read_text()
                file.write_text(file.read_text().replace(many, few))

    def types(self, *words: str) -> str:
        """Type a command at a terminal, and y if it asks; returns what it prints."""
        user, terminal = pty.openpty()
        try:
            os.write(user, b"y\n")
            done = subprocess.run(
                [sys.executable, *words],
                cwd=self.project.folder,
                env=self.project.slurm.environment,
                stdin=terminal,
                capture_output=True,
                text=True,
            )
        finally:
            os.close(user)
            os.close(terminal)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def plan_and_look(user: User, typed: list[tuple[list[str], str]]) -> None:
    """The first two commands of both pages: all hundred runs, as the page shows it, and nothing is submitted."""
    (plan, said), (look, _) = typed
    assert "plan" in plan and said in user.types(*plan).splitlines()
    assert "--dry-run" in look and "100 runs" in user.types(*look)
    assert not user.project.slurm.sbatch_calls()


def watch(user: User, experiment: Experiment, typed: list[tuple[list[str], str]]) -> None:
    """The other commands, once the runs have had time: all are done, and none is to be tried again."""
    experiment.wait_states(*["done"] * 4)
    for words, _ in typed:
        said = user.types(*words)
        assert ("nothing to submit again" if "retry" in words else "4 done") in said, said


@pytest.mark.parametrize("cluster", ["hec"], indirect=True)
def test_a_hundred_runs_on_hec(cluster, sshd):
    user = User(cluster, "hundred-runs-hec.md")
    *looks, (submit, _), status, why, retry, (rsync, _), (html, _) = user.commands()
    plan_and_look(user, looks)
    for option in (["--slice", "30:00"], ["--pack", "4"]):  # if the queue is long
        assert "100 runs" in user.types(*looks[1][0], *option)

    user.shrink()
    said = user.types(*submit)
    assert "hec, gpu-short: 4 runs × 1 GPU" in said
    hundred = cluster.experiment("hundred")
    job = cluster.slurm.job(f"{hundred.job}_1")
    assert job["Partition"] == "gpu-short" and job["TresPerNode"] == "gres:gpu:tesla_v100-pcie-32gb:1"
    assert [call.split()[0] for call in cluster.slurm.sbatch_calls()].count("--parsable") == 2  # the canary, the others
    watch(user, hundred, [status, why, retry])

    # The laptop's ssh knows this host by another name.
    cluster.slurm.environment["PATH"] = f"{sshd.folder}/bin:{cluster.slurm.environment['PATH']}"
    here = [word.replace(f"{LOGIN}:storage/my-research-project", f"there:{cluster.folder}") for word in rsync]
    assert here != rsync and "fetched" in user.types(*here)
    page = [word.replace(LOGIN, "there") for word in html]
    assert page != html and "4 runs" in user.types(*page)
    table = json.loads(user.types("Report.py", "table", *page[2:], "--json"))
    assert len(table) == 4 and not list((cluster.folder / "fetched").rglob("*.ckpt"))


@pytest.mark.parametrize("cluster", ["bede-gh"], indirect=True)
def test_a_hundred_runs_on_bede(cluster):
    user = User(cluster, "hundred-runs-bede.md")
    *looks, (submit, _), status, retry, (packed, _) = user.commands()
    plan_and_look(user, looks)

    # As the page says: once for the project.
    file = cluster.folder / "configs" / "slurm.yaml"
    file.write_text(file.read_text().replace("cluster: generic", "cluster: bede-gh\naccount: bdxyz01"))
    user.shrink()
    spec = cluster.folder / user.written[0]
    spec.write_text(spec.read_text().replace("account: bdxyz01, ", ""))

    assert "bede-gh, gh: 4 runs × 1 GPU" in user.types(*submit)
    bede = cluster.experiment("bede")
    job = cluster.slurm.job(f"{bede.job}_1")
    assert (job["Partition"], job["Account"], job["TresPerNode"]) == ("gh", "bdxyz01", "gres:gpu:1")
    watch(user, bede, [status, retry])

    # What runs side by side is asked for instead of the above.
    weights = {run: (bede.run(run) / "fingerprints.jsonl").read_text() for run in range(4)}
    shutil.rmtree(bede.folder)
    assert "4 runs, 8 runs per job: 1 job × 1 GPU" in user.types(*packed)
    watch(user, bede, [status])
    assert {run: (bede.run(run) / "fingerprints.jsonl").read_text() for run in range(4)} == weights

    # This SLURM refuses what Bede refuses.
    for options in (["--gres=gpu:1"], ["--account=bdxyz01", "--gres=gpu:1", "--mem=8G"]):
        refused = cluster.slurm.run("sbatch", *options, "--wrap=true", check=False)
        assert not refused


def test_what_is_not_here_is_in_no_block():
    for page in TUTORIALS.glob("hundred-runs-*.md"):
        for _, content in blocks(page.read_text(encoding="utf-8")):
            assert not any(line.startswith(tuple(NOT_HERE)) for line in content.splitlines())
