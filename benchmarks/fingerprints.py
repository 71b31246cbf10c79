"""What the fingerprints of a run cost: python benchmarks/fingerprints.py

For the network of a new project and for one of 25 million parameters, prints the time of a training epoch over the
digits (17 batches of 64), of the fingerprint after it, and of looking at each batch, which is done in the first epoch.
All of it on one thread of the CPU. On a GPU a fingerprint reads the weights at the speed of its memory.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from template_path import use_template

use_template()
from lightning_hpc.provenance.checksums import checksum_of_batch, checksums_of  # noqa: E402
from lightning_hpc.provenance.fingerprints import FingerprintsFile, fingerprint_of  # noqa: E402
from networks import ConvNet  # noqa: E402

BATCHES, SIZE = 17, 64
WIDTHS = {"the default network": 32, "25 M parameters": 630}


def main() -> None:
    """Measure and print."""
    use_template()
    from lightning_hpc.provenance.fingerprints import FingerprintsFile

    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':22}{'parameters':>12}{'epoch':>12}{'fingerprint':>14}{'share':>8}{'each batch':>12}{'share':>8}")
    for name, width in WIDTHS.items():
        model = ConvNet(classes=10, input_shape=(1, 8, 8), width=width)
        count = sum(parameter.numel() for parameter in model.parameters())
        batches = [(torch.rand(SIZE, 1, 8, 8), torch.randint(10, (SIZE,))) for _ in range(BATCHES)]
        epoch = best_of(3, partial(train, model, batches))
        with tempfile.TemporaryDirectory() as folder:
            weights = best_of(20, partial(write_fingerprint, model, FingerprintsFile(Path(folder))))
        batch = best_of(50, partial(checksum_of_batch, batches[0]))
        print(
            f"{name:22}{count:>12,}{epoch:>10.3f} s{1000 * weights:>11.2f} ms{weights / epoch:>8.2%}"
            f"{1e6 * batch:>9.0f} µs{BATCHES * batch / epoch:>8.2%}"
        )


def train(model: torch.nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """One epoch."""
    optimizer = torch.optim.AdamW(model.parameters())
    for images, targets in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()


def write_fingerprint(model: torch.nn.Module, file: FingerprintsFile) -> None:
    """What is done after an epoch."""
    file.add(fingerprint_of(1, BATCHES, checksums_of(model), []))


def best_of(times: int, action: Callable[[], object]) -> float:
    """Seconds that an action takes when nothing else is going on: the shortest of several times."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    main()
