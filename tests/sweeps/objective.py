"""A Train.py that trains nothing: an objective with steps, checkpoints, signals and a run folder, in little time.

Settings: x, y (the objective is a bowl around 0.3, 0.7), steps, pause (seconds a step), crash (step), stuck (at exit).
"""

import os
import signal
import sys
import time
from pathlib import Path

from lightning_hpc.files import write_atomically
from lightning_hpc.runs.run import read_command_line

ROOT = Path(__file__).resolve().parent


def main() -> int:
    received = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: received.append(number))
    wanted = read_command_line("fit", sys.argv[2:], ROOT)
    settings, folder = wanted.settings.flat, wanted.folder
    if folder.status().get("state") == "done":
        return 0
    with folder.locked():
        folder.start(identity=wanted.identity)
        with (folder.path / "attempts.txt").open("a") as log:
            log.write(f"{os.getpid()}\n")
        checkpoint = folder.path / "checkpoint.txt"
        step = int(checkpoint.read_text()) if checkpoint.exists() else 0
        while step < settings["steps"]:
            if received:
                return folder.end("preempted" if received[0] == signal.SIGTERM else "time limit")
            if step == settings.get("crash"):
                return folder.end("failed", "ValueError: the run has a fault")
            time.sleep(settings["pause"])
            step += 1
            value = (settings["x"] - 0.3) ** 2 + (settings["y"] - 0.7) ** 2 + 1 / step
            rows = (folder.path / "metrics.csv").read_text() if step > 1 else "step,loss\n"
            rows = "".join(rows.splitlines(keepends=True)[:step])  # a killed attempt may have written one more
            write_atomically(folder.path / "metrics.csv", f"{rows}{step},{value!r}\n")
            write_atomically(checkpoint, str(step))
        folder.end("done")
    if settings.get("stuck"):
        time.sleep(1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
