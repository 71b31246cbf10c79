"""What an exact loader costs beside the plain DataLoader: samples per second, start of an epoch, memory.

    python benchmarks/loaders.py [--turns 60] [--repeats 5] [--sizes 1e5 1e6 1e7] [--json FILE]

A shuffled epoch of so many samples is begun, and batches of it are taken. `rows`: a sample is a row of 128 numbers,
copied and scaled, which is little; with real images, loading takes longer and the difference is smaller. `whole
batches`: a batch is one indexing of a tensor, the least that a loader can do. `rows, 4 generators`: the dataset holds a
generator of each kind, which must be seeded before each batch; the plain loader seeds none.

Speed: the loaders take turns of some batches in one process, in an order drawn anew each time, so that other programs
slow all of them down alike; ratios are those of the medians, in CPU seconds of all processes, and on the clock.
Start and memory: in processes forked for it, the best of several, as other programs can only make them worse.
"""

import argparse
import os
import random
import statistics
import time
from multiprocessing import active_children, get_context
from pathlib import Path

from figures import this_machine, write_figures
from template_path import use_template

BATCH = 64
FEATURES = 128
BATCHES_OF_TURN = {0: 20, 2: 100}  # by number of workers
PLAIN, EXACT, WITH_HOOK = "DataLoader", "exact", "exact, with a transfer hook"
KINDS = ("rows", "rows, 4 generators", "whole batches")


def dataset(samples: int, kind: str):
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Rows(Dataset):
        rows = torch.randn(1000, FEATURES)

        def __len__(self) -> int:
            return samples

        def __getitem__(self, index: int):
            return self.rows[index % 1000].clone().mul_(0.5), index

    class WholeBatches(Rows):
        def __getitems__(self, indices: list):
            return self.rows[[index % 1000 for index in indices]]

    rows = WholeBatches() if kind == "whole batches" else Rows()
    if kind == "rows, 4 generators":
        rows.generators = [random.Random(0), np.random.default_rng(0), np.random.RandomState(0), torch.Generator()]
    return rows


def as_it_is(batch):
    return batch


def loader(of: str, samples: int, workers: int, kind: str, shuffle: bool = True):
    """One of the three loaders that are compared; not shuffled, it is one for validation."""
    from torch.utils.data import DataLoader

    from lightning_hpc.loading.loaders import ExactLoader

    options = dict(collate_fn=as_it_is) if kind == "whole batches" else {}
    plain = DataLoader(dataset(samples, kind), BATCH, shuffle=shuffle, num_workers=workers, **options)
    if of == PLAIN:
        return plain
    return ExactLoader(plain, seed=0, stage="train" if shuffle else "val", at_handover=of == WITH_HOOK)


class Turns:
    """A loader that hands over some batches, now and again; what each batch costs.

    Attributes:
        cpu: CPU microseconds per batch of each turn, workers included.
        clock: microseconds per batch on the clock.
    """

    def __init__(self, make) -> None:
        self.make = make
        self.iterator, self.left, self.workers = None, 0, set()
        self.cpu: list[float] = []
        self.clock: list[float] = []

    def take(self, batches: int) -> None:
        if self.left < batches:
            self.begin()
        began, used = time.monotonic(), time.process_time()
        for _ in range(batches):
            next(self.iterator)
        used = time.process_time() - used
        self.clock.append((time.monotonic() - began) / batches * 1e6)
        self.left -= batches

        # Workers fetch ahead between two turns, so theirs counts from the end of one to the end of the next.
        before, self.of_workers = self.of_workers, self.cpu_of_workers()
        self.cpu.append((used + self.of_workers - before) / batches * 1e6)

    def begin(self) -> None:
        """Begin an epoch."""
        others = {child.pid for child in active_children()} - self.workers
        self.iterator = None  # ends the workers of the last epoch
        one, batches = self.make()
        self.iterator = iter(one)
        next(self.iterator)
        self.left = batches - 1
        self.workers = {child.pid for child in active_children()} - others
        self.of_workers = self.cpu_of_workers()

    def cpu_of_workers(self) -> float:
        """CPU seconds of this loader's workers so far."""
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in self.workers)


