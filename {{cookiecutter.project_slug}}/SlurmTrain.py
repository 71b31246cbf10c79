"""Start many runs on a SLURM cluster, watch them, and go on with what is left.

Examples:

    python SlurmTrain.py plan configs/jobs/grid.yaml             what would run
    python SlurmTrain.py submit configs/jobs/grid.yaml           all of it as one array; shows the cost and asks
    python SlurmTrain.py status runs/grid                        how each run stands
    python SlurmTrain.py retry runs/grid                         what is not done goes on where it was
"""

import sys
from pathlib import Path

from {{ cookiecutter.package_name }}.launch.slurm import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], root=Path(__file__).resolve().parent))
