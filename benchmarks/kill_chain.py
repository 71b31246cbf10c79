"""Kill a small run again and again and compare it to the bit with one that never was; stock Lightning beside it.

    python benchmarks/kill_chain.py                              100 kills of each, about 5 minutes on 2 cores
    python benchmarks/kill_chain.py --kills 20 --json out.json

Each chain is one run with settings of its own (workers, ranks, accumulation, weight averaging, schedulers, …), killed
about eight times: SIGKILL, SIGTERM or SIGUSR1, which the process gets at a Python call drawn from a seed; a third of
them in a validation, a third while a checkpoint is written. Lightning has the same settings and the same kills, with
what it offers: seed_everything(workers=True), ModelCheckpoint(save_last=True) as often, ckpt_path=last.ckpt.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"  # where lightning_hpc is
KILLS_PER_CHAIN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind of run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.path[:0] = [str(PROJECT), str(ROOT / "tests" / "resume")]
        os.environ |= dict(PYTHONPATH=str(PROJECT), OMP_NUM_THREADS="1", PYTHONPYCACHEPREFIX=scratch)
        sys.pycache_prefix = scratch  # compiled files in the template's folder would be copied into projects
        figures = {
            "this template": measure(False, options, Path(scratch)),
            "stock Lightning": measure(True, options, Path(scratch)),
        }

    rows = []
    for label in figures["this template"]:
        row = {name: values[label] for name, values in figures.items()}
        rows.append({"": label, **row})

    print(" " * 38 + "".join(f"{name:>17}" for name in figures))
    for row in rows:
        label, *values = row.values()
        print(f"{label:<38}" + "".join(f"{value:>17}" for value in values))
    if options.json:
        import torch

        machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}"
        command = f"python benchmarks/kill_chain.py --kills {options.kills} --seed {options.seed}"
        record = dict(machine=machine, date=str(date.today()), command=command, rows=rows)
        options.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def measure(stock: bool, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Chains until there were enough kills, and what they did to the runs."""
    from chain import Server, run_chain
    from victim import Setup

    setups = [
        Setup(),
        Setup(workers=2, accumulate=3, clip=0.5, validations=0.5, schedulers="plateau", averaging="averaged"),
        Setup(schedulers="step", averaging="averaged", max_steps=25),
        Setup(workers=2, persistent=True, schedulers="epoch", sampler="weighted"),
        Setup(ranks=2, accumulate=3, validations=0.5, averaging="averaged"),
        Setup(limit=1, epochs=12, schedulers="plateau"),
        Setup(accumulate=3, schedulers="step", clip=0.5, sampler="batches"),
        Setup(ranks=2, schedulers="plateau", clip=0.5, sampler="two"),
    ]
    server, chains = Server(), []
    while (left := options.kills - sum(len(chain.kills) for chain in chains)) > 0:
        number = len(chains)
        setup = replace(setups[number % len(setups)], stock=stock, save_every=3)
        folder = scratch / f"{'stock' if stock else 'exact'}-{number}"
        chain = run_chain(
            server, setup, folder, options.seed + number, min(left, KILLS_PER_CHAIN), ("run", "validation", "save")
        )
        chains.append(chain)
        print(f"{folder.name}: {len(chain.kills)} kills, {len(chain.differences)} differences", file=sys.stderr)
    server.close()

    kills = sum(len(chain.kills) for chain in chains)
    differences = [difference for chain in chains for difference in chain.differences]
    return {
        "runs": len(chains),
        "kills": kills,
        "restarts": sum(chain.attempts - 1 for chain in chains),
        "attempts that hung": sum(chain.hangs for chain in chains),
        "runs that differ at the end": sum(bool(chain.differences) for chain in chains),
        "  … in their weights": sum(any("state_dict" in d for d in chain.differences) for chain in chains),
        "  … in metrics.csv": sum(any("metrics.csv" in d for d in chain.differences) for chain in chains),
        "differences (tensors, counters, rows)": len(differences),
        "batches repeated per kill": round(sum(chain.repeated for chain in chains) / kills, 1),
        "seconds per attempt": round(sum(chain.seconds for chain in chains) / len(chains), 2),
    }


if __name__ == "__main__":
    main()
