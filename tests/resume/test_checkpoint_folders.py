"""Checkpoints that are folders, as FSDP and DeepSpeed write them: named, checked, kept and resumed like files.

With FSDP itself, on two ranks and with kills: test_kill_chains.py.
"""

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from test_checkpoints import Model, fit

from lightning_hpc.attempts.warm_start import warm_start
from lightning_hpc.survive.checkpoint_files import (
    CheckpointError,
    find_checkpoint,
    read_meta,
    remove_parts,
    step_files,
)
from lightning_hpc.survive.checkpoint_io import unusable
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.survive.whole import COMPLETE


class Folders(SingleDeviceStrategy):
    """Writes checkpoints as FSDP and DeepSpeed do: a folder, most of it without the CheckpointIO."""

    def save_checkpoint(self, checkpoint, filepath, storage_options=None):
        folder = Path(filepath)
        folder.mkdir(parents=True)  # fails if there is one
        torch.save(checkpoint.pop("state_dict"), folder / "__0_0.distcp")
        torch.save(checkpoint, folder / "meta.pt")

    def load_checkpoint(self, checkpoint_path, weights_only=None):
        parts = [torch.load(Path(checkpoint_path) / name, weights_only=True) for name in ("__0_0.distcp", "meta.pt")]
        return dict(state_dict=parts[0], **parts[1])


def test_checkpoints_that_are_folders_are_saved_named_checked_kept_and_resumed(tmp_path):
    folder = tmp_path / "checkpoints"
    values = (1.0, 2.0, 3.0)
    torch.manual_seed(0)
    fit(tmp_path, Checkpoints(every_n_steps=1), Model(values), strategy=Folders())
    assert list(step_files(folder)) == [4, 11, 12]  # 4 is the best
    assert (folder / "last.ckpt").resolve().name == "step-00000012.ckpt"
    assert (folder / "best.ckpt").resolve().name == "step-00000004.ckpt"
    files = (folder / "last.ckpt").iterdir()
    assert read_meta(folder)["last"]["size"] == sum(f.stat().st_size for f in files if f.name != "complete.json")

    (folder / "step-00000012.ckpt" / "complete.json").unlink()  # as a kill in the middle of a save leaves it
    (folder / "step-00000011.ckpt" / "meta.pt").write_bytes(b"half")
    found = find_checkpoint(folder, check=unusable)
    assert found.step == 4
    assert "not written to its end" in found.damaged[0] and "meta.pt in it has 4 bytes" in found.damaged[1]
    assert find_checkpoint(folder, "best").step == 4

    fit(tmp_path, Checkpoints(every_n_steps=3, keep=9), Model(values), resume=found.path, strategy=Folders())
    torch.manual_seed(0)
    fit(tmp_path / "whole", Checkpoints(), Model(values), strategy=Folders())
    ends = [Folders().load_checkpoint(place / "checkpoints" / "last.ckpt") for place in (tmp_path, tmp_path / "whole")]
    assert torch.equal(ends[0]["state_dict"]["layer.weight"], ends[1]["state_dict"]["layer.weight"])
    assert list(step_files(folder)) == [4, 7, 10, 12]


def test_a_folder_that_was_not_written_to_its_end_is_removed_and_never_counts_as_kept(tmp_path):
    folder = tmp_path / "checkpoints"
    fit(tmp_path, Checkpoints(every_n_steps=1, monitor=None), strategy=Folders(), epochs=1)
    assert list(step_files(folder)) == [3, 4]
    for step in (2, 5):  # as kills leave them: while an old one is removed, and while a new one is written
        (folder / f"step-{step:08d}.ckpt").mkdir()
        (folder / f"step-{step:08d}.ckpt" / "__0_0.distcp").write_bytes(b"as large as a whole one")
    found = find_checkpoint(folder, check=unusable)
    assert (found.step, len(found.damaged)) == (4, 1)

    remove_parts(folder)
    assert list(step_files(folder)) == [3, 4]

    class Killed(Folders):
        """Leaves a folder behind in the middle of training, as a save that fails does."""

        def save_checkpoint(self, checkpoint, filepath, storage_options=None):
            if filepath.name == "step-00000007.ckpt":
                filepath.mkdir()
                raise OSError(28, "No space left on device")
            super().save_checkpoint(checkpoint, filepath, storage_options)

    with pytest.warns(UserWarning, match="of step 7 could not be written: .*; the one of step 6 is still there"):
        fit(tmp_path, Checkpoints(every_n_steps=1, monitor=None), resume=found.path, strategy=Killed(), epochs=2)
    assert list(step_files(folder)) == [6, 8]


def test_a_kill_in_the_first_save_of_a_folder_leaves_no_checkpoint(tmp_path):
    """One that was whole once, and is not now, is another matter: it may be worth restoring."""
    folder = tmp_path / "checkpoints"
    (folder / "step-00000005.ckpt").mkdir(parents=True)
    (folder / "step-00000005.ckpt" / "__0_0.distcp").write_bytes(b"as large as a whole one")
    assert find_checkpoint(folder, check=unusable) is None

    (folder / "step-00000005.ckpt" / COMPLETE).write_text('{"__0_0.distcp": 99}')
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints in .* is whole"):
        find_checkpoint(folder, check=unusable)


def test_checkpoints_that_are_folders_are_taken_by_their_path_also_from_lightning(tmp_path):
    fit(tmp_path, Checkpoints(every_n_steps=1), strategy=Folders(), epochs=1)
    folder = tmp_path / "checkpoints"
    theirs = tmp_path / "epoch=1.ckpt"
    shutil.copytree(folder / "last.ckpt", theirs)
    assert find_checkpoint(folder, str(theirs), check=unusable).path == theirs

    (theirs / "complete.json").unlink()  # Lightning writes no list
    assert find_checkpoint(folder, str(theirs), check=unusable).path == theirs
    with pytest.raises(CheckpointError, match="last.ckpt is a folder, .* python -m lightning.pytorch.utilities.cons"):
        warm_start(Model(), folder / "last.ckpt")

    # What torch.save has written has checksums; a byte that is another one leaves the size as it is.
    meta = folder / "last.ckpt" / "meta.pt"
    content = bytearray(meta.read_bytes())
    content[content.index(b"global_step") + 3] ^= 1
    meta.write_bytes(content)
    with pytest.raises(CheckpointError, match="meta.pt in it: checksum of .* is wrong"):
        find_checkpoint(folder, "last", check=unusable)


def test_a_copy_that_followed_links_does_not_stop_the_next_save(tmp_path):
    fit(tmp_path, Checkpoints(), strategy=Folders(), epochs=1)
    folder = tmp_path / "checkpoints"
    for name in ("last.ckpt", "best.ckpt"):
        (folder / name).unlink()
        shutil.copytree(folder / "step-00000004.ckpt", folder / name)

    fit(tmp_path, Checkpoints(), resume=find_checkpoint(folder).path, strategy=Folders(), epochs=2)
    assert (folder / "last.ckpt").resolve().name == "step-00000008.ckpt"
