"""What a training step costs: plain PyTorch, a bare Lightning Trainer, a usual set-up, and this template's defaults.

    python benchmarks/step_overhead.py [--steps 600] [--repeats 5] [--json FILE]

Each case runs in a process of its own, in turn, `repeats` times, with one thread; the least CPU time per step counts,
since other programs can only add to it. The model is a tiny MLP, so that almost all of the time is overhead; a second
model takes about 50 ms a step, so that one sees what is left of it in real training. CPU seconds include all threads of
the process, and W&B is disabled in every case.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import this_machine, write_figures
from template_path import use_template

CASES = {
    "raw": "plain PyTorch loop",
    "bare": "Lightning Trainer, everything off (barebones)",
    "usual": "a usual template: step and epoch logs, progress bar, metrics by forward, CSV every step",
    "ours": "this template's defaults: logs, clipping, schedule, checkpoints, exact resume, divergence check, CSV",
}
MODELS = {"tiny": dict(features=32, width=64, depth=1), "50 ms": dict(features=1024, width=1100, depth=6)}
BATCH = 64


def network(features: int, width: int, depth: int):
    from torch import nn

    sizes = [features] + [width] * depth
    layers = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def run_raw(model: dict, steps: int) -> float:
    import torch

    net = network(**model)
    optimizer = torch.optim.AdamW(net.parameters())
    loader = torch.utils.data.DataLoader(dataset(model["features"], steps), batch_size=BATCH, shuffle=True)
    clock = Clock(steps)
    for inputs, targets in loader:
        clock.step()
        loss = torch.nn.functional.cross_entropy(net(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clock.per_step()


def dataset(features: int, steps: int):
    import torch

    return torch.utils.data.TensorDataset(
        torch.randn(1, features).expand(steps * BATCH, features), torch.zeros(steps * BATCH, dtype=torch.long)
    )


class Clock:
    """CPU seconds per step: the least mean of some steps on end, after a warm-up, as other programs only add to it."""

    def __init__(self, steps: int) -> None:
        self.warmup, self.on_end = steps // 6, max(10, steps // 10)
        self.times: list[float] = []

    def step(self) -> None:
        self.times.append(time.process_time())

    def per_step(self) -> float:
        times = self.times[self.warmup :]
        spans = [end - start for start, end in zip(times, times[self.on_end :], strict=False)]
        return min(spans) / self.on_end


def run_trainer(case: str, model: dict, steps: int, folder: str) -> float:
    use_template()
    import lightning.pytorch as pl
    import torch
    import torchmetrics

    clock = Clock(steps)

    class Timer(pl.Callback):
        def on_train_batch_start(self, *args):
            clock.step()

    loader = torch.utils.data.DataLoader(dataset(model["features"], steps), batch_size=BATCH, shuffle=True)
    common = dict(max_epochs=1, accelerator="cpu", devices=1, num_sanity_val_steps=0, enable_model_summary=False)
    if case == "ours":
        from lightning_hpc.survive.checkpoint_io import AtomicCheckpointIO
        from lightning_hpc.survive.checkpoints import Checkpoints
        from lightning_hpc.survive.exact_resume import ExactResume
        from lightning_hpc.survive.metrics_file import MetricsFile
        from lightning_hpc.training.callbacks import EpochReport, StopOnDivergence
        from lightning_hpc.training.schedules import WarmupCosine
        from model import Classifier

        module = Classifier(network(**model), 10, torch.optim.AdamW, WarmupCosine)
        callbacks = [ExactResume(0), Checkpoints(), StopOnDivergence(), EpochReport(), Timer()]
        trainer = pl.Trainer(
            **common, callbacks=callbacks, logger=MetricsFile(folder), plugins=[AtomicCheckpointIO()],
            default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=10,
            use_distributed_sampler=False, gradient_clip_val=1.0,
        )  # fmt: skip
    else:

        class Module(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = network(**model)
                names = dict(acc="micro", macro="macro", weighted="weighted")
                self.metrics = torchmetrics.MetricCollection(
                    {n: torchmetrics.classification.MulticlassAccuracy(10, average=a) for n, a in names.items()}
                )

            def training_step(self, batch, batch_idx):
                logits = self.net(batch[0])
                loss = torch.nn.functional.cross_entropy(logits, batch[1])
                if case == "usual":
                    self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
                    self.log_dict(self.metrics(logits, batch[1]), on_step=True, on_epoch=True)
                return loss

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters())

        module = Module()
        if case == "bare":
            trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=1, barebones=True)
            trainer.callbacks.append(Timer())
        else:
            trainer = pl.Trainer(
                **common, callbacks=[Timer()], logger=pl.loggers.CSVLogger(folder), log_every_n_steps=1,
                default_root_dir=folder,
            )  # fmt: skip
    trainer.fit(module, loader)
    return clock.per_step()


def measure(case: str, model: str, steps: int) -> float:
    """CPU seconds per step of one case, in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--model", model, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"case {case} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=MODELS, default="tiny", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        model = MODELS[arguments.model]
        with tempfile.TemporaryDirectory() as folder:
            if arguments.case == "raw":
                seconds = run_raw(model, arguments.steps)
            else:
                seconds = run_trainer(arguments.case, model, arguments.steps, folder)
        print(seconds)
        return

    rows = []
    machine = this_machine()
    print(machine)
    for model in MODELS:
        steps = arguments.steps if model == "tiny" else max(24, arguments.steps // 15)
        runs = {case: [] for case in CASES}
        for _ in range(arguments.repeats if model == "tiny" else max(1, arguments.repeats // 2)):
            for case in CASES:  # in turn, so that a busy moment of the machine meets all of them
                runs[case].append(measure(case, model, steps))
        bare = min(runs["bare"])
        for case, seconds in runs.items():
            least = min(seconds)
            figures = {"CPU µs/step": round(least * 1e6), "ratio": round(least / bare, 2)}
            rows.append({"case": f"{model}: {CASES[case]}", **figures})
            ratio = f"{least / bare:>6.2f} × bare Trainer"
            print(f"{model:>6}  {least * 1e6:>9.0f} µs/step  {ratio}  {CASES[case]}", flush=True)
    if arguments.json:
        command = "python benchmarks/step_overhead.py " + f"--steps {arguments.steps} --repeats {arguments.repeats}"
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
