"""A project here, a folder for it on the host `there`, and a SLURM there that answers as it is told."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from told_slurm import ToldSlurm

THERE = 'Zoë\'s 100% §1 "there"'  # what shells stumble over


class Laptop:
    """What somebody types in a project here.

    Attributes:
        folder: the project's folder here.
        there: the project's folder on the host.
        slurm: SLURM's commands there.
        sshd: the host.
    """

    def __init__(self, folder, there, slurm, sshd, capsys):
        self.folder, self.there, self.slurm, self.sshd, self.capsys = folder, there, slurm, sshd, capsys

    def describe(self, **changes):
        """Write configs/hosts/private.yaml."""
        path = f"{self.slurm.folder}:{Path(sys.executable).parent}"
        host = {"host": "there", "folder": str(self.there), "activate": f"PATH={shlex.quote(path)}:$PATH", **changes}
        file = self.folder / "configs" / "hosts" / "private.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump({key: value for key, value in host.items() if value is not None}))

    def types(self, door, *words):
        """Run a command in this process; returns exit code, output and errors."""
        from lightning_hpc import entrance

        code = getattr(entrance, door)([str(word) for word in words], root=self.folder)
        told = self.capsys.readouterr()
        return code, told.out, told.err

    def slurm_train(self, *words, on="private"):
        return self.types("slurm_train", *words, "--on", on)

    def submit(self, *words):
        """Submit two runs on the host."""
        file = self.folder / "configs" / "jobs" / "study.yaml"
        file.write_text("name: study\nparameters: {trial: [0, 1]}\n")
        return self.slurm_train("submit", file, "--yes", "--no-check", *words)


@pytest.fixture
def laptop(project, sshd, tmp_path, monkeypatch, capsys):
    folder, there = tmp_path / "laptop", tmp_path / "host" / THERE
    subprocess.run(["git", "clone", "-q", str(project), str(folder)], check=True)
    there.mkdir(parents=True)
    (tmp_path / "told").mkdir()
    slurm = ToldSlurm(tmp_path / "told")
    slurm.says("sbatch", "42")
    monkeypatch.setenv("PATH", sshd.environment["PATH"])
    monkeypatch.chdir(folder)
    sshd.forget_connections()
    laptop = Laptop(folder, there, slurm, sshd, capsys)
    laptop.describe()
    capsys.readouterr()
    yield laptop
    shutil.rmtree(tmp_path / "host")
