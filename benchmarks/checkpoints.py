"""How long training stands still for a checkpoint, beside a copy in memory, torch.save, and torch's own async_save.

    python benchmarks/checkpoints.py [--sizes 10 100 1000] [--turns 7] [--json FILE]

A model with so many MB of parameters and AdamW, so that a checkpoint has three times as much, is saved by

    a copy in memory       what any consistent save needs at least: each tensor cloned
    ours                   callback Checkpoints: a copy, which a thread writes
    ours, waiting          the same with background=False: written, hashed and brought to disk before training goes on
    torch.save             into a file, which is not brought to disk
    async_save             torch.distributed.checkpoint, into a folder; returns when it has its copy

They take turns, each after the last one's thread has ended. What counts is the time until training could go on: CPU
seconds of the thread that trains, and seconds on the clock, which other programs on the machine disturb. `written` is
all CPU time that the save has taken, of all threads.
"""

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from figures import this_machine, write_figures
from template_path import use_template

COPY, OURS, WAITING, SAVE, ASYNC = "a copy in memory", "ours", "ours, waiting", "torch.save", "async_save"
LAYERS = 24


def measure(megabytes: int, turns: int, folder: Path) -> dict[str, list[tuple[float, float, float]]]:
    """(CPU seconds of the training thread, seconds on the clock, CPU seconds in all) of each save, by kind."""
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torch.distributed import checkpoint as distributed
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_hpc.survive.checkpoints import Checkpoints
    from lightning_hpc.survive.exact_resume import ExactResume
    from lightning_hpc.survive.saving.publish import Publisher

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            numbers = megabytes * 250_000 // LAYERS
            self.layers = torch.nn.ParameterList(torch.randn(numbers) for _ in range(LAYERS))

        def training_step(self, batch, batch_idx):
            return sum(layer.mean() for layer in self.layers)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), foreach=False)

    checkpoints = Checkpoints(every_n_steps=None, every_n_minutes=None, monitor=None, keep=1)
    waiting = Checkpoints(every_n_steps=None, every_n_minutes=None, monitor=None, keep=1, background=False)
    measured: dict[str, list[tuple[float, float, float]]] = {}

    class Measure(Callback):
        """After the first step, when the optimizer has its state."""

        def on_train_batch_end(self, trainer, pl_module, *arguments):
            waiting._publisher = Publisher(checkpoints.folder.with_name("waiting"), keep=1)
            kinds = self.kinds(trainer, pl_module)
            for turn in range(turns + 1):
                for name, (save, end) in kinds.items():
                    began = time.thread_time(), time.monotonic(), time.process_time()
                    answer = save()
                    stalled = time.thread_time() - began[0], time.monotonic() - began[1]
                    end(answer)
                    if turn:  # the first one warms up
                        measured.setdefault(name, []).append((*stalled, time.process_time() - began[2]))

        def kinds(self, trainer, model):
            def state():
                return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

            def tensors():
                return dict(model=model.state_dict(), optimizer=trainer.optimizers[0].state_dict())

            def copy():
                states = trainer.optimizers[0].state_dict()["state"].values()
                moments = [value for one in states for value in one.values()]
                return [tensor.clone() for tensor in (*model.state_dict().values(), *moments)]

            def asynchronous():
                shutil.rmtree(folder / "distributed", ignore_errors=True)
                return distributed.async_save(tensors(), checkpoint_id=folder / "distributed", no_dist=True)

            return {
                COPY: (copy, lambda copied: copied.clear()),
                OURS: (lambda: checkpoints.save(trainer), lambda _: checkpoints.settle(wait=True)),
                WAITING: (lambda: waiting.save(trainer), lambda _: None),
                SAVE: (lambda: torch.save(state(), folder / "saved.ckpt"), lambda _: None),
                ASYNC: (asynchronous, lambda future: future.result()),
            }

    loader = DataLoader(TensorDataset(torch.zeros(1, 1)), 1)
    trainer = Trainer(
        accelerator="cpu", max_steps=1, callbacks=[ExactResume(), checkpoints, Measure()], default_root_dir=folder,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    checkpoints.on_train_end = lambda *arguments: None
    trainer.fit(Model(), loader)
    return measured


def row_of(megabytes: int, turns: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(megabytes, turns, Path(folder))

    cpu, clock, written = (
        {name: statistics.median(one[column] for one in turns) for name, turns in measured.items()}
        for column in range(3)
    )
    pairs = [ours[0] / copy[0] for ours, copy in zip(measured[OURS], measured[COPY], strict=True)]
    return {
        "parameters, MB": megabytes,
        "copy, CPU s": round(cpu[COPY], 3),
        **{f"{name}, CPU s": round(cpu[name], 3) for name in (OURS, WAITING, SAVE, ASYNC)},
        "ours ÷ copy": round(cpu[OURS] / cpu[COPY], 2),
        "each turn": f"{min(pairs):.2f}–{max(pairs):.2f}",
        "torch.save ÷ ours": round(cpu[SAVE] / cpu[OURS], 1),
        "async_save ÷ ours": round(cpu[ASYNC] / cpu[OURS], 1),
        "on the clock, s": " · ".join(f"{name} {clock[name]:.2f}" for name in (COPY, OURS, WAITING, SAVE, ASYNC)),
        "written, CPU s": " · ".join(f"{name} {written[name]:.2f}" for name in (OURS, WAITING, SAVE, ASYNC)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="MB of parameters")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"
    use_template(researchers_files=False)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    machine = this_machine(f"load average {os.getloadavg()[0]:.1f} before")
    print(machine)
    rows = []
    for megabytes in arguments.sizes:
        rows.append(row_of(megabytes, arguments.turns))
        print(*(f"{name}: {value}" for name, value in rows[-1].items()), sep=" | ", flush=True)

    if arguments.json:
        sizes = " ".join(map(str, arguments.sizes))
        command = f"python benchmarks/checkpoints.py --sizes {sizes} --turns {arguments.turns}"
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
