"""Kill small runs again and again and compare them to the bit with runs that never were, beside what others offer.

    python benchmarks/kill_chain.py                              3 kills of each way to train, about 10 minutes
    python benchmarks/kill_chain.py --kills 8 --json out.json
    python benchmarks/kill_chain.py --ways DDP "two loaders"

Each row is one way to train. It is run once without a kill, and once killed so many times: SIGKILL, SIGTERM or SIGUSR1,
which the process, or one rank drawn at random, gets at a Python call drawn from a seed; a third of them in a
validation, a third while a checkpoint is written. A cell says whether the two end equal to the bit.

Lightning has the same settings and kills, with what it offers: seed_everything(workers=True),
ModelCheckpoint(save_last=True) as often, ckpt_path=last.ckpt. So does accelerate where it has the way
(kill_chain_accelerate.py), if it and torchdata are installed; only weights are compared then.
"""

import argparse
import importlib.util
import os
import re
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures import this_machine, write_figures

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"  # where lightning_hpc is
PHASES = ("run", "validation", "save")
LIMIT = 90.0  # seconds after which an attempt of others is taken to hang
OURS, STOCK, ACCELERATE = "this template", "stock Lightning", "accelerate"

# What of a run of others must be equal; of ours, everything.
COMPARED = re.compile("/state_dict|/optimizer_states|/lr_schedulers|metrics.csv|is missing|could not go on")

# Of each way: the settings in victim.Setup that differ from plain training.
WAYS: dict[str, dict[str, Any]] = {
    "plain": dict(),
    "plain, workers": dict(workers=2),
    "persistent workers": dict(workers=2, persistent=True),
    "DDP": dict(ranks=2),
    "DDP, workers": dict(ranks=2, workers=2),
    "sharded weights (FSDP2)": dict(ranks=2, strategy="fsdp", accumulate=3),
    "accumulation, clipping": dict(accumulate=3, clip=0.5),
    "averaged weights (EMA)": dict(averaging="averaged", validations=0.5),
    "averaged weights (SWA)": dict(averaging="swa"),
    "OneCycle by step": dict(schedulers="step"),
    "ReduceLROnPlateau": dict(schedulers="plateau", validations=0.5),
    "schedule by epoch, early stopping": dict(schedulers="epoch", early_stopping=True),
    "epochs of one batch": dict(limit=1, epochs=12),
    "manual optimization": dict(manual=True),
    "weighted sampler": dict(sampler="weighted"),
    "batch sampler of one's own": dict(sampler="batches", workers=2),
    "two loaders": dict(sampler="two"),
    "two loaders, max_size": dict(sampler="max_size"),
    "stream with a state": dict(sampler="stateful", workers=2),
    "augmentation in a transfer hook": dict(transfer=True, workers=2),
    "other data every second epoch": dict(reload=2, epochs=4),
}

# Those that accelerate has by itself.
OF_ACCELERATE = ("plain", "plain, workers", "DDP", "accumulation, clipping")

# Lightning has no callback for it that resumes at all, or none of this kind.
NOT_OF_STOCK = ("averaged weights (SWA)", "sharded weights (FSDP2)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3, help="kills of each way to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="only these")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        paths = [str(PROJECT), str(ROOT / "tests"), str(ROOT / "tests" / "resume")]
        sys.path[:0] = paths
        given = os.environ.get("PYTHONPATH")
        os.environ |= dict(PYTHONPATH=os.pathsep.join([*paths, *([given] if given else [])]), OMP_NUM_THREADS="1")
        os.environ["PYTHONPYCACHEPREFIX"] = scratch  # compiled files in the template's folder would go into projects
        sys.pycache_prefix = scratch
        measure(options, Path(scratch))


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write the figures that are there."""
    if not options.json:
        return
    import torch

    command = f"python benchmarks/kill_chain.py --kills {options.kills} --seed {options.seed}"
    if options.ways != list(WAYS):
        command += " --ways " + shlex.join(options.ways)
    write_figures(options.json, this_machine(f"torch {torch.__version__}"), command, rows)


def servers() -> dict[str, Any]:
    """What forks the attempts of each system that is installed."""
    from chain import Server

    found = {OURS: Server()}
    found[STOCK] = found[OURS]
    if all(importlib.util.find_spec(name) for name in ("accelerate", "torchdata")):
        found[ACCELERATE] = Server(Path(__file__).with_name("kill_chain_accelerate.py"))
    return found


def measure(options: argparse.Namespace, scratch: Path) -> None:
    """One row for each way to train; each is printed and written when it is there."""
    from victim import Setup

    started, rows, totals = servers(), [], {}
    for number, way in enumerate(options.ways):
        setup = Setup(**WAYS[way], save_every=3)
        row: dict[str, Any] = dict(way=way, workers=setup.workers, ranks=setup.ranks)
        for system, server in started.items():
            chain = None
            if has(system, way):
                folder = scratch / f"{number}-{system}"
                chain = chain_of(system, server, setup, folder, options)
                totals.setdefault(system, []).append(chain)
            row.setdefault("kills", len(chain.kills) if chain else 0)
            row[system] = "–" if chain is None else verdict(chain)
        rows.append(row)
        print(" | ".join(str(value) for value in row.values()), flush=True)
        write(options, [*rows, total(totals)])

    print(" | ".join(str(value) for value in total(totals).values()))
    for server in set(started.values()):
        server.close()


def has(system: str, way: str) -> bool:
    """True if a system has a way to train at all."""
    if system == ACCELERATE:
        return way in OF_ACCELERATE
    return system == OURS or way not in NOT_OF_STOCK


def chain_of(system: str, server: Any, setup: Any, folder: Path, options: argparse.Namespace) -> Any:
    """One chain: the run without a kill, and the one with kills."""
    from chain import run_chain

    if system != OURS:
        setup = replace(setup, stock=True)
    phases = ("run", "save") if system == ACCELERATE else PHASES  # it has no validation of its own
    limit = 300.0 if system == OURS else LIMIT
    chain = run_chain(server, setup, folder, options.seed, options.kills, phases, limit)
    if system != OURS:  # they keep paths and times in their checkpoints, too
        chain.differences = [difference for difference in chain.differences if COMPARED.search(difference)]
    for difference in chain.differences[:3] if system == OURS else ():
        print(f"{folder.name}: {difference}", file=sys.stderr)
    return chain


def verdict(chain: Any) -> str:
    """How a chain has ended, in a cell."""
    if any("could not go on" in difference for difference in chain.differences):
        return "can't go on"
    text = "equal to the bit"
    if any("state_dict" in difference for difference in chain.differences):
        text = "other weights"
    elif chain.differences:
        text = "same weights, other metrics"
    return text + (f", {chain.hangs} hung" if chain.hangs else "")


def total(totals: dict[str, list[Any]]) -> dict[str, Any]:
    """The last row: kills, and how many runs differ."""
    row: dict[str, Any] = dict(way="all", workers="", ranks="", kills=sum(len(chain.kills) for chain in totals[OURS]))
    for system, chains in totals.items():
        differ = sum(bool(chain.differences) for chain in chains)
        row[system] = f"{differ} of {len(chains)} differ"
    return row


if __name__ == "__main__":
    main()
