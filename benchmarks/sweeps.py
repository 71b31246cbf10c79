"""What a local sweep costs beside the training: trials handed out per second, and seconds per trial.

    python benchmarks/sweeps.py                     a minute on 2 cores
    python benchmarks/sweeps.py --json docs/benchmarks/data/sweeps.json

Handing out: processes that take a trial, decide its parameters and write a result, with no run at all, on this
machine's file system. Overhead: an agent whose runs (tests/sweeps/objective.py) end at once, less the time of those
runs alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import this_machine, write_figures
from template_path import ROOT, use_template

WORKER = """
import sys
from pathlib import Path
from lightning_hpc.sweeps.local_sweep import LocalSweep
local = LocalSweep(Path(sys.argv[1]), Path(sys.argv[2]))
while claimed := local.claim(None):
    trial, _ = claimed
    overlay = local.choose(trial)["overlay"]
    trial.end(state="done", value=(overlay["x"] - 0.3) ** 2 + (overlay["y"] - 0.7) ** 2)
"""
BOX = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="of each case")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        use_template()
        os.environ["OMP_NUM_THREADS"] = "1"
        rows = [
            hand_out(Path(scratch), method, processes, options.trials)
            for method in ("random", "bayes")
            for processes in (1, 4, 16)
        ]
        rows.append(overhead(Path(scratch), 20))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        command = f"python benchmarks/sweeps.py --trials {options.trials}"
        write_figures(options.json, this_machine(), command, rows)


def project(folder: Path) -> Path:
    """A project with the quick Train.py of the tests."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "base.yaml").write_text("x: 0.0\ny: 0.0\nsteps: 1\npause: 0.0\n")
    shutil.copy(ROOT / "tests" / "sweeps" / "objective.py", folder / "Train.py")
    return folder


def create(root: Path, **config):
    """A local sweep in a project."""
    from lightning_hpc.sweeps.local_sweep import LocalSweep
    from lightning_hpc.sweeps.sweep_file import Sweep, read_specification

    content = dict(metric={"name": "loss", "goal": "minimize"}, parameters=BOX, **config)
    return LocalSweep.create(Sweep(read_specification(content, "bowl"), root / "bowl.yaml"), root)


def hand_out(scratch: Path, method: str, processes: int, trials: int) -> dict[str, object]:
    """Trials per second that processes take, decide and end."""
    root = project(scratch / f"{method}-{processes}")
    local = create(root, method=method, run_cap=trials)
    command = [sys.executable, "-c", WORKER, str(local.folder), str(root)]
    start = time.monotonic()
    workers = [subprocess.Popen(command) for _ in range(processes)]
    codes = [worker.wait() for worker in workers]
    seconds = time.monotonic() - start
    ended = sum(bool(trial.result) for trial in local.trials())
    assert set(codes) == {0} and ended == trials, (codes, ended)
    return {"case": f"{method}, {processes} agents", "trials": trials, "trials/s": round(trials / seconds, 1)}


def overhead(scratch: Path, trials: int) -> dict[str, object]:
    """Seconds that an agent adds to each trial."""
    root = project(scratch / "overhead")
    local = create(root, method="random", run_cap=trials)
    agent = "import sys; from pathlib import Path; from lightning_hpc.entrance import sweep_agent as main; "
    agent += "sys.exit(main([sys.argv[1]], Path(sys.argv[2])))"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", agent, str(local.folder), str(root)], check=True, stdout=subprocess.DEVNULL)
    with_agent = time.monotonic() - start
    start = time.monotonic()
    for number in range(trials):
        command = [sys.executable, str(root / "Train.py"), "fit", "--name=alone", f"--x={number}"]
        subprocess.run(command, check=True, cwd=root)
    alone = time.monotonic() - start
    return {"case": "overhead of an agent", "trials": trials, "ms/trial": round(1000 * (with_agent - alone) / trials)}


if __name__ == "__main__":
    main()
