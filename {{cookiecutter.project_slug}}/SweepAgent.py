"""Run trials of a sweep, one after another, until there are no more.

Examples:

    python SweepAgent.py team/project/x1y2z3            a sweep in Weights & Biases
    python SweepAgent.py sweeps/lr-width-dropout        a local one
    sbatch --array=1-8 slurm/sweep_agent.sbatch SWEEP   eight agents on a cluster
"""

import sys
from pathlib import Path

from lightning_hpc.entrance import sweep_agent

if __name__ == "__main__":
    sys.exit(sweep_agent(sys.argv[1:], root=Path(__file__).resolve().parent))
