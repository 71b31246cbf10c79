"""What a warm parent and the program that has started it say to each other: JSON, on a socket."""

import contextlib
import json
import socket
from typing import Any

LONGEST = 2**20  # bytes of a message, of which a command line is the longest


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends on which messages stay whole."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def say(connection: socket.socket | None, **content: Any) -> None:
    """Send a message; nobody may be there any more to read it."""
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.send(json.dumps(content).encode())


def hear(connection: socket.socket | None) -> dict[str, Any]:
    """Wait for a message; {} when the other end is closed."""
    if connection is not None:
        with contextlib.suppress(OSError):
            message = connection.recv(LONGEST)
            return json.loads(message) if message else {}
    return {}
