"""The run that is killed: everything that makes resuming hard, on data and a network that take milliseconds.

    python victim.py FOLDER '{"workers": 2, "averaging": "both"}'   one attempt in a process of its own
    python victim.py --serve                                        attempts forked from this process, see `serve`

Augmentation with Python's, NumPy's and torch's generators and one of the dataset's own, batch norm, dropout, clipping,
accumulation, weight averaging, schedulers of all kinds, validations within an epoch, metrics of every kind. With
`stock`, exact resume is left out and what Lightning offers is used instead.
"""

import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_hpc import signals

if __name__ == "__main__" and sys.argv[1] != "--serve":
    signals.install()  # before torch is imported, as a program should

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_hpc.survive.checkpoint_files import find_checkpoint
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.survive.exact_resume import ExactResume
from lightning_hpc.survive.metrics_file import MetricsFile
from lightning_hpc.training.averaging import EMA, SWA

SAMPLES, CLASSES, BATCH = 44, 3, 4


@dataclass(frozen=True)
class Setup:
    """A way to train; the defaults are plain training."""

    stock: bool = False  # Lightning alone
    ranks: int = 1
    workers: int = 0
    persistent: bool = False
    accumulate: int = 1
    averaging: str = "none"  # none, averaged, both (EMA), swa
    clip: float | None = None
    validations: float = 1.0  # per epoch, as val_check_interval
    schedulers: str = "none"  # none, step, epoch, plateau
    epochs: int = 3
    max_steps: int = -1
    limit: int | None = None  # batches per epoch
    sampler: str = "shuffle"  # shuffle, weighted, batches, two (a dict of loaders), max_size, stream, stateful
    transfer: bool = False  # augmentation after the batch was moved to the device
    reload: int = 0  # reload_dataloaders_every_n_epochs, and data that differ by epoch
    early_stopping: bool = False
    manual: bool = False  # manual optimization
    sanity: int = 0
    save_every: int = 7
    background: bool = True  # training goes on while a checkpoint is written
    device: str = "cpu"  # or cuda, with deterministic kernels
    strategy: str = "files"  # or fsdp, folder: checkpoints that are folders, of two ranks and of one


