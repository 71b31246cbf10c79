"""Start many runs on a SLURM cluster, watch them, and continue what is left.

Examples:

    python SlurmTrain.py plan configs/jobs/grid.yaml             what would run
    python SlurmTrain.py submit configs/jobs/grid.yaml           all of it as one array; shows the cost and asks
    python SlurmTrain.py status runs/grid                        how each run stands
    python SlurmTrain.py retry runs/grid                         continue what is not done
    python SlurmTrain.py submit configs/jobs/grid.yaml --on HOST:FOLDER     from a laptop, through ssh
"""

import sys
from pathlib import Path

from lightning_hpc.entrance import slurm_train

if __name__ == "__main__":
    sys.exit(slurm_train(sys.argv[1:], root=Path(__file__).resolve().parent))
