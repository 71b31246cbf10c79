"""CKA on a GPU: milliseconds for CKA alone, kernels launched, memory over the forward pass, error against float64.

    python benchmarks/cka_gpu.py [--case resnet18] [--precision bf16] [--peers FOLDER] [--json FILE]

As benchmarks/cka.py, with CUDA events after a warm-up: the activations of a batch are replayed to every tool's hooks.
"read" is the time to read these activations once, at the speed of a large copy; "products" is only x @ x.T for each
layer in the same hooks. Kernels are counted by PyTorch's profiler in one batch. Memory is the peak of the real network
with the tool over that without. The error is the largest in the matrix against Song's formula in float64 on the GPU.
"""

import argparse
import statistics
import sys
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cka_cases import CASES, Replay, case, song, template_cka
from figures import write_figures

HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]  # a peer's module is called `cka` too

import torch  # noqa: E402

# ---- the tools: each is a context that gives step(x), which runs the model and adds a batch, and matrix() ----


@contextmanager
def products(model, names):
    def hook(module, inputs, output):
        output.flatten(1) @ output.flatten(1).T

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook) for name in names]
    yield model, None
    for handle in handles:
        handle.remove()


@contextmanager
def template(model, names):
    cka = template_cka()
    metric = cka.CKA(len(names)).cuda()

    def step(x):
        model(x)
        metric.update(recorder.grams())

    with cka.GramRecorder(model, names) as recorder:
        yield step, metric.compute


@contextmanager
def pytorch_cka(model, names):
    from cka import CKA

    with CKA(model, model, layers=names, device="cuda") as comparison:
        sums = [
            torch.zeros(*shape, device="cuda") for shape in ((len(names), len(names)), (len(names),), (len(names),))
        ]

        def step(x):
            comparison._clear_features()
            model(x)
            comparison._accumulate_hsic(*sums)

        yield step, lambda: comparison._compute_cka_matrix(*sums)


@contextmanager
def cka_pytorch(model, names):
    from cka_pytorch import CKACalculator

    calculator = CKACalculator(model, model, names, verbose=False)
    yield calculator._process_batch, None
    calculator.reset()


TOOLS = {"products": products, "template": template, "pytorch-cka": pytorch_cka, "cka-pytorch": cka_pytorch}


# ---- measures ----


def milliseconds(run, repeats):
    """The median over `repeats` calls, by CUDA events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_rate():
    """Bytes read and written in a second by a large copy."""
    x = torch.empty(2**30, device="cuda")
    return 8 * x.numel() / (milliseconds(x.clone, 10) / 1e3)


def launches(run):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in trace.key_averages() if event.device_type.name == "CUDA")


def peak(run):
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


@torch.no_grad()
def measure(name, precision, repeats, rate):
    model, batches, names = case(name)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model, batches = model.to("cuda", dtype), [x.to("cuda", dtype) for x in batches]
    truth = song(model, batches, names)
    replay = Replay(model, names, batches[:1]).cuda()
    kept = sum(x.numel() * x.element_size() for x in replay.kept[0])
    layers = [name for name, _ in replay.named_children()]
    index = torch.zeros(len(batches[0]), 1, device="cuda", dtype=dtype)
    alone = peak(partial(model, batches[0]))
    figures = {"layers": len(names), "read_ms": kept / rate * 1e3}
    figures["forward_ms"] = milliseconds(partial(model, batches[0]), repeats)
    figures["tools"] = {}
    for tool, context in TOOLS.items():
        try:
            with context(replay, layers) as (step, _):
                row = {"ms": milliseconds(partial(step, index), repeats), "launches": launches(partial(step, index))}
            with context(model, names) as (step, matrix):
                row["with_forward_ms"] = milliseconds(partial(step, batches[0]), repeats)
                row["memory_mb"] = (peak(partial(step, batches[0])) - alone) / 2**20
            with context(model, names) as (step, matrix):
                for x in batches:
                    step(x)
                row["error"] = (matrix().double() - truth).abs().max().item() if matrix else None
            figures["tools"][tool] = row
        except Exception as error:  # absent, or it can't do this network
            figures["tools"][tool] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:100]}
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, help="one case instead of all")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="of the network; default: both")
    parser.add_argument("--peers", default="", help="folder with the peers, see benchmarks/cka.py")
    parser.add_argument("--repeats", type=int, default=30, help="timed repeats (default: 30)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/cka_gpu.py needs a CUDA GPU")
    if arguments.peers:
        sys.path.append(arguments.peers)
    warnings.simplefilter("ignore")
    rate = copy_rate()
    machine = f"{torch.cuda.get_device_name()}, copies {rate / 1e12:.2f} TB/s, torch {torch.__version__}"
    print(machine, "\n")
    rows = []
    for name in [arguments.case] if arguments.case else CASES:
        for precision in [arguments.precision] if arguments.precision else ("fp32", "bf16"):
            figures = measure(name, precision, arguments.repeats, rate)
            print(f"{name}, {precision}: {figures['layers']} layers, forward {figures['forward_ms']:.2f} ms, "
                  f"reading the activations once {figures['read_ms']:.2f} ms")  # fmt: skip
            print(f"{'tool':14}{'ms':>8}{'kernels':>9}{'with forward ms':>17}{'memory MB':>11}{'max error':>11}")
            for tool, measured in figures["tools"].items():
                row = {"case": f"{name}, {precision}", "tool": tool}
                if "failed" in measured:
                    row["ms"] = "fails"
                    print(f"{tool:14} {measured['failed']}")
                else:
                    row |= {
                        "ms": round(measured["ms"], 2),
                        "kernels": measured["launches"],
                        "with forward, ms": round(measured["with_forward_ms"], 2),
                        "memory MB": round(measured["memory_mb"]),
                        "max error": "–" if measured["error"] is None else f"{measured['error']:.1e}",
                    }
                    print(f"{tool:14}{row['ms']:8}{row['kernels']:9}{row['with forward, ms']:17}{row['memory MB']:11}"
                          f"{row['max error']:>11}")  # fmt: skip
                rows.append(row)
            print(flush=True)
    if arguments.json:
        command = "python benchmarks/cka_gpu.py --peers FOLDER"
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
