"""What a run asks of its trackers, beside what Lightning asks of a logger."""

import hashlib
import json
from typing import Any

from ..runs.folder import RunFolder
from ..runs.run import Run


class Tracker:
    """A logger that knows the run it belongs to.

    Attributes:
        title: the tracker's name, for people.
    """

    title: str

    @classmethod
    def settings_of(cls, run: Run) -> dict[str, Any]:
        """Settings that follow from the run; those that somebody has given win."""
        raise NotImplementedError

    def where(self) -> str | None:
        """How to see the run in the tracker, in one line; None if there is nothing to see."""
        raise NotImplementedError

    def finish(self, code: int) -> None:
        """Let the tracker have what is left, and how the run has ended.

        Args:
            code: the exit code, see runs/folder.py.
        """
        raise NotImplementedError


def key_of(folder: RunFolder) -> str:
    """32 hexadecimal digits for a run: the same for all its attempts, and others when it is started over.

    Args:
        folder: the run's folder, in which an attempt has begun.
    """
    status = folder.status()
    run = [status.get("name", folder.path.parent.name), status.get("identity", folder.path.name), status.get("started")]
    return hashlib.blake2b(json.dumps(run).encode(), digest_size=16).hexdigest()
