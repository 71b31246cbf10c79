"""`python forked.py PROJECT FOLDER SETTING…`: crossvalidate in a folder, with folds that are forked and not started."""

import os
import sys
from pathlib import Path

project, scratch, *settings = sys.argv[1:]
sys.path[:0] = [project, str(Path(__file__).parents[1])]

import torch  # noqa: E402
import warm  # noqa: E402

from lightning_hpc import processes  # noqa: E402

torch.set_num_threads(1)

COMMAND = [sys.executable, str(Path(project, "Train.py")), "crossvalidate", "--runs_dir=runs", *settings]

if __name__ == "__main__":
    warm.warm_up(project)
    os.chdir(scratch)
    processes.subprocess = warm.stand_in
    sys.exit(warm.run(COMMAND[1:]))
