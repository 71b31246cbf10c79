"""A process that uploads and is killed on the way: python killed_upload.py RUN MIRROR STEP PHASE."""

import os
import signal
import sys
from pathlib import Path

from fake_run import make_run, send, upload_of

from lightning_hpc.remote import open_store
from lightning_hpc.remote.store import part_of


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A mirror in whose operations the process is killed.

    Args:
        store: the mirror.
        phase: where.
    """

    def __init__(self, store, phase: str) -> None:
        self.store, self.phase = store, phase
        self.address, self.seconds_between_puts = store.address, 0.0
        self.has_put = False

    def put(self, files) -> None:
        (first, source), *_ = files.items()
        if first.endswith("latest.json"):
            if self.phase == "before the pointer":
                kill()
            self.store.put(files)
            if self.phase == "after the pointer":
                kill()
            return

        if self.phase == "before":
            kill()
        if self.phase == "in a file":
            part = self.store.root / part_of(first)
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
            kill()
        if self.phase == "between two files":
            self.store.put({first: source})
            kill()
        self.store.put(files)
        if self.phase == "after the files":
            kill()

    def get(self, name, target) -> None:
        self.store.get(name, target)

    def list(self, folder):
        return self.store.list(folder)

    def delete(self, names) -> None:
        names = list(names)
        if self.phase == "cleaning up":
            self.store.delete(names[:1])
            kill()
        self.store.delete(names)
        if self.phase == "at the end":
            kill()


if __name__ == "__main__":
    run, mirror, step, phase = sys.argv[1:]
    send(upload_of(make_run(Path(run)), Deadly(open_store(mirror), phase)), int(step), best=int(step) % 20 == 0)