def measure_speed(connection, samples: int, workers: int, kind: str, turns: int) -> None:
    """Send the microseconds per batch of each loader in each turn: {name: (CPU, clock)}."""
    import torch

    torch.set_num_threads(1)
    names = [PLAIN, EXACT, WITH_HOOK]
    measured = {
        name: Turns(lambda name=name: (loader(name, samples, workers, kind), samples // BATCH)) for name in names
    }
    draw = random.Random(0)  # the global one is seeded by the loaders

    for _ in range(turns + 1):
        draw.shuffle(names)
        for name in names:
            measured[name].take(BATCHES_OF_TURN[workers])

    # The first turn warms up.
    connection.send({name: (one.cpu[1:], one.clock[1:]) for name, one in measured.items()})
    measured.clear()


def memory() -> float:
    """The most memory that this process has had, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system doesn't tell how much memory a process has had")


def measure_start(connection, of: str, samples: int, workers: int, kind: str, shuffle: bool) -> None:
    """Send seconds to the first batch, and MB that the pass has taken."""
    import torch

    torch.set_num_threads(1)
    clock = time.monotonic if workers else time.process_time
    one = loader(of, samples, workers, kind, shuffle)

    before, began = memory(), clock()
    iterator = iter(one)
    next(iterator)
    connection.send((clock() - began, memory() - before))
    del iterator


def in_a_process(measure, *arguments):
    """What a measurement sends from a process forked for it, where torch is loaded already."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, *arguments))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def row_of(samples: int, workers: int, kind: str, turns: int, repeats: int) -> dict:
    times = in_a_process(measure_speed, samples, workers, kind, turns)
    cpu = {name: statistics.median(one[0]) for name, one in times.items()}
    clock = {name: statistics.median(one[1]) for name, one in times.items()}
    pairs = sorted(one / other for one, other in zip(times[PLAIN][0], times[EXACT][0], strict=True))

    began = best_start(samples, workers, kind, shuffle=True, repeats=repeats)
    validation = best_start(samples, workers, kind, shuffle=False, repeats=repeats)

    return {
        "samples": f"{samples:.0e}".replace("e+0", "e"),
        "of": kind,
        "workers": workers,
        "DataLoader, CPU µs a batch": round(cpu[PLAIN]),
        "ratio": round(cpu[PLAIN] / cpu[EXACT], 2),
        "middle half of the turns": f"{pairs[len(pairs) // 4]:.2f}–{pairs[-len(pairs) // 4]:.2f}",
        "with a transfer hook": round(cpu[PLAIN] / cpu[WITH_HOOK], 2),
        "on the clock": round(clock[PLAIN] / clock[EXACT], 2),
        "start of an epoch, s": "{:.2f} (DataLoader {:.2f})".format(*(one[0] for one in began)),
        "memory, MB": "{:.0f} (DataLoader {:.0f})".format(*(one[1] for one in began)),
        "start of a validation, ms": "{:.1f} (DataLoader {:.1f})".format(*(one[0] * 1000 for one in validation)),
        "its memory, MB": "{:.0f} (DataLoader {:.0f})".format(*(one[1] for one in validation)),
    }


def best_start(samples: int, workers: int, kind: str, shuffle: bool, repeats: int) -> list[tuple[float, float]]:
    """Seconds and MB that the start of a pass takes, of ours and of the plain loader; the best of several."""
    measured: dict[str, list] = {EXACT: [], PLAIN: []}
    for _ in range(repeats):
        for name, starts in measured.items():
            starts.append(in_a_process(measure_start, name, samples, workers, kind, shuffle))
    return [tuple(map(min, zip(*starts, strict=True))) for starts in measured.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    use_template(researchers_files=False)
    import lightning_hpc.loading.loaders  # noqa: F401 - before the forks

    machine = this_machine(f"load average {os.getloadavg()[0]:.1f} before")
    print(machine)
    rows = []
    for samples in map(int, arguments.sizes):
        for kind in KINDS:
            for workers in BATCHES_OF_TURN:
                row = row_of(samples, workers, kind, arguments.turns, arguments.repeats)
                rows.append(row)
                print(*(f"{name}: {value}" for name, value in row.items()), sep=" | ", flush=True)

    if arguments.json:
        sizes = " ".join(f"{size:.0e}".replace("e+0", "e") for size in arguments.sizes)
        command = (
            f"python benchmarks/loaders.py --turns {arguments.turns} --repeats {arguments.repeats} --sizes {sizes}"
        )
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
