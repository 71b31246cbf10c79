"""Programs put before SLURM's own that answer as they are told: the real ones can't be made to fail on demand."""

import os
from pathlib import Path

import pytest

PROGRAM = """\
#!/bin/sh
echo "$*" >> {folder}/{name}.calls
env > {folder}/{name}.env
answer={folder}/{name}.$(wc -l < {folder}/{name}.calls)
[ -f "$answer" ] || answer={folder}/{name}.last
code=$(head -n 1 "$answer")
if [ "$code" = 0 ]; then tail -n +2 "$answer"; else tail -n +2 "$answer" >&2; fi
exit "$code"
"""


class ToldSlurm:
    """sbatch, squeue and the other commands of SLURM, first on PATH.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scontrol", "scancel", "sacct", "sinfo", "sacctmgr"):
            (folder / name).write_text(PROGRAM.format(folder=folder, name=name))
            (folder / name).chmod(0o755)
            self.says(name, "")

    def says(self, name: str, *answers: str) -> None:
        """Set a program's answers, one for each call; the last one is repeated. One that begins with `error:` fails."""
        for old in self.folder.glob(f"{name}.*"):
            old.unlink()
        for number, answer in enumerate(answers, 1):
            code = int(answer.startswith("error:"))
            text = f"{code}\n{answer.removeprefix('error:').strip(' ')}\n"
            (self.folder / f"{name}.{number}").write_text(text)
        (self.folder / f"{name}.last").write_text(text)

    def calls(self, name: str) -> list[str]:
        """The command lines of a program so far."""
        file = self.folder / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def environment(self, name: str) -> str:
        """The variables of its last call."""
        return (self.folder / f"{name}.env").read_text()


def line(job: str, task: str, state: str, batch: str, reason: str = "None", own: str = "", depends: str = "") -> str:
    """A line of squeue, as scheduler/jobs.py asks for it."""
    return f"@|{job}|{task}|{state}|{reason}|{own or job}|{os.getuid()}|main|{depends}|{batch}"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """SLURM's commands, which answer as they are told, at once where they are asked again."""
    folder = tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    from lightning_hpc.scheduler import commands

    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    return ToldSlurm(folder)
