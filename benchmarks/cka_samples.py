"""How many samples does CKA need, and how does it err? Unbiased and biased estimates on features of known relation.

    python benchmarks/cka_samples.py [--json FILE]

512 features for each sample; mean and standard deviation over 60 drawings. "independent" layers share nothing, so CKA
should be 0; "related" ones are two functions of 64 common numbers; "shared outliers" are independent but for 1 % of the
samples, which lie 50 standard deviations away in both; "moved" is one layer against itself with half of the samples
moved away together, which no classifier would mind.
"""

import argparse
import platform
from pathlib import Path

import torch
from cka_cases import template_cka
from figures import write_figures

WIDTH = 512


def biased(x, y):
    """The estimate with HSIC_0, as in Kornblith et al. 2019."""
    k, m = (z @ z.T for z in (x - x.mean(0), y - y.mean(0)))
    return (k * m).sum() / (k.norm() * m.norm())


def independent(n):
    return torch.randn(n, WIDTH), torch.randn(n, WIDTH)


def related(n):
    common = torch.randn(n, 64)
    return common @ torch.randn(64, WIDTH) / 8 + 0.5 * torch.randn(n, WIDTH), common.relu() @ torch.randn(64, WIDTH) / 8


def shared_outliers(n):
    x, y = independent(n)
    for z in (x, y):
        z[: max(n // 100, 2)] += 50 * torch.randn(WIDTH).sign()
    return x, y


def moved(n):
    x = torch.randn(n, WIDTH)
    y = x.clone()
    y[: n // 2] += 10 * torch.randn(WIDTH).sign()
    return x, y


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cka = template_cka().cka
    rows = []
    for draw in (independent, related, shared_outliers, moved):
        for n in (16, 64, 256, 1024):
            pairs = [draw(n) for _ in range(60)]
            values = [torch.stack([estimate(x.double(), y.double()) for x, y in pairs]) for estimate in (cka, biased)]
            row = {"features": draw.__name__.replace("_", " "), "samples": n}
            for name, value in zip(("unbiased", "biased"), values, strict=True):
                row |= {name: round(value.mean().item(), 3), f"sd of {name}": round(value.std().item(), 4)}
            rows.append(row)
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if arguments.json:
        machine = f"{platform.system()}, torch {torch.__version__}"
        write_figures(arguments.json, machine, "python benchmarks/cka_samples.py", rows)


if __name__ == "__main__":
    main()
