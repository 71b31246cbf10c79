"""Two processes train on one data set: one download, one split, and each sample of an evaluation once."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

DATA = """
import os
import torch
from lightning.pytorch import Callback
from torch.utils.data import TensorDataset
from lightning_hpc.data import DataModule, fetch


class Fetched(DataModule):
    classes, input_shape = 2, (4,)

    def prepare_data(self):
        fetch(os.environ["DATA_URL"], self.data_dir / "file.bin", os.environ["DATA_SHA256"])

    def load(self):
        size = (self.data_dir / "file.bin").stat().st_size
        inputs = torch.arange(size).float().unsqueeze(1).expand(size, 4)
        return {"train": TensorDataset(inputs, torch.arange(size) % 2)}


class Note(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        note("train", trainer, batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            note("val", trainer, batch)


def note(stage, trainer, batch):
    with open(f"{stage}-{trainer.global_rank}", "a") as file:
        print(*batch[0][:, 0].int().tolist(), file=file)
"""


@pytest.mark.slow
def test_two_ranks(project, tmp_path):
    import hashlib

    from misbehaving import Misbehaving

    content = bytes(104)
    (tmp_path / "fetched.py").write_text(DATA)
    with Misbehaving(content) as server:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "DATA_URL": server.url("good"),
            "DATA_SHA256": hashlib.sha256(content).hexdigest(),
        }
        command = (
            "fit --config trainer/ddp.yaml --trainer.accelerator=cpu --trainer.devices=2 --trainer.strategy=ddp "
            "--trainer.max_epochs=1 --cka=null --data=fetched.Fetched --data.batch_size=5 --trainer.precision=32-true "
            "--model.network=MLP --trainer.callbacks+=fetched.Note --runs_dir=runs"
        ).split()
        command = [sys.executable, project / "Train.py", *command]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert server.asked["/good/file.bin"] <= 5  # what one attempt needs
    (run,) = tmp_path.glob("runs/default/*")
    with np.load(run / "splits.npz") as split:
        train, val = split["train"].tolist(), split["val"].tolist()

    def seen(stage: str) -> list[int]:
        texts = [(tmp_path / f"{stage}-{rank}").read_text() for rank in (0, 1)]
        return sorted(int(number) for text in texts for number in text.split())

    assert len(train) == 62 and seen("train") == train
    assert len(val) == 21 and seen("val") == val  # an odd number: shared out evenly, one would count twice
    assert json.loads((run / "status.json").read_text())["state"] == "done"
