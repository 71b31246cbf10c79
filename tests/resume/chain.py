"""Kill chains: a run is killed again and again, at moments drawn from a seed, and compared with one that never was."""

import contextlib
import csv
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from same import unequal

HERE = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
EXIT_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, signal.SIGUSR1: 76, signal.SIGINT: 130}


class Server:
    """A process that has imported torch, from which attempts are forked: an attempt costs 0.5 s instead of 8."""

    def __init__(self, program: Path = HERE / "victim.py") -> None:
        self.process = subprocess.Popen(
            [sys.executable, program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def attempt(
        self,
        folder: Path,
        setup: Any,
        kill: Any = None,
        victim: int = 0,
        count: bool = False,
        grace: float = 2.0,
        limit: float = 300.0,
    ) -> list[int]:
        """One attempt at the run in this folder; returns the exit code of each rank (−signal if killed by one)."""
        request = dict(folder=str(folder), setup=asdict(setup), kill=kill, victim=victim, count=count)
        request |= dict(port=free_port(), grace=grace, limit=limit)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.hung = answer["hung"]
        return answer["codes"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


def free_port() -> int:
    """A free port below those that the system gives to outgoing connections, which could take it in the meantime."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Chain:
    """What a chain did."""

    kills: list[tuple[str, str, int]] = field(default_factory=list)  # signal, phase, number of calls before it
    attempts: int = 0
    hangs: int = 0  # attempts that had to be killed after the time limit
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0  # per attempt
    repeated: int = 0  # batches that were trained on more than once


def run_chain(
    server: Server,
    setup: Any,
    folder: Path,
    seed: int,
    kills: int,
    phases: tuple[str, ...] = ("run",),
    limit: float = 300.0,
) -> Chain:
    """Run once without a kill, then again with `kills` kills, and compare.

    Args:
        server: forks the attempts.
        setup: how to train, victim.Setup.
        folder: empty; gets `whole` and `killed`.
        seed: draws signals, moments and ranks, so that a chain can be repeated.
        kills: number of kills; fewer if the run ends before.
        phases: where kills fall: run (anywhere), validation, save.
        limit: seconds after which an attempt hangs.
    """
    draw, chain = random.Random(f"{seed} {setup}"), Chain()
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir(parents=True)
    killed.mkdir()
    assert set(server.attempt(whole, setup, count=True)) == {0}, f"the run that is not killed failed: {whole}.log"
    calls = [json.loads((whole / f"calls-{rank}.json").read_text()) for rank in range(setup.ranks)]
    started = time.monotonic()
    while True:
        chain.attempts += 1
        kill, victim = None, 0
        if len(chain.kills) < kills:
            victim = draw.randrange(setup.ranks)
            phase = draw.choice([phase for phase in phases if calls[victim][phase]])
            number = draw.choice(SIGNALS)
            moment = draw.randrange(1, max(2, int(1.5 * calls[victim][phase] / max(kills, 4))))
            kill = (int(number), moment, phase)
        codes = server.attempt(killed, setup, kill, victim, limit=limit)
        chain.hangs += server.hung
        if set(codes) == {0}:
            break
        if kill is None:
            chain.differences.append(f"it could not go on: exit codes {codes}, see {killed}.log")
            return chain
        if not setup.stock:
            assert codes[victim] == EXIT_CODES[number], f"{number!r} at call {moment} of {phase}: {codes}: {killed}.log"
        chain.kills.append((number.name, phase, moment))
    chain.seconds = (time.monotonic() - started) / chain.attempts
    chain.repeated = (killed / "batches").stat().st_size - (whole / "batches").stat().st_size
    chain.differences = list(differences(whole, killed))
    return chain


def read(checkpoint: Path) -> Any:
    """All that a checkpoint holds; of one that is a folder, by the names of the files in it."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    if checkpoint.is_file():
        return torch.load(checkpoint, map_location="cpu", weights_only=False)

    content = {file.name: torch.load(file, weights_only=False) for file in checkpoint.rglob("*.pt")}
    if (checkpoint / ".metadata").exists():  # the parts of all ranks
        dcp_to_torch_save(checkpoint, checkpoint.parent / "sharded.pt")
        content["sharded"] = torch.load(checkpoint.parent / "sharded.pt", weights_only=False)
    return content


def differences(whole: Path, killed: Path) -> Iterator[str]:
    """Where two runs differ, to the bit: checkpoints with all they hold, and every row of metrics.csv."""
    for name in ("last.ckpt", "best.ckpt"):
        one, other = whole / "checkpoints" / name, killed / "checkpoints" / name
        if one.exists() != other.exists():
            yield f"{name} is missing"
        elif one.exists():
            yield from unequal(read(one), read(other), name)
    tables = [rows_without_times(folder / "metrics.csv") for folder in (whole, killed)]
    if tables[0] != tables[1]:
        rows = sum(one != other for one, other in zip(*tables, strict=False))
        yield f"metrics.csv: {rows} rows differ, {len(tables[0])} and {len(tables[1])} rows"


def rows_without_times(file: Path) -> list[list[str]]:
    """The rows of metrics.csv, header included, without the column `seconds`: only that tells of an interruption."""
    rows = list(csv.reader(file.open()))
    kept = [number for number, name in enumerate(rows[0]) if name != "seconds"]
    return [[row[number] for number in kept] for row in rows]
