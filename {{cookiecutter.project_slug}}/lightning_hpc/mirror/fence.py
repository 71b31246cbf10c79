"""The fence: one machine at a time. Who has a run is said by its pointer, and a sign of life there says "still".

Nothing in a mirror can be locked. So a machine that begins looks first, and one that has the run looks before each
upload, whether the pointer is still its own. If it is not, the run has been taken over: then it uploads nothing more,
and ends.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ..locks.holder import is_alive, process_space
from .pointer import Owner, Pointer
from .settings import MirrorError

CLOCKS = 3700.0  # seconds that the clocks of two machines may differ by: a time zone taken for another, and a bit
SAME_TIME = 60.0  # seconds that clocks which are set by a server may differ by

PLACE = "place.json"  # in the run's folder, below .mirror/

# A refusal says how to do it nevertheless.
ANYWAY = "If you know that it has ended, add --mirror.take_over_after_minutes 0"


class Taken(Exception):
    """Another machine has the run.

    Args:
        pointer: which says so.
    """

    def __init__(self, pointer: Pointer) -> None:
        super().__init__(f"{who(pointer)} has taken over this run, so it ends here")


def who(pointer: Pointer) -> str:
    """`process 41 on gpu07 (attempt 3)`."""
    owner = pointer.owner
    return f"process {owner.get('pid')} on {owner.get('host')} (attempt {pointer.attempt})"


def new_owner(folder: Path, note: bool = True) -> Owner:
    """This process as the owner of a run.

    Args:
        folder: the run's folder here.
        note: False to write nothing there, for a process that only asks.
    """
    me = dict(host=socket.gethostname(), pid=os.getpid(), processes=process_space(), boot=boot())
    return dict(token=uuid.uuid4().hex, place=place_of(folder, note), **me)


def boot() -> str:
    """Which machine this is, and since which start: two can have the same name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def place_of(folder: Path, note: bool) -> str:
    """A word for this folder, the same on all machines that share it, and another one for each copy of it.

    Two processes in the same folder are kept apart by its lock, which knows more than the mirror.
    """
    file = folder / ".mirror" / PLACE
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["inode"] == file.stat().st_ino:  # a copy is another file
            return known["word"]

    word = uuid.uuid4().hex
    if not note:
        return word
    with contextlib.suppress(OSError):  # on a full disk, this start has a word of its own
        file.parent.mkdir(exist_ok=True)
        with file.open("w", encoding="utf-8") as stream:
            json.dump(dict(word=word, inode=os.fstat(stream.fileno()).st_ino), stream)
    return word


def check_free(
    pointer: Pointer, me: Owner, patience: float, look: Callable[[], Pointer | None], say: Callable[[str], None]
) -> None:
    """Check that nobody else trains a run.

    Args:
        pointer: what the mirror says.
        me: this process.
        patience: seconds of silence that are enough for this machine; the pointer's own may be shorter.
        look: reads the pointer again.
        say: tells the user that this will take a while.

    Raises:
        MirrorError: somebody does, or may do so.
    """
    if pointer.released or is_mine(pointer.owner, me) or has_died(pointer.owner, me):
        return

    notice = min(pointer.notice, patience)
    silent = time.time() - pointer.heartbeat
    if patience == 0 or silent > notice + CLOCKS:
        return
    if -SAME_TIME <= silent <= notice:
        minutes = (notice - silent) / 60
        raise MirrorError(
            f"{who(pointer)} has this run, and gave its last sign of life {max(silent, 0):.0f} s ago: wait for it, or "
            f"for {minutes:.0f} more minutes of silence. {ANYWAY}",
            page="mirror.md#one-machine-at-a-time",
        )

    # It may only look silent, or alive, because one of the two clocks is wrong. What is certain takes time.
    seconds = notice if silent < 0 else min(notice, 2 * pointer.every)
    say(f"the mirror last heard of this run from {who(pointer)}; watching for {seconds:.0f} s whether it is alive")
    watch(pointer, seconds, look)


def watch(pointer: Pointer, seconds: float, look: Callable[[], Pointer | None]) -> None:
    """Wait whether there is another sign of life.

    Raises:
        MirrorError: there is.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(5.0, seconds / 10))
        there = look()
        if there is not None and there.released:
            return
        if there is None or (there.heartbeat, there.owner) != (pointer.heartbeat, pointer.owner):
            raise MirrorError(
                f"{who(there or pointer)} has this run, and has just given a sign of life, although by the clock here "
                f"its last one was {time.time() - pointer.heartbeat:.0f} s ago: let it run, and set the clocks"
            )


def is_mine(owner: Owner, me: Owner) -> bool:
    """True if the owner has been in this very folder, whose lock this process has now."""
    return owner.get("place") == me["place"]


def has_died(owner: Owner, me: Owner) -> bool:
    """True if the owner was a process of this machine, and is no more."""
    here = all(owner.get(key) == me[key] and me[key] for key in ("host", "processes", "boot"))
    return here and not is_alive(owner.get("pid"))
