"""A checkpoint that is written gets its names, and old ones go."""

from pathlib import Path
from typing import Any

from ...files import sync_folder
from ..checkpoint_files import give_name, read_meta, remove_checkpoint, step_files, write_meta
from ..whole import is_complete


class Publisher:
    """Gives the checkpoints of one attempt their names. What is in the folder is read once: nobody else writes there.

    Args:
        folder: the run's checkpoints/.
        keep: how many of the newest ones to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._known: tuple[dict[str, Any], dict[int, Path]] | None = None  # meta.json, and the step files

    def forget(self) -> None:
        """Read the folder again the next time: a save that has failed may have left something."""
        self._known = None

    def publish(self, entry: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Point last and best to a new checkpoint, bring meta.json up to date, and drop old checkpoints.

        In this order, so that a kill in between leaves names that point to whole files. The folder is synced once:
        before an old checkpoint goes, the new one and its names are on disk.

        Args:
            entry: what meta.json says about the new one.
            best: what it says about its value, if it is the best so far; None if it is not.
        """
        path, best_name = self.folder / entry["file"], self.folder / "best.ckpt"
        meta, files = self._known or (read_meta(self.folder), step_files(self.folder))
        self.forget()  # if anything fails below
        give_name(path, self.folder / "last.ckpt")
        if best is not None:
            give_name(path, best_name)
            meta["best"] = entry | best

        # What lies ahead of this step is damaged, or of a future that was left by resuming from an older checkpoint.
        files[entry["step"]] = path
        kept = [step for step in sorted(files) if step <= entry["step"] and is_complete(files[step])][-self.keep :]

        entries = [old for old in meta.get("kept", []) if old["step"] in kept and old["step"] != entry["step"]]
        meta = dict(last=entry, best=meta.get("best"), kept=[*entries, entry])
        write_meta(self.folder, meta)
        sync_folder(self.folder)

        for step in set(files) - set(kept):
            if files[step].is_dir() and best_name.is_symlink() and files[step].samefile(best_name):
                continue  # a folder has no second name that would keep it
            remove_checkpoint(files.pop(step))
        self._known = meta, files
