"""A run that is killed by SIGKILL again and again, and continued in an empty folder: only a server is in common."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from same import unequal

from lightning_hpc.files import read_json

KILLS = 3
FIRST_CHECKPOINT = r"^PUT /(lfs/|artifact-files/|.*/checkpoints/step-)"
TRAINING = (
    "--trainer.max_epochs=4", "--trainer.limit_train_batches=6", "--trainer.limit_val_batches=2",
    "--trainer.accelerator=cpu", "--cka=null", "--checkpoints.every_n_steps=2",
)  # fmt: skip
PROGRAM = Path(__file__).with_name("mirrored_run.py")


@pytest.fixture(scope="module")
def undisturbed(project, tmp_path_factory) -> Path:
    """The folder of the run that nobody has killed, and that had no mirror."""
    runs = tmp_path_factory.mktemp("undisturbed")
    assert started(project, runs).wait(600) == 0
    return only_run(runs)


def started(project: Path, runs: Path, *arguments: str) -> subprocess.Popen:
    """`Train.py fit` with its runs in a folder."""
    command = [sys.executable, PROGRAM, project, "fit", *TRAINING, f"--runs_dir={runs}", *arguments]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


def only_run(runs: Path) -> Path:
    (file,) = runs.glob("*/*/status.json")
    return file.parent


def same_weights(one: Path, other: Path) -> None:
    import torch

    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "epoch"):
        assert not list(unequal(first[key], second[key], key))


def killer_of_requests(place, process: subprocess.Popen, number: int, dropped: bool) -> Callable[[], None]:
    """Kill the process at a request of some number, which the server then has got or not; returns what ends that.

    It is counted from when the first checkpoint of this attempt goes up; on the Hub the pointer is the seventh from it.
    """
    left = [number]

    def watch(request: str) -> bool:
        if left[0] < number or re.search(FIRST_CHECKPOINT, request):
            left[0] -= 1
        if left[0] == 0:
            process.send_signal(signal.SIGKILL)
            return dropped
        return False

    place.proxy.watch = watch
    return lambda: setattr(place.proxy, "watch", lambda request: False)


def killer_of_names(place, process: subprocess.Popen, number: int, dropped: bool) -> Callable[[], None]:
    """Kill the process once so many new names have been seen on the host, parts of files among them."""
    seen, over = set(place.folder.rglob("*")), threading.Event()
    before = len(seen)

    def look() -> None:
        while not over.wait(0.002):
            seen.update(place.folder.rglob("*"))
            if len(seen) - before >= number:
                process.send_signal(signal.SIGKILL)
                return

    thread = threading.Thread(target=look)
    thread.start()
    return lambda: (over.set(), thread.join())


@pytest.mark.slow
@pytest.mark.parametrize("kind, most", [("s3", 30), ("hub", 21), ("sftp", 60), ("wandb", 210)])
def test_a_run_that_moves_between_machines_is_the_same_to_the_bit(
    make_place, project, undisturbed, tmp_path, monkeypatch, kind, most
):
    place = make_place(kind)
    if kind == "wandb":  # its client takes longer to start than this training
        monkeypatch.setenv("SECONDS_A_STEP", "0.4")
    mirror = (f"--mirror.url={place.url}", "--mirror.every_n_minutes=0.0001")
    killer = killer_of_names if kind == "sftp" else killer_of_requests
    chance, steps, codes = random.Random(15), [0], []
    for attempt in range(KILLS):
        process = started(project, tmp_path / f"machine-{attempt}", *mirror)
        spare = killer(place, process, chance.randrange(most // 3, most), dropped=bool(attempt % 2))
        codes.append(process.wait(600))
        spare()
        steps.append(step_there(place, tmp_path))
    last = started(project, tmp_path / "last", *mirror)
    assert last.wait(600) == 0

    assert -signal.SIGKILL in codes and set(codes) <= {-signal.SIGKILL, 0}, codes
    assert steps == sorted(steps) and steps[-1] > 0, steps  # never back, and never anew
    run = only_run(tmp_path / "last")
    same_weights(undisturbed, run)
    assert read_json(run / "status.json")["state"] == "done"
    print(kind, codes, steps)


def step_there(place, tmp_path: Path) -> int:
    """The step that the mirror's pointer names; 0: there is none yet."""
    store = place.open()
    pointers = [name for name in store.list("") if name.endswith("/latest.json")]
    if not pointers:
        return 0
    target = tmp_path / f"pointer-{time.monotonic_ns()}"
    store.get(pointers[0], target)
    checkpoints = read_json(target).get("checkpoints") or []
    return max((checkpoint["step"] for checkpoint in checkpoints), default=0)
