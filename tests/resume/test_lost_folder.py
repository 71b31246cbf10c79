"""A run whose folder is deleted ends at once, in training and in a validation: a second start may be in a new one."""

import pytest
from lightning.pytorch import Callback
from test_checkpoints import Model, fit

from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.training.callbacks import FolderIsLost, FolderIsThere


class Deleted(Callback):
    """Moves the folder away in a phase, as seen from the run the same as deleting it; counts the batches after that."""

    def __init__(self, folder: RunFolder, phase: str) -> None:
        self.folder, self.phase, self.after = folder, phase, 0

    def on_train_batch_end(self, *_) -> None:
        self._ended("train")

    def on_validation_batch_end(self, *_) -> None:
        self._ended("validation")

    def _ended(self, phase: str) -> None:
        if not self.folder.path.exists():
            self.after += 1
        elif phase == self.phase:
            self.folder.path.rename(self.folder.path.with_name("deleted"))


@pytest.mark.parametrize("phase", ["train", "validation"])
def test_a_run_whose_folder_is_deleted_ends_before_its_next_batch(tmp_path, phase):
    folder = RunFolder(tmp_path / "run")
    deleted = Deleted(folder, phase)
    with folder.locked(), pytest.raises(FolderIsLost, match="has been deleted or replaced while the run was in it"):
        fit(folder.path, Checkpoints(), Model(), callbacks=[FolderIsThere(folder, every=0), deleted])
    assert deleted.after == 0
    assert not folder.path.exists()  # nothing has made it again
