"""What an exact loader costs beside the plain DataLoader: samples per second, start of an epoch, memory.

    python benchmarks/loaders.py [--batches 400] [--repeats 5] [--sizes 1e5 1e6 1e7] [--json FILE]

A shuffled epoch of so many samples is begun, and so many batches of it are taken. A sample is a row of 128 numbers,
copied and scaled, which is little: with real images, loading takes longer and the difference is smaller. Each
measurement runs in a process forked for it, where torch is loaded already; the two loaders take turns, and the best of
several repetitions counts, since other programs can only make it worse. Without workers it is CPU time, with them the
time on the clock.
"""

import argparse
import json
import os
import platform
import time
from datetime import date
from multiprocessing import get_context
from pathlib import Path

from template_path import use_template

BATCH = 64
FEATURES = 128


def dataset(samples: int):
    import torch
    from torch.utils.data import Dataset

    class Rows(Dataset):
        rows = torch.randn(1000, FEATURES)

        def __len__(self) -> int:
            return samples

        def __getitem__(self, index: int):
            return self.rows[index % 1000].clone().mul_(0.5), index

    return Rows()


def memory() -> float:
    """The most memory that this process has had, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system doesn't tell how much memory a process has had")


def measure(connection, exact: bool, samples: int, workers: int, batches: int) -> None:
    """Send samples per second, seconds to the first batch, and MB that the epoch has taken."""
    import torch
    from torch.utils.data import DataLoader

    from lightning_hpc.loading.loaders import ExactLoader

    torch.set_num_threads(1)
    clock = time.monotonic if workers else time.process_time
    loader = DataLoader(dataset(samples), BATCH, shuffle=True, num_workers=workers)
    if exact:
        loader = ExactLoader(loader, seed=0)

    before, began = memory(), clock()
    iterator = iter(loader)
    next(iterator)
    first = clock()

    for _ in range(batches):
        next(iterator)
    per_second = batches * BATCH / (clock() - first)
    connection.send((per_second, first - began, memory() - before))

    # Fetched ahead, and not needed: workers end with the iterator.
    del iterator


def best(results: list) -> tuple:
    """The best of each of the three figures."""
    rates, starts, memories = zip(*results, strict=True)
    return max(rates), min(starts), min(memories)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    use_template(researchers_files=False)
    import lightning_hpc.loading.loaders  # noqa: F401 - before the forks

    context = get_context("fork")
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, other programs running"
    )
    print(machine)
    rows = []
    for samples in map(int, arguments.sizes):
        for workers in (0, 2):
            results: dict[bool, list] = {False: [], True: []}
            for _ in range(arguments.repeats):
                for exact, measured in results.items():
                    ours, theirs = context.Pipe()
                    process = context.Process(target=measure, args=(theirs, exact, samples, workers, arguments.batches))
                    process.start()
                    measured.append(ours.recv())
                    process.join()

            (stock_rate, stock_start, stock_memory), (rate, start, taken) = best(results[False]), best(results[True])
            row = {
                "samples": f"{samples:.0e}".replace("e+0", "e"),
                "workers": workers,
                "DataLoader, samples/s": round(stock_rate),
                "ratio": round(rate / stock_rate, 2),
                "start of an epoch, s": f"{start:.2f} (DataLoader {stock_start:.2f})",
                "memory, MB": f"{taken:.0f} (DataLoader {stock_memory:.0f})",
            }
            rows.append(row)
            print(*(f"{name}: {value}" for name, value in row.items()), sep=" | ", flush=True)

    if arguments.json:
        sizes = " ".join(f"{size:.0e}".replace("e+0", "e") for size in arguments.sizes)
        command = (
            f"python benchmarks/loaders.py --batches {arguments.batches} --repeats {arguments.repeats} --sizes {sizes}"
        )
        record = dict(machine=machine, date=str(date.today()), command=command, rows=rows)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
