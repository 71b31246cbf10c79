"""A warm parent: a process that has loaded torch and Lightning, and forks a run of Train.py in milliseconds.

    with Warm(root) as warm:
        warm.get_ready(environment)                  once: it takes as long as a run's own start
        Child(command, environment, warm=warm)       as without it, if it is ready

What it forks is an ordinary run: a process of its own, with the same command line and environment, signals as a new
program has them, and an end as that of any Python program. Nothing is forked after torch has started a thread or used
a GPU, since neither survives a fork; nor when a file of the project that the parent has loaded has changed; nor for
another environment than the parent's, which libraries read when they are loaded. Then, and elsewhere than on Linux,
runs are started as new programs.

The parent says "ready" on a socket, and gets a message for each run. It answers with the run's process id, and with its
exit code when it has ended. When the socket is closed it ends, and what it has forked is asked to save and end.
"""

from .parent import Warm

__all__ = ["Warm"]
