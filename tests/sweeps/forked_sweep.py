"""`python forked_sweep.py PROJECT`: a local sweep of cross-validations, whose first agent has to leave.

All programs are forked from this process. Writes PROJECT/ends.json: what they end with, and what they print.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

root = Path(sys.argv[1])
sys.path[:0] = [str(root), str(Path(__file__).parents[1])]

import torch  # noqa: E402
import warm  # noqa: E402

from lightning_hpc import processes  # noqa: E402


def start(name: str, *arguments: str) -> warm.Forked:
    """A program of the project; what it prints goes to NAME.txt."""
    with Path(f"{name}.txt").open("wb") as output:
        return warm.Forked([sys.executable, *arguments], stdout=output)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm.warm_up(root)
    os.chdir(root)
    processes.subprocess = warm.stand_in
    created = start("created", "CreateSweep.py", "sweep.yaml", "--local").wait(600)

    agent, end = start("first", "SweepAgent.py", "sweeps/sweep"), time.monotonic() + 600
    while not [file for file in root.glob("runs/folds/*/status.json") if json.loads(file.read_text()).get("step")]:
        assert time.monotonic() < end and agent.poll() is None
        time.sleep(0.02)
    agent.send_signal(signal.SIGTERM)
    left = agent.wait(600)

    ended = start("second", "SweepAgent.py", "sweeps/sweep").wait(600)
    shown = start("status", "CreateSweep.py", "--status", "sweeps/sweep").wait(600)
    Path("ends.json").write_text(json.dumps([created, left, ended, shown]))
