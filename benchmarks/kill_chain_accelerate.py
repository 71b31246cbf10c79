"""The run of tests/resume/victim.py as a loop of one's own with accelerate: a peer for kill_chain.py, which starts it.

It uses what accelerate offers for this: `set_seed`, seedable samplers, torchdata's loaders with a state, `save_state`
and `load_state` with the states of generators, numbered folders. If the newest can't be loaded, the one before is.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import victim
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed
from torch import nn


class Progress:
    """Where the run is; a part of each checkpoint."""

    def __init__(self) -> None:
        self.epoch = self.batch = self.step = 0

    def state_dict(self) -> dict[str, int]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, int]) -> None:
        vars(self).update(state)


def resume(accelerator: Accelerator, folder: Path) -> None:
    """Load the newest checkpoint that can be loaded, if there is one."""
    numbers = sorted(int(path.name.split("_")[1]) for path in folder.glob("checkpoints/checkpoint_*"))
    accelerator.project_configuration.iteration = max(numbers, default=-1) + 1
    for number in reversed(numbers):
        try:
            accelerator.load_state(str(folder / "checkpoints" / f"checkpoint_{number}"))
        except Exception:  # whatever is missing in a folder that was not written to its end
            continue
        return


def attempt(folder: Path, setup: Any, kill: tuple[int, int, str] | None = None, count: bool = False) -> int:
    """Run, or go on with, the training in this folder; returns the exit code."""
    os.environ |= dict(RANK=os.environ.get("LOCAL_RANK", "0"), WORLD_SIZE=str(setup.ranks))
    set_seed(1)
    killer = None
    if kill or count:
        killer = victim.Killer(*kill) if kill else victim.Killer(0, 0, "run")
        killer.start()

    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=setup.accumulate,
        dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True, use_seedable_sampler=True),
        project_config=ProjectConfiguration(str(folder), automatic_checkpoint_naming=True, total_limit=2),
    )
    net = victim.Net(setup).net
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    loader = victim.Data(setup).train_dataloader()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.9)
    net, optimizer, loader, schedule = accelerator.prepare(net, optimizer, loader, schedule)

    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    resume(accelerator, folder)

    while progress.epoch < setup.epochs:
        if progress.batch == 0:
            loader.set_epoch(progress.epoch)
        for images, targets in loader:
            (folder / "batches").open("a").write(".")
            with accelerator.accumulate(net):
                accelerator.backward(nn.functional.cross_entropy(net(images), targets))
                if setup.clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(net.parameters(), setup.clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            progress.batch += 1
            progress.step += 1
            if progress.step % setup.save_every == 0:
                save(accelerator, killer)
        progress.epoch += 1
        progress.batch = 0

    if accelerator.is_main_process:
        (folder / "checkpoints").mkdir(exist_ok=True)
        weights = accelerator.unwrap_model(net).state_dict()
        torch.save(dict(state_dict=weights), folder / "checkpoints" / "last.ckpt")
        (folder / "metrics.csv").write_text("step\n")
    sys.setprofile(None)
    if count:
        rank = accelerator.process_index
        (folder / f"calls-{rank}.json").write_text(victim.json.dumps(killer.counts()))
    return 0


def save(accelerator: Accelerator, killer: Any) -> None:
    if killer:
        killer.enter("save")
    accelerator.save_state()
    if killer:
        killer.leave("save")


if __name__ == "__main__":
    victim.attempt = attempt
    victim.warm_up = lambda: None  # accelerate keeps what it has found out about the machine, for all forks
    victim.serve()
