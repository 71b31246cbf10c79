"""A connection by OpenSSH's own ssh, over which paramiko speaks SFTP."""

import os
import select
import subprocess
import tempfile
from collections.abc import Sequence

PATIENCE = 120.0  # seconds without a byte from a host that is there


class Connection:
    """ssh as a process, and an SFTP client over its pipes. To paramiko this is a channel, whose methods it has.

    Args:
        command: what starts ssh.

    Attributes:
        client: paramiko's SFTPClient, once `greet` was called.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.said = tempfile.TemporaryFile()  # of ssh; a pipe could fill up
        self.is_silent = False
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said)
        # A session of its own: Ctrl-C on a terminal is for the run.
        self.process = subprocess.Popen(command, bufsize=0, start_new_session=True, **pipes)

    def greet(self) -> None:
        """Begin to speak SFTP; paramiko's errors come if nobody answers."""
        from paramiko import SFTPClient

        self.client = SFTPClient(self)

    def get_name(self) -> str:
        """What paramiko's log calls it."""
        return "ssh"

    def send(self, data: bytes) -> int:
        """Send some of it. That a connection has ended is heard by who waits for the answer."""
        try:
            return os.write(self.process.stdin.fileno(), data)
        except OSError:
            return len(data)

    def recv(self, most: int) -> bytes:
        """Wait for some bytes; none: it has ended."""
        if not self.recv_ready(PATIENCE):
            self.is_silent = True
            return b""
        return os.read(self.process.stdout.fileno(), most)

    def recv_ready(self, seconds: float = 0.0) -> bool:
        """Whether there is something to read, or will be in time."""
        waiting = select.poll()  # select() can't wait for file number 1024 and above
        waiting.register(self.process.stdout, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def close(self) -> str:
        """End it; returns the last that ssh has said, or what has happened."""
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

        self.said.seek(0)
        lines = [line.strip(" @\r") for line in self.said.read().decode(errors="replace").splitlines()]
        self.said.close()
        happened = "no answer for minutes" if self.is_silent else "it has ended"
        return next((line for line in reversed(lines) if line), happened)
