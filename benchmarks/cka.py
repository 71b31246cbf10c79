"""CKA side by side with the packages on PyPI: CPU seconds, share of the matrix products' own time, memory, error.

    python benchmarks/cka.py [--case resnet18] [--peers FOLDER] [--json FILE]

The peers are not installed with the template. Get them, without what they would pull in, by

    pip install --no-deps --target FOLDER pytorch-cka torch_cka ckatorch cka-pytorch seaborn

(two of them need seaborn, which needs pandas; all need tqdm). A peer that is absent is skipped, and said so.

Timed is CKA alone: the real network makes the activations once; then every tool hooks a network of stand-ins that
hands them out at no cost. "floor" is only the product x @ x.T for each layer, in the same hooks and process. All on one
thread, in CPU seconds for each batch, the least of several repeats in which the tools take turns. Memory is the peak of
a process that runs the real network with the tool, over that of a process that only runs the network. The error is the
largest in the matrix against Song's formula in float64, on the real network.
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

from figures import write_figures

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1", "MPLBACKEND": "agg"}

from cka_cases import CASES, Replay, case, song, template_cka  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]  # a peer's module is called `cka` too

import torch  # noqa: E402

SLOW = 5  # CPU seconds for a batch from which on a tool is run once only


# ---- the tools: each compares a network with itself over batches and gives the matrix ----


def floor(model, names, batches):
    """Not CKA: only its matrix products."""

    def hook(module, inputs, output):
        output.flatten(1) @ output.flatten(1).T

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook) for name in names]
    with torch.no_grad():
        for x in batches:
            model(x)
    for handle in handles:
        handle.remove()


def template(model, names, batches):
    return torch.as_tensor(template_cka().compare(model, None, batches, layers=names).matrix)


def pytorch_cka(model, names, batches):
    from cka import compute_cka

    return compute_cka(model, model, Loader(batches), layers=names, device="cpu", progress=False)[0]


def torch_cka(model, names, batches):
    from torch_cka import CKA

    with torch.no_grad():
        comparison = CKA(model, model, model1_layers=names, model2_layers=names)
        comparison.compare(Loader((x,) for x in batches))
    remove_hooks(model)
    return comparison.hsic_matrix


def cka_pytorch(model, names, batches):
    from cka_pytorch import CKACalculator

    calculator = CKACalculator(model, model, names, hook_recursive=False, verbose=False)
    if calculator.hook_manager1.module_names != names:  # only the outermost modules without recursion
        calculator.reset()
        calculator = CKACalculator(model, model, names, verbose=False)
    matrix = calculator.calculate_cka_matrix([(x, None) for x in batches], num_epochs=1)
    found = calculator.hook_manager1.module_names
    calculator.reset()
    index = [found.index(name) if name in found else -1 for name in names]
    matrix = matrix[index][:, index]
    lost = torch.tensor(index) < 0  # containers, which it doesn't record
    return matrix.masked_fill(lost[:, None] | lost, torch.nan)


def ckatorch(model, names, batches):
    from ckatorch import CKA

    comparison = CKA(model, model, layers=names)
    try:
        return comparison(Loader([x] for x in batches), epochs=1)
    finally:
        remove_hooks(model)


TOOLS = {
    "floor": floor,
    "template": template,
    "pytorch-cka": pytorch_cka,
    "torch_cka": torch_cka,
    "cka-pytorch": cka_pytorch,
    "ckatorch": ckatorch,
}


def remove_hooks(model):
    """Which these peers leave behind."""
    for module in model.modules():
        module._forward_hooks.clear()


class Loader:
    """Batches, with what the peers want to know of a DataLoader."""

    dataset, drop_last, sampler = "batches", False, None

    def __init__(self, batches):
        self.batches = list(batches)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


# ---- timing on replayed activations ----


def seconds(tool, model, batches):
    names = [name for name, _ in model.named_children()]
    start = time.process_time()
    TOOLS[tool](model, names, batches)
    return (time.process_time() - start) / len(batches)


def measure(name, tools, repeats):
    """{tool: {"cpu_s": …, "error": …, "memory_mb": …} or {"failed": why}}"""
    model, batches, names = case(name)
    truth = song(model, batches, names)
    results = {tool: {} for tool in tools}
    for tool in tools:
        if tool == "floor":
            continue
        try:
            matrix = TOOLS[tool](model, names, batches)
            results[tool] = {"error": (matrix - truth).abs().nan_to_num(0).max().item()}
        except Exception as error:  # a peer that can't do this network: say why
            remove_hooks(model)
            results[tool] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:100]}
    replay = Replay(model, names, batches)
    inputs = [torch.full((len(x), 1), float(index)) for index, x in enumerate(batches)] * 2
    times = {tool: [] for tool in tools if "failed" not in results[tool]}
    for repeat in range(repeats):
        for tool, taken in times.items():
            if not taken or min(taken) < SLOW:
                taken.append(seconds(tool, replay, inputs if repeat else inputs[:1]))
    for tool, taken in times.items():
        results[tool]["cpu_s"] = min(taken[1:] or taken)  # the first is the warm-up
    return results, len(names), len(batches[0])


# ---- peak memory, one process for each tool ----


def peak(name, tool, peers):
    command = [sys.executable, __file__, "--case", name, "--peers", peers, "--peak", tool]
    result = subprocess.run(command, capture_output=True, text=True)
    return float(result.stdout.split()[-1]) if result.returncode == 0 else None


def print_peak(name, tool):
    torch.set_num_threads(1)
    model, batches, names = case(name)
    template_cka()
    with torch.no_grad():
        for x in batches:
            model(x)
    if tool != "forward":
        TOOLS[tool](model, names, batches[:1])
    status = Path("/proc/self/status").read_text()  # getrusage would give the parent's peak, if that was higher
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, help="one case instead of all")
    parser.add_argument("--peers", default="", help="folder with the peers (see above)")
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats of each tool (default: 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(arguments.peers)
    warnings.simplefilter("ignore")
    if arguments.peak:
        return print_peak(arguments.case, arguments.peak)

    torch.set_num_threads(1)
    installed = {d.metadata["Name"].replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    tools = [tool for tool in TOOLS if tool in ("floor", "template") or tool.replace("_", "-") in installed]
    for tool in set(TOOLS) - set(tools):
        print(f"{tool} is not installed: skipped (see --help)")
    processor = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "?")
    machine = f"{processor}, one thread, {platform.system()}, torch {torch.__version__}"
    versions = ", ".join(f"{tool} {installed[tool.replace('_', '-')]}" for tool in tools[2:])
    print(f"{machine}; {versions}\n")
    rows = []
    for name in [arguments.case] if arguments.case else CASES:
        results, layers, samples = measure(name, tools, arguments.repeats)
        alone, floor_s = peak(name, "forward", arguments.peers), results["floor"]["cpu_s"]
        print(f"{name}: {layers} layers, batches of {samples}; floor {floor_s:.4f} CPU s for a batch")
        print(f"{'tool':14}{'CPU s':>10}{'× floor':>9}{'× template':>12}{'memory MB':>11}{'max error':>11}")
        for tool in tools[1:]:
            figures = results[tool]
            row = {"case": f"{name}, {layers} layers", "tool": tool}
            if "failed" in figures:
                row["CPU s"] = "fails"
                print(f"{tool:14} {figures['failed']}")
            else:
                seconds_ = figures["cpu_s"]
                row |= {
                    "CPU s": seconds_,
                    "× floor": round(seconds_ / floor_s, 2),
                    "× template": round(seconds_ / results["template"]["cpu_s"], 2),
                    "memory MB": round((peak(name, tool, arguments.peers) or float("nan")) - alone),
                    "max error": f"{figures['error']:.1e}",
                }
                print(f"{tool:14}{seconds_:10.4f}{row['× floor']:9.2f}{row['× template']:12.2f}{row['memory MB']:11}"
                      f"{row['max error']:>11}")  # fmt: skip
            rows.append(row)
        print(flush=True)
    if arguments.json:
        command = "python benchmarks/cka.py --peers FOLDER" + (f" --case {arguments.case}" if arguments.case else "")
        write_figures(arguments.json, f"{machine}; {versions}", command, rows)


if __name__ == "__main__":
    main()
