"""Look into runs that were trained.

Examples:

    python Report.py cka RUN                 the layers of a run's best checkpoint, with each other
    python Report.py cka RUN_A RUN_B         the layers of two runs, or of two checkpoints, with each other
    python Report.py cross-validation FOLDER the means of the folds in an experiment's folder
    python Report.py table                   all runs, with what differs between them and their metrics
    python Report.py table --latex a.tex     the same for a paper, each number with the runs it comes from
    python Report.py verify a.tex            whether these numbers still hold
    python Report.py compare RUN_A RUN_B     two runs or more side by side: settings, metrics, curves, code, environment
    python Report.py html                    all runs as one file for a browser, which can be mailed
    python Report.py serve                   the same from this machine, fresh at each reload
    python Report.py rsync HOST:FOLDER       the line that fetches results from another machine, without checkpoints
"""

import sys
from pathlib import Path

from lightning_hpc.entrance import report

if __name__ == "__main__":
    sys.exit(report(sys.argv[1:], root=Path(__file__).resolve().parent))
