"""A thread that writes while training goes on."""

import threading
from collections.abc import Callable
from typing import Any

from ... import signals


class InBackground:
    """Something that a thread does while training goes on; the program does not end before it is done.

    The thread is in Python for moments only: copying, checksums, SHA-256, writing and fsync leave Python to others.

    Args:
        action: what is done.
    """

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action, self._answer = action, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._act, name="checkpoint")
        self._thread.start()

    def _act(self) -> None:
        try:
            self._answer = self._action()
        except BaseException as error:  # also one that ends the run: it has to reach the main thread
            self._error = error
        del self._action  # with the copy that it holds

    @property
    def done(self) -> bool:
        """True if nobody has to wait for it."""
        return not self._thread.is_alive()

    def wait(self) -> Any:
        """What the action has returned, or raised; waits for it, whatever signals arrive."""
        with signals.undisturbed():
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer
