"""What a mirror costs: a training step with and without it, an upload beside a plain copy, and requests an hour.

    python benchmarks/mirror.py [--steps 240] [--repeats 5] [--json FILE]

Steps: an MLP with a checkpoint of about 12 MB, saved every 20 steps, and each save goes up at once; a usual run saves a
thousand times less often. What the training thread pays is its own CPU time; the upload has a thread of its own. Both
cases run in processes of their own, in turn, and the least time counts.

Uploads: one checkpoint into a folder beside shutil.copyfile with fsync, and into an S3 server on this machine (moto)
beside boto3's upload_file, in turn. A mirror also computes nothing twice: the checksum is that of the checkpoint.

Requests: those of an hour with a save every five minutes, counted at a store that does nothing else.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import this_machine, write_figures
from template_path import ROOT, use_template

use_template()
sys.path.insert(0, str(ROOT / "tests" / "mirror"))

MODEL = dict(features=1000, width=700, depth=2)
SIZES = (10, 100)  # MB


def train(mirrored: bool, steps: int, folder: Path) -> tuple[float, float, float]:
    """Seconds of CPU a step in the training thread and in the whole process, and MB that were sent."""
    import lightning.pytorch as pl
    from fake_run import make_run, upload_of
    from step_overhead import BATCH, dataset, network
    from torch import nn, optim
    from torch.utils.data import DataLoader

    from lightning_hpc.mirror.sender import Sender
    from lightning_hpc.survive.checkpoint_io import AtomicCheckpointIO
    from lightning_hpc.survive.checkpoints import Checkpoints
    from lightning_hpc.survive.exact_resume import ExactResume
    from lightning_hpc.survive.metrics_file import MetricsFile

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network(**MODEL)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return optim.AdamW(self.parameters())

    class Clock(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 10:
                self.begin = time.thread_time(), time.process_time()

        def on_train_end(self, trainer, pl_module):
            self.end = time.thread_time(), time.process_time()

    run = make_run(folder / "runs" / "000-base-01234567")
    checkpoints, sender, clock = Checkpoints(every_n_steps=20, monitor=None), None, Clock()
    if mirrored:
        (folder / "mirror").mkdir()
        upload = upload_of(run, f"file://{folder}/mirror")
        upload.settings.every = 1e-6
        sender = Sender(upload)
        checkpoints.on_save.append(sender.offer)
        sender.start()

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, num_sanity_val_steps=0, enable_model_summary=False,
        callbacks=[ExactResume(0), checkpoints, clock], logger=MetricsFile(run.path), plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path, enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(dataset(MODEL["features"], steps), batch_size=BATCH, shuffle=True))
    sent = 0.0
    if sender is not None:
        print(sender.finish("done"))
        sent = sender.sent / 1e6
    in_thread, in_process = ((end - begin) / (steps - 10) for begin, end in zip(clock.begin, clock.end, strict=True))
    return in_thread, in_process, sent


def compare_steps(steps: int, repeats: int) -> list[dict]:
    """A row for a run without a mirror and for one with it."""
    measured: dict[str, list] = {"without": [], "with": []}
    for _ in range(repeats):
        for case, times in measured.items():
            command = [sys.executable, __file__, "--case", case, "--steps", str(steps)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
            times.append([float(word) for word in done.stdout.splitlines()[-1].split()])

    rows = []
    least = {case: min(times)[0] for case, times in measured.items()}
    for case, times in measured.items():
        ratio = least[case] / least["without"]
        row = {"what": f"a step {case} a mirror, CPU of the training thread", "measured": f"{least[case] * 1e3:.2f} ms"}
        rows.append({**row, "ratio": f"{ratio:.3f}"})
        sent = f", {times[0][2]:,.0f} MB sent by the other thread" if case == "with" else ""
        print(f"{case:>8} a mirror: {least[case] * 1e3:.2f} ms a step ({ratio:.3f} ×){sent}", flush=True)
    return rows


def checkpoint(folder: Path, megabytes: int, step: int):
    """A run's folder with a checkpoint of that size, and what on_save is told of it."""
    from fake_run import make_run

    from lightning_hpc.files import atomic_write
    from lightning_hpc.survive.checkpoint_files import write_meta

    run = make_run(folder / "000-base-01234567")
    file = run.path / "checkpoints" / f"step-{step:08d}.ckpt"
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file) as stream:
        stream.write(os.urandom(megabytes * 1_000_000))

    from lightning_hpc.files import hash_of

    entry = dict(file=file.name, step=step, epoch=1, sha256=hash_of(file))
    write_meta(file.parent, dict(last=entry, best=None, kept=[entry]))
    return run, entry, file


def copy_plainly(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def compare_uploads(place: str, plain, address: str, repeats: int) -> list[dict]:
    """Rows for uploads of checkpoints of several sizes, beside a plain one."""
    from fake_run import upload_of

    rows = []
    for size in SIZES:
        ours, theirs = [], []
        with tempfile.TemporaryDirectory() as folder:
            upload = None
            for step in range(1, repeats + 1):
                run, entry, file = checkpoint(Path(folder), size, step)
                upload = upload or upload_of(run, address)
                staged = upload.staging.newest(entry)
                begin = time.perf_counter()
                upload.send(staged, None, True, False)
                ours.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                plain(file, f"plain-{step}")
                theirs.append(time.perf_counter() - begin)
        ratio = min(ours) / min(theirs)
        rate = size / min(ours)
        print(f"{place}, {size} MB: {min(ours):.2f} s, {rate:.0f} MB/s, {ratio:.2f} × a plain upload", flush=True)
        rows.append({"what": f"{size} MB to {place}", "measured": f"{rate:.0f} MB/s", "ratio": f"{ratio:.2f}"})
    return rows


class Counting:
    """A store that counts what it is asked for: a request for each file that is put, and one for each other call."""

    def __init__(self, store, gap: float) -> None:
        self.store, self.address, self.seconds_between_puts = store, store.address, gap
        self.requests, self.changes = 0, 0

    def put(self, files) -> None:
        self.requests += len(files)
        self.changes += 1
        self.store.put(files)

    def get(self, name, target) -> None:
        self.requests += 1
        self.store.get(name, target)

    def list(self, folder):
        self.requests += 1
        return self.store.list(folder)

    def delete(self, names) -> None:
        self.requests += 1
        self.changes += 1
        self.store.delete(names)


def count_requests() -> dict:
    """A row for the requests of an hour with a save every five minutes."""
    from fake_run import make_run, send, upload_of

    from lightning_hpc.remote import open_store

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mirror").mkdir()
        store = Counting(open_store(f"file://{folder}/mirror"), 0.0)
        upload = upload_of(make_run(Path(folder) / "000-base-01234567"), store)
        send(upload, 1)
        store.requests = store.changes = 0
        for save in range(12):
            send(upload, 2 + save)
    print(f"{store.requests} requests an hour; as commits of the Hub: {store.changes}")
    what = "requests an hour, one save every five minutes"
    return {"what": what, "measured": f"{store.requests}; {store.changes} commits on the Hub", "ratio": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--case", choices=["with", "without"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        with tempfile.TemporaryDirectory() as folder:
            print(*train(arguments.case == "with", arguments.steps, Path(folder)))
        return

    machine = this_machine()
    print(machine)
    rows = compare_steps(arguments.steps, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / "mirror", Path(folder) / "plain"]
        for place in places:
            place.mkdir()
        rows += compare_uploads(
            "a folder",
            lambda file, name: copy_plainly(file, places[1] / name),
            f"file://{places[0]}",
            arguments.repeats,
        )
    rows += compare_s3(arguments.repeats)
    rows.append(count_requests())
    if arguments.json:
        command = f"python benchmarks/mirror.py --steps {arguments.steps} --repeats {arguments.repeats}"
        write_figures(arguments.json, machine, command, rows)


def compare_s3(repeats: int) -> list[dict]:
    """Rows for uploads to an S3 server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ |= dict(
            AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
            AWS_DEFAULT_REGION="us-east-1",
        )  # fmt: skip
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        return compare_uploads(
            "S3", lambda file, name: client.upload_file(str(file), "bucket", name), "s3://bucket/mirror", repeats
        )
    finally:
        server.stop()


if __name__ == "__main__":
    main()
