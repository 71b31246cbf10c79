"""Create a sweep: a search over settings, run by as many agents as you like.

Examples:

    python CreateSweep.py                        configs/sweeps/default.yaml, in Weights & Biases
    python CreateSweep.py my-grid.yaml --local   without W&B: the sweep is a folder in sweeps/
    python CreateSweep.py --help                 everything else
"""

import sys
from pathlib import Path

from {{ cookiecutter.package_name }}.launch.sweeps import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], root=Path(__file__).resolve().parent))
