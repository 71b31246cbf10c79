"""A checkpoint that is written gets its names, and old ones go."""

from pathlib import Path
from typing import Any

from ...files import sync_folder
from ..checkpoint_files import give_name, read_meta, remove_checkpoint, step_files, write_meta
from ..whole import is_complete


def publish(folder: Path, entry: dict[str, Any], best: dict[str, Any] | None, keep: int) -> None:
    """Point last and best to a new checkpoint, bring meta.json up to date, and drop old checkpoints.

    In this order, so that a kill in between leaves names that point to whole files.

    Args:
        folder: the run's checkpoints/.
        entry: what meta.json says about the new one.
        best: what it says about its value, if it is the best so far; None if it is not.
        keep: how many of the newest ones to keep.
    """
    path, best_name = folder / entry["file"], folder / "best.ckpt"
    meta = read_meta(folder)
    give_name(path, folder / "last.ckpt")
    if best is not None:
        give_name(path, best_name)
        meta["best"] = entry | best

    # What lies ahead of this step is damaged, or of a future that was left by resuming from an older checkpoint.
    files = step_files(folder)
    kept = [step for step, file in files.items() if step <= entry["step"] and is_complete(file)][-keep:]

    entries = [old for old in meta.get("kept", []) if old["step"] in kept and old["step"] != entry["step"]]
    write_meta(folder, dict(last=entry, best=meta.get("best"), kept=[*entries, entry]))

    for step in set(files) - set(kept):
        if files[step].is_dir() and best_name.is_symlink() and files[step].samefile(best_name):
            continue  # a folder has no second name that would keep it
        remove_checkpoint(files[step])
    sync_folder(folder)
