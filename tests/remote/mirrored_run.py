"""Train.py as a process of its own, for a Hub that needs no rest: python mirrored_run.py PROJECT fit …"""

import sys
from pathlib import Path

if __name__ == "__main__":
    project, *arguments = sys.argv[1:]
    sys.path.insert(0, project)
    from lightning_hpc.entrance import train
    from lightning_hpc.remote.hub import Hub

    Hub.seconds_between_puts = 0.05
    sys.exit(train(arguments, root=Path(project)))
