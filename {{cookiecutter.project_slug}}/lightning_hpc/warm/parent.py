"""The warm parent as the program sees it that starts runs."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..processes import LOOK, has_not_ended, kill
from .messages import hear, pair, say

DOOR = "from lightning_hpc.entrance import train"  # Train.py, unless somebody has made another program of it


class Warm:
    """A warm parent, for one program that starts runs one after the other.

    Args:
        root: the project's folder.
        own_group: whether runs, and their parent, are out of reach of the terminal's Ctrl-C.
    """

    def __init__(self, root: Path, own_group: bool = True) -> None:
        self.root, self.own_group = root, own_group
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen | None = None
        self._connection: socket.socket | None = None
        self._given_up = sys.platform != "linux"

    def get_ready(self, environment: Mapping[str, str]) -> bool:
        """Start the parent, unless it is there; waits until it has loaded all.

        Args:
            environment: of the runs.

        Returns:
            whether runs can be forked.
        """
        if self._process is not None and self._environment == dict(environment) and self._process.poll() is None:
            return True
        self.close()
        if self._given_up or not self._is_our_door():
            return False

        self._connection, theirs = pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lightning_hpc.warm.serve", str(theirs.fileno()), str(int(self.own_group))],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL if self.own_group else None,
                process_group=0 if self.own_group else None,
                pass_fds=[theirs.fileno()],
            )
        self._environment = dict(environment)
        if hear(self._connection).get("ready"):
            return True

        # It says why itself, as a run would that can't load what it needs.
        self._given_up = True
        self.close()
        return False

    def _is_our_door(self) -> bool:
        with contextlib.suppress(OSError):
            return DOOR in (self.root / "Train.py").read_text(encoding="utf-8")
        return False

    def fork(self, command: Sequence[str], environment: Mapping[str, str]) -> "Forked | None":
        """Fork a run; None if it has to be started as a new program.

        Args:
            command: the Python interpreter, the project's Train.py, and its arguments.
            environment: the run's.
        """
        is_run = list(command[:2]) == [sys.executable, str(self.root / "Train.py")]
        if self._process is None or not is_run or dict(environment) != self._environment:
            return None

        say(self._connection, command=list(command[1:]), folder=os.getcwd())
        pid = hear(self._connection).get("pid")
        if pid is not None:
            return Forked(pid, self)

        self.close()  # the code has changed, or it was killed: next time there is a new one
        return None

    def exit_code(self, pid: int, timeout: float) -> int | None:
        """The exit code of a run; None if it is still running after so many seconds.

        Where the parent was killed, nobody knows the code. It is that of SIGKILL then, when the run has ended.
        """
        end = time.monotonic() + timeout
        while True:
            left = min(max(0.0, end - time.monotonic()), LOOK)
            if self._process is None:
                if not has_not_ended(pid):
                    return -signal.SIGKILL
                time.sleep(left / 5)
            elif select.select([self._connection], [], [], left)[0]:
                answer = hear(self._connection)
                if answer.get("ended") == pid:
                    return int(answer["code"])
                self.close()
            if time.monotonic() >= end:
                return None

    def close(self) -> None:
        """End the parent. What it has forked is asked to save and end."""
        if self._process is None or self._connection is None:
            return
        self._connection.close()
        self._process.wait()
        self._process = None

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forked:
    """A run that was forked; to be used as a subprocess.Popen.

    Attributes:
        pid: its process id.
        returncode: its exit code, negative if a signal ended it; None while it runs.
    """

    def __init__(self, pid: int, parent: Warm) -> None:
        self.pid, self.returncode = pid, None
        self._parent = parent

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.exit_code(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._parent.exit_code(self.pid, float("inf") if timeout is None else timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("Train.py", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
