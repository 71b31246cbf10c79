"""Train.py as a process of its own, for a Hub that needs no rest: python mirrored_run.py PROJECT fit …

SECONDS_A_STEP in the environment makes training slower, for a place that is slow.
"""

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    project, *arguments = sys.argv[1:]
    sys.path.insert(0, project)
    from lightning_hpc.entrance import train
    from lightning_hpc.remote.hub import Hub

    Hub.seconds_between_puts = 0.05

    if "SECONDS_A_STEP" in os.environ:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(lambda *_: time.sleep(float(os.environ["SECONDS_A_STEP"])))
    sys.exit(train(arguments, root=Path(project)))
