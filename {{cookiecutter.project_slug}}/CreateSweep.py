"""Create a sweep: a search over settings, run by as many agents as you like.

Examples:

    python CreateSweep.py                        configs/sweeps/default.yaml, in Weights & Biases
    python CreateSweep.py my-grid.yaml --local   without W&B: the sweep is a folder in sweeps/
    python CreateSweep.py --help                 everything else
"""

import sys
from pathlib import Path

from lightning_hpc.entrance import create_sweep

if __name__ == "__main__":
    sys.exit(create_sweep(sys.argv[1:], root=Path(__file__).resolve().parent))
