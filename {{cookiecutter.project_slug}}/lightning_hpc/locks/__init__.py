"""Locks between processes, on this and other machines: with an owner, a sign of life, and an age that makes them void.

A lock is a file that names its owner. Its time is the owner's sign of life, renewed every minute.

Where the file system has locks (flock), the kernel says who holds one, and frees it when its holder dies; the text is
for people. Where it has none (Lustre without -o flock says ENOSYS), the file itself is the lock: one process creates
it, and it is void when its owner has certainly gone or has shown no life for five minutes. So a run that was killed can
be started again, and two processes do not hold one lock. Only the standard library is used.
"""

from .holder import Holder, holder_of
from .lock import Locked, locked

__all__ = ["Holder", "Locked", "holder_of", "locked"]
