"""A run of this project that is killed again and again ends equal to the bit to one that is not.

It trains the model and data of configs/base.yaml, so it holds for yours, with the versions that you have installed.
Should it fail after a change of yours: the template's docs/exact-resume.md lists what can't be resumed exactly.
"""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "fit --trainer.accelerator=cpu --trainer.max_epochs=3 --trainer.limit_train_batches=8 "
    "--trainer.limit_val_batches=3 --trainer.log_every_n_steps=1 --trainer.accumulate_grad_batches=3 "
    "--checkpoints.every_n_steps=2 --cka=null"
).split()
# The signal, and after which share of a whole training's Python calls it comes: in a step, a validation or a save.
KILLS = [
    (signal.SIGKILL, 0.3),
    (signal.SIGTERM, 0.25),
    (signal.SIGUSR1, 0.2),
    (signal.SIGKILL, 0.3),
    (signal.SIGINT, 0.1),
]
ENDS = [(-9, "running"), (75, "preempted"), (76, "time limit"), (-9, "running"), (130, "interrupted"), (0, "done")]


def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    subprocess.run([sys.executable, __file__, tmp_path], check=True, timeout=900)
    whole, killed = (next((tmp_path / name).glob("runs/*/*/status.json")).parent for name in ("whole", "killed"))
    ends = json.loads((tmp_path / "ends.json").read_text())
    assert [(code, state) for code, state, _ in ends] == ENDS
    steps = [step for *_, step in ends]  # of the newest checkpoint after each attempt
    assert steps == sorted(steps) and 0 < steps[1] < steps[-2] < steps[-1], steps
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, killed))
        assert same(one, other), name
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (whole, killed)]
    for row in (*rows[0], *rows[1]):
        for name in [name for name in row if name == "seconds" or name.startswith(("time/", "memory/", "usage/"))]:
            del row[name]
    assert rows[0] == rows[1]


def same(one: object, other: object) -> bool:
    """Whether two nested structures are equal to the bit; a NaN equals itself."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def attempt(folder: Path, kill: tuple[int, int] | None) -> int:
    """Start the run in a forked process that sends itself a signal at its n-th Python call; returns the exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    from lightning_hpc.entrance import train as main
    from lightning_hpc.survive.exact_resume import ExactResume

    on_train_start, calls = ExactResume.on_train_start, 0

    def count(*event: object) -> None:
        nonlocal calls
        calls += 1
        if kill is not None and calls == kill[1]:
            os.kill(os.getpid(), kill[0])

    def count_from_here(*arguments: object) -> None:
        on_train_start(*arguments)
        os.register_at_fork(after_in_child=lambda: sys.setprofile(None))  # not in DataLoader workers
        sys.setprofile(count)

    ExactResume.on_train_start = count_from_here
    code = 1
    try:
        os.chdir(folder)
        code = main([*SETTINGS, "--runs_dir=runs"], root=ROOT)
    finally:
        sys.setprofile(None)
        (folder / "calls").write_text(str(calls))
        os._exit(code)


if __name__ == "__main__":
    # Attempts are forked from this process, so that torch is imported once; pytest's own has threads, which don't fork.
    sys.path.insert(0, str(ROOT))
    import lightning_hpc.survive.checkpoints  # noqa: F401

    torch.set_num_threads(1)
    scratch = Path(sys.argv[1])
    for name in ("whole", "killed"):
        (scratch / name).mkdir()
    assert attempt(scratch / "whole", None) == 0
    calls = int((scratch / "whole" / "calls").read_text())
    ends = []
    for kill in (*KILLS, None):
        code = attempt(scratch / "killed", kill and (kill[0], int(kill[1] * calls)))
        status = json.loads(next((scratch / "killed").glob("runs/*/*/status.json")).read_text())
        ends.append((code, status["state"], status.get("step", 0)))
    (scratch / "ends.json").write_text(json.dumps(ends))
