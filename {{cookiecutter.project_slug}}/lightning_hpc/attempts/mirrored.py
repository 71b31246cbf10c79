"""An attempt at a run that has a mirror: what is looked up there before it begins, and the upload while it trains."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch import Trainer

from ..files import read_json, write_json
from ..logs import say
from ..mirror.fence import check_free, new_owner
from ..mirror.fetch import GO_WITHOUT, Fetcher, asked
from ..mirror.pointer import Pointer
from ..mirror.run_mirror import RunMirror, open_run
from ..mirror.sender import Sender
from ..mirror.settings import Mirror, MirrorError
from ..mirror.staging import FOLDER
from ..mirror.upload import About, Upload
from ..processes import is_other_rank
from ..runs.folder import RunFolder
from ..runs.owner import restarts
from ..runs.run import Run
from ..survive.checkpoint_files import CheckpointError, Found, find_checkpoint, whole_steps
from ..survive.checkpoint_io import unusable
from ..survive.checkpoints import Checkpoints

LONGEST_WAIT = 7200.0  # seconds that other ranks wait for what rank 0 fetches

Check = Callable[[Path], str | None]


class Remembered:
    """A check of checkpoints that reads each only once; replaced files are to be forgotten.

    Args:
        check: says what is wrong with a checkpoint, or None.
    """

    def __init__(self, check: Check) -> None:
        self.check = check
        self.known: dict[Path, str | None] = {}

    def __call__(self, path: Path) -> str | None:
        if path not in self.known:
            self.known[path] = self.check(path)
        return self.known[path]


class Unmirrored:
    """A run without a mirror, and any rank but the first of one with a mirror: nothing is to be done.

    Attributes:
        lines: what is to be told.
    """

    lines: Sequence[str] = ()

    def start(self, trainer: Trainer | None, checkpoint: Found | None) -> None:
        """Begin to upload."""

    def finish(self) -> None:
        """Upload the last state, and say how far that got."""


@dataclass
class Mirrored(Unmirrored):
    """A run, on rank 0, and its mirror.

    Attributes:
        run: the run.
        settings: of the mirror.
        mirror: the run's folder in it.
        pointer: what it has said; None if the run has not been there.
        fresh: the run starts over.
        sender: the thread that uploads, once it is there.
    """

    run: Run
    settings: Mirror
    mirror: RunMirror
    pointer: Pointer | None
    fresh: bool = False
    lines: list[str] = field(default_factory=list)
    sender: Sender | None = None

    def start(self, trainer: Trainer | None, checkpoint: Found | None) -> None:
        """Begin to upload.

        Args:
            trainer: whose checkpoints go up; None for a run that is done.
            checkpoint: what the run resumes from.
        """
        folder = self.run.folder
        step = None if checkpoint is None else checkpoint.step
        about = About(self.run.identity, self.run.group, folder.path.name)
        upload = Upload(self.mirror, folder, about, self.settings, self.pointer, step, self.fresh)
        self.sender = Sender(upload)
        for callback in trainer.callbacks if trainer else ():
            if isinstance(callback, Checkpoints):
                callback.on_save.append(self.sender.offer)

        known = self.pointer.step if self.pointer else 0
        if not self.fresh and (step or 0) > known:
            self.sender.catch_up()
        self.sender.start()

    def finish(self) -> None:
        """Upload the last state, and say how far that got."""
        if self.sender is not None:
            say(self.sender.finish(self.run.folder.status().get("state", "unknown")))


def look_into_mirror(run: Run, settings: Mirror, resume: str, check: Remembered) -> Unmirrored:
    """Ask the mirror for a run that is about to begin, and fetch what is newer there than here.

    Args:
        run: the run, whose folder rank 0 has locked.
        settings: of the mirror.
        resume: the setting --resume.
        check: says what is wrong with a checkpoint.

    Returns:
        the mirror, on rank 0; on other ranks, which wait until all is here, and without a mirror, nothing to do.

    Raises:
        MirrorError: it could not be asked, another machine has the run, or no checkpoint there is whole.
    """
    if settings.url is None:
        return Unmirrored()
    if run.folder.status().get("state") == "done" and resume in ("auto", "must"):
        push_the_rest(run, settings)
        return Unmirrored()
    if is_other_rank():
        wait_for_rank_0(run.folder)
        return Unmirrored()

    try:
        mirrored = ask(run, settings, resume == "never")
        if not mirrored.fresh:
            bring(mirrored, check)
    except (MirrorError, OSError) as error:
        tell_other_ranks(run.folder, str(error))
        raise
    tell_other_ranks(run.folder, None)
    return mirrored


def ask(run: Run, settings: Mirror, fresh: bool) -> Mirrored:
    """Read what the mirror says of a run, and check that no other machine has it.

    Raises:
        MirrorError: it could not be asked, or another machine has it.
    """
    mirror = asked(functools.partial(open_run, settings, run.identity))
    pointer = asked(mirror.read)
    if pointer is not None:
        pointer = free_pointer(mirror, pointer, run.folder, settings)
        if fresh and pointer is not None and restarts() and not run.folder.status():
            # A job that was put back, on another machine: --resume never was meant for its first start.
            Fetcher(mirror, run.folder.path, unusable).small(pointer)
            fresh = run.folder.resume_now("never") == "never"
        return Mirrored(run, settings, mirror, pointer, fresh)

    # A pointer is the first thing that is written there. Without it, something has been lost.
    if not fresh and any(name.startswith("checkpoints/") for name in asked(mirror.sizes)):
        raise MirrorError(
            f"{mirror.address} has checkpoints of this run and no latest.json, which says what counts: restore it, "
            f"{GO_WITHOUT}, or start afresh with --resume never"
        )
    return Mirrored(run, settings, mirror, None, fresh)


def free_pointer(mirror: RunMirror, pointer: Pointer | None, folder: RunFolder, settings: Mirror) -> Pointer | None:
    """What the mirror says of a run that no other machine has; a machine that begins meanwhile is looked at, too.

    Raises:
        MirrorError: it could not be asked, or another machine has the run.
    """
    me, checked = new_owner(folder.path, note=False), None
    while pointer is not None and pointer.owner != checked:
        check_free(pointer, me, settings.patience, lambda: asked(mirror.read), say)
        checked, pointer = pointer.owner, asked(mirror.read)
    return pointer


def bring(mirrored: Mirrored, check: Remembered) -> None:
    """Fetch the run if its mirror is ahead of what is here.

    Raises:
        MirrorError: no checkpoint there is whole, or another machine has begun to train the run meanwhile.
    """
    pointer, folder = mirrored.pointer, mirrored.run.folder
    if pointer is None or not is_ahead(pointer, folder, check):
        return

    say(f"the mirror is ahead, at step {pointer.step}: fetching it from {mirrored.mirror.address}")
    fetched = Fetcher(mirrored.mirror, folder.path, check.check).newest(pointer)
    if fetched.pointer is not pointer:  # somebody has uploaded meanwhile
        free_pointer(mirrored.mirror, fetched.pointer, folder, mirrored.settings)
        mirrored.pointer = fetched.pointer
    check.known.clear()  # what was damaged here may be replaced
    mirrored.lines = [f"warning: {line}; an earlier one is used" for line in fetched.damaged]


def is_ahead(pointer: Pointer, folder: RunFolder, check: Check) -> bool:
    """True if the mirror has a later state of a run than its folder.

    Args:
        pointer: what the mirror says.
        folder: the run's folder.
        check: says what is wrong with a checkpoint.
    """
    checkpoints = folder.path / "checkpoints"
    if pointer.step > max(whole_steps(checkpoints), default=0):
        return True
    if pointer.step == 0:
        return False

    # By its name, what is here is as new. It may be damaged.
    try:
        found = find_checkpoint(checkpoints, check=check)
    except CheckpointError:
        found = None
    if found is None or (found.step or 0) < pointer.step:
        return True
    is_done = folder.status().get("state") == "done"
    return found.step == pointer.step and pointer.state == "done" and not is_done


def push_the_rest(run: Run, settings: Mirror) -> None:
    """Upload what is not in the mirror yet of a run that is done; says what is wrong, and raises nothing."""
    status = run.folder.status()
    note = status.get("mirror") or {}
    if is_other_rank() or (note.get("step"), note.get("state")) == (status.get("step"), "done"):
        return
    try:
        mirrored = ask(run, settings, fresh=False)
    except MirrorError as error:
        say(f"warning: {error}")
        return
    if mirrored.pointer is None or mirrored.pointer.step < status.get("step", 0) or mirrored.pointer.state != "done":
        mirrored.start(None, find_checkpoint(run.folder.path / "checkpoints", check=unusable))
        mirrored.finish()


def this_start() -> str | None:
    """A word for this start of all ranks; None where rank 0 starts the others itself, when all is here."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return None
    return " ".join(os.environ.get(name, "0") for name in names)


def tell_other_ranks(folder: RunFolder, problem: str | None) -> None:
    """Let other ranks go on, or end with the same error."""
    start = this_start()
    if start is not None:
        (folder.path / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(folder.path / FOLDER / "fetched.json", dict(start=start, problem=problem))


def wait_for_rank_0(folder: RunFolder) -> None:
    """Wait until rank 0 has fetched what is newer in the mirror.

    Raises:
        MirrorError: it could not.
    """
    start, end = this_start(), time.monotonic() + LONGEST_WAIT
    while start is not None:
        note = read_json(folder.path / FOLDER / "fetched.json")
        if note.get("start") == start:
            if note.get("problem"):
                raise MirrorError(f"rank 0: {note['problem']}")
            return
        if time.monotonic() > end:
            raise MirrorError(f"rank 0 has not said within {LONGEST_WAIT / 3600:.0f} hours what is in the mirror")
        time.sleep(0.2)