class Images(Dataset):
    """Random 3×6×6 images; augmented with generators of all kinds.

    Args:
        seed: of the dataset's own generator; None: exact resume has to seed it.
    """

    def __init__(self, seed: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(SAMPLES, 3, 6, 6, generator=generator)
        self.targets = torch.randint(CLASSES, (SAMPLES,), generator=generator)
        self.own = np.random.default_rng(seed)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        if random.random() < 0.5:
            image = image.flip(-1)
        image = image * float(np.random.uniform(0.9, 1.1)) + float(self.own.normal(0, 0.05))
        return image + 0.05 * torch.randn_like(image), self.targets[index]


class Stream(IterableDataset):
    """The same images as a stream, of which each worker reads its part."""

    def __init__(self, seed: int | None = None) -> None:
        self.images, self.start, self.place = Images(seed), 0, 0

    def __iter__(self) -> Any:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(worker, SAMPLES, workers):
            if number >= self.start:
                self.place = number + 1
                yield self.images[number]


class StatefulStream(Stream):
    """It can start where it was."""

    def state_dict(self) -> dict[str, int]:
        return dict(place=self.place)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["place"]


class Data(LightningDataModule):
    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.settings = setup
        self.seed = 0 if setup.stock else None
        self.own = np.random.RandomState(self.seed)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.settings.transfer:
            return batch
        images, targets = batch
        return images + 0.1 * torch.randn_like(images) * random.random() * float(self.own.rand()), targets

    def loader(self, workers: int | None = None, **arguments: Any) -> DataLoader:
        workers = self.settings.workers if workers is None else workers
        persistent = self.settings.persistent and workers > 0
        return DataLoader(Images(self.seed), num_workers=workers, persistent_workers=persistent, **arguments)

    def train_dataloader(self) -> Any:
        if self.settings.sampler == "weighted":
            return self.loader(batch_size=BATCH, sampler=WeightedRandomSampler([1.0] * 22 + [2.0] * 22, SAMPLES))
        if self.settings.sampler == "batches":
            return self.loader(batch_sampler=PairedBatches(RandomSampler(range(SAMPLES)), BATCH, drop_last=True))
        if self.settings.sampler == "two":
            return {"one": self.loader(batch_size=BATCH, shuffle=True), "two": self.loader(batch_size=7, shuffle=True)}
        if self.settings.sampler == "max_size":
            loaders = {"one": self.loader(batch_size=BATCH, shuffle=True), "two": self.loader(batch_size=11)}
            return CombinedLoader(loaders, "max_size")
        if self.settings.sampler in ("stream", "stateful"):
            stream = dict(stream=Stream, stateful=StatefulStream)[self.settings.sampler](self.seed)
            return DataLoader(stream, BATCH, num_workers=self.settings.workers)
        if self.settings.reload:
            of_this_epoch = random.sample(range(SAMPLES), 20 + self.trainer.current_epoch)
            return self.loader(batch_size=BATCH, sampler=SubsetRandomSampler(of_this_epoch))
        return self.loader(batch_size=BATCH, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        # One worker: what several do to the order shows in training, and each costs a fork per validation.
        return self.loader(workers=min(self.settings.workers, 1), batch_size=BATCH)


class PairedBatches(BatchSampler):
    """A batch sampler of the user's own: batches come in pairs that share their samples."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch
            yield random.sample(batch, len(batch))

    def __len__(self) -> int:
        return 2 * super().__len__()


class Net(LightningModule):
    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.settings = setup
        self.automatic_optimization = not setup.manual
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(128, CLASSES)
        )
        metrics = dict(acc=MulticlassAccuracy(CLASSES), f1=MulticlassF1Score(CLASSES))
        self.train_metrics = MetricCollection(dict(metrics), prefix="train/")
        self.val_metrics = MetricCollection(dict(metrics), prefix="val/").clone()
        self.train_mean = MeanMetric()
        self.scale = 1.0

    def on_train_epoch_start(self) -> None:
        self.scale = 1 + 0.1 * self.current_epoch + random.random()  # what users do: settings that depend on the epoch

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if isinstance(batch, dict):
            both = [part for part in batch.values() if part is not None]
            batch = [torch.cat(parts) for parts in zip(*both, strict=True)]
        images, targets = batch
        if self.trainer.is_global_zero:
            with open(Path(self.trainer.default_root_dir) / "batches", "a") as file:
                file.write(".")  # one per batch that is trained on, those that a kill undoes included
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, targets) * self.scale
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/python", float(loss) + random.random(), on_step=False, on_epoch=True)
        self.log("train/largest", loss, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True)
        if batch_idx % 5 == 0:
            self.log("train/rare", loss, on_step=True, on_epoch=True)
        self.train_metrics.update(logits, targets)
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        self.train_mean.update(loss)
        if self.settings.manual:
            optimizer = self.optimizers()
            self.manual_backward(loss)
            if batch_idx % 2:
                optimizer.step()
                optimizer.zero_grad()
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/mean", self.train_mean.compute())
        self.train_mean.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, targets = batch
        logits = self.net(images + 0.01 * torch.randn_like(images))
        loss = nn.functional.cross_entropy(logits, targets)
        self.log("val/loss", loss, sync_dist=True)
        self.log("val/step", loss, on_step=True, on_epoch=False)
        self.val_metrics.update(logits, targets)
        self.log_dict(self.val_metrics)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 0.01)
        schedulers = torch.optim.lr_scheduler
        scheduler = dict(
            none=lambda: None,
            # OneCycleLR asks how long the run is: #20550
            step=lambda: dict(
                scheduler=schedulers.OneCycleLR(optimizer, 0.02, int(self.trainer.estimated_stepping_batches)),
                interval="step",
            ),
            epoch=lambda: dict(scheduler=schedulers.StepLR(optimizer, 1, 0.7)),
            plateau=lambda: dict(
                scheduler=schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2), monitor="val/loss"
            ),
        )[self.settings.schedulers]()
        return optimizer if scheduler is None else dict(optimizer=optimizer, lr_scheduler=scheduler)


class ShardedNet(Net):
    """The same, with each rank holding a part of the weights."""

    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class OneFolder(SingleDeviceStrategy):
    """Writes a checkpoint as strategies do that write folders: most of it without the CheckpointIO, and in place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        folder = Path(filepath)
        (folder / "parts").mkdir(parents=True)  # fails if there is one
        torch.save(checkpoint.pop("state_dict"), folder / "parts" / "weights.pt")
        torch.save(checkpoint, folder / "meta.pt")

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(checkpoint_path)
        weights, rest = (torch.load(folder / name, weights_only=True) for name in ("parts/weights.pt", "meta.pt"))
        return dict(state_dict=weights, **rest)


def strategy(setup: Setup) -> Any:
    if setup.strategy == "fsdp":
        return ModelParallelStrategy(setup.ranks, 1, process_group_backend="gloo")
    if setup.strategy == "folder":
        return OneFolder()
    return "ddp" if setup.ranks > 1 else "auto"


class Killer(Callback):
    """Sends this process a signal at the n-th Python or C call of a phase: any moment, and the same one each time.

    Phases: `run` (all of it, in the main thread), `validation`, `save` (with the thread that writes). Python is slowed
    down by counting, so only that phase is counted.

    Args:
        number: the signal.
        calls: calls in the phase before it is sent; 0: never, only count.
        phase: the phase that is counted.
    """

    def __init__(self, number: int, calls: int, phase: str) -> None:
        self.number, self.calls, self.phase = number, calls, phase
        self.in_phase = dict.fromkeys(("run", "validation", "save"), 0)  # of them in each phase
        self.entered: dict[str, int] = {}
        self.count: Callable[[], int] = lambda: 0
        self.in_thread: Callable[..., None] | None = None  # counts what the thread that writes does

    def start(self) -> None:
        save = Checkpoints.save
        killer = self

        def watched(self: Checkpoints, trainer: Trainer, **options: Any) -> None:
            killer.enter("save")
            save(self, trainer, **options)
            killer.leave("save")

        Checkpoints.save = watched
        os.register_at_fork(after_in_child=count_nothing)  # in workers
        if self.phase == "run":
            sys.setprofile(self.counter())
        if self.phase == "save":
            threading.setprofile(lambda *event: self.in_thread and self.in_thread(*event))

    def counter(self) -> Any:
        """A profile function, which Python calls at each call and return."""
        seen, calls = self.seen, self.calls

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == calls:
                sys.setprofile(None)
                os.kill(os.getpid(), self.number)

        self.count = lambda: seen
        self.in_thread = count if self.phase == "save" else None
        return count

    @property
    def seen(self) -> int:
        """Calls so far."""
        return self.count()

    def enter(self, phase: str) -> None:
        self.entered[phase] = self.seen
        if phase == self.phase and not 0 < self.calls <= self.seen:
            sys.setprofile(self.counter())

    def leave(self, phase: str) -> None:
        self.in_phase[phase] += self.seen - self.entered[phase]
        if phase == self.phase:
            sys.setprofile(None)

    def counts(self) -> dict[str, int]:
        """Calls in each phase, at the end of a run that has counted all of it."""
        return self.in_phase | dict(run=self.seen)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.enter("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave("validation")


def count_nothing() -> None:
    sys.setprofile(None)
    threading.setprofile(None)


def trainer(setup: Setup, folder: Path, killer: Killer | None) -> Trainer:
    callbacks: list[Callback] = []
    if setup.stock:
        averaging = dict(averaged=EMAWeightAveraging, both=EMAWeightAveraging)
        if setup.averaging in averaging:
            callbacks.append(averaging[setup.averaging](decay=0.9))
        callbacks.append(
            ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_train_steps=setup.save_every, save_top_k=1)
        )
        logger = CSVLogger(folder, "", "")
    else:
        averaging = dict(
            averaged=lambda: EMA(0.9), both=lambda: EMA(0.9, evaluate="both"), swa=lambda: SWA(1, evaluate="both")
        )
        options = dict(every_n_steps=setup.save_every, every_n_minutes=None, background=setup.background)
        callbacks += [ExactResume(seed=3), Checkpoints(**options)]
        if setup.averaging in averaging:
            callbacks.append(averaging[setup.averaging]())
        logger = MetricsFile(folder)
    if setup.early_stopping:
        callbacks.append(EarlyStopping("val/loss", patience=1))
    if killer is not None:
        callbacks.append(killer)
    return Trainer(
        accelerator=setup.device,
        deterministic=setup.device == "cuda",
        strategy=strategy(setup),
        devices=setup.ranks,
        max_epochs=setup.epochs if setup.max_steps < 0 else -1,
        max_steps=setup.max_steps,
        accumulate_grad_batches=setup.accumulate,
        gradient_clip_val=None if setup.manual else setup.clip,
        val_check_interval=setup.validations,
        limit_train_batches=setup.limit,
        reload_dataloaders_every_n_epochs=setup.reload,
        num_sanity_val_steps=setup.sanity,
        log_every_n_steps=3,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=folder,
        enable_checkpointing=setup.stock,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def attempt(folder: Path, setup: Setup, kill: tuple[int, int, str] | None = None, count: bool = False) -> int:
    """Run, or go on with, the training in this folder; returns the exit code of a program that uses these rooms."""
    if setup.stock:
        seed_everything(1, workers=True, verbose=False)
        last = folder / "checkpoints" / "last.ckpt"
        resume = dict(ckpt_path=last if last.exists() else None)
    else:
        found = find_checkpoint(folder / "checkpoints")
        resume = dict(ckpt_path=found and found.path, weights_only=True)
    torch.manual_seed(1)
    model = ShardedNet(setup) if setup.strategy == "fsdp" else Net(setup)
    killer = None
    if kill or count:
        killer = Killer(*kill) if kill else Killer(0, 0, "run")
    fit = trainer(setup, folder, killer)
    if killer:
        killer.start()
    try:
        fit.fit(model, datamodule=Data(setup), **resume)
    except signals.Stopped as stopped:
        return dict(preempted=75, interrupted=130).get(stopped.reason, 76)
    finally:
        sys.setprofile(None)
    if count:
        (folder / f"calls-{fit.global_rank}.json").write_text(json.dumps(killer.counts()))
    return 0


def quiet() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


def child(folder: str, setup: dict[str, Any], kill: Any, count: bool, rank: int, port: int) -> None:
    """One forked process: an attempt, or one rank of it; never returns."""
    if not setup["stock"]:
        signals.install()
    if setup["ranks"] > 1:
        os.environ |= dict(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    errors = os.open(Path(folder).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    code = 1
    try:
        code = attempt(Path(folder), Setup(**setup), kill and tuple(kill), count)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def warm_up() -> None:
    """Train once in this process, so that no attempt has to load what torch and Lightning load at their first use."""
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(epochs=2, limit=3, averaging="both", schedulers="plateau", save_every=2)
        assert attempt(Path(folder), setup) == 0
    import torch.distributed.algorithms.ddp_comm_hooks.default_hooks
    import torch.distributed.algorithms.model_averaging.averagers
    import torch.distributed.checkpoint.state_dict
    import torch.distributed.optim  # noqa: F401 - with those above: what two ranks need

    gc.collect()
    gc.freeze()  # a collection in an attempt would copy all pages that it shares with this process


def serve() -> None:
    """Fork attempts from this process, where torch is imported already: request and answer are lines of JSON.

    A request: folder, setup, kill = [signal, calls, phase] or null, victim = the rank that is killed, count, port, and
    two limits in seconds, after which what still runs is killed, as a batch system does: `grace` after the first rank
    has failed, `limit` after the start. The answer: the exit codes of all ranks, −signal for one that a signal has
    killed, and whether the limit was reached.
    """
    quiet()
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        ranks = request["setup"]["ranks"]
        children = []
        for rank in range(ranks):
            kill = request["kill"] if rank == request["victim"] else None
            if (pid := os.fork()) == 0:
                child(request["folder"], request["setup"], kill, request["count"], rank, request["port"])
            children.append(pid)
        codes: dict[int, int] = {}
        limit = deadline = time.monotonic() + request["limit"]
        while len(codes) < ranks:
            for pid in children:
                if pid not in codes and (done := os.waitpid(pid, os.WNOHANG))[0]:
                    codes[pid] = os.waitstatus_to_exitcode(done[1])
                    if codes[pid] != 0:
                        deadline = min(deadline, time.monotonic() + request["grace"])
            if time.monotonic() > deadline:
                for pid in set(children) - set(codes):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        print(json.dumps(dict(codes=[codes[pid] for pid in children], hung=time.monotonic() > limit)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        quiet()
        settings = json.loads(sys.argv[2])
        sys.exit(attempt(Path(sys.argv[1]), Setup(**settings)))
