"""Train, validate, test or predict: one run.

Examples:

    python Train.py fit                                          the defaults of configs/base.yaml
    python Train.py fit --name tuning --model.optimizer.lr 1e-3  change anything by its key
    python Train.py fit --config configs/trainer/gpu.yaml        add a file of settings
    python Train.py test                                         test that run's best checkpoint
"""

import sys
from pathlib import Path

from lightning_hpc.entrance import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:], root=Path(__file__).resolve().parent))
