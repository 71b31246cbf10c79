"""Messages: short on the terminal, with time, rank and level in the run's log files. Set up before torch is there."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

PACKAGE = __package__.partition(".")[0]


def start_terminal() -> None:
    """Show messages of this package and of Lightning, and all warnings, on the terminal.

    To be called before Lightning is imported: it leaves its messages to the root logger where that has a handler.
    """
    for old in [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, Short)]:
        logging.getLogger().removeHandler(old)  # of another run in this process, whose stderr may have been another
    handler = logging.StreamHandler()
    handler.setFormatter(Short())
    handler.addFilter(for_terminal)
    logging.getLogger().addHandler(handler)
    for name in (PACKAGE, "lightning"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6's own use of a function that torch has renamed


def quiet_lightning() -> None:
    """Remove the handler that Lightning adds when it is imported, beside ours: each message would be shown twice."""
    logging.getLogger("lightning").handlers.clear()


@contextlib.contextmanager
def log_file(folder: Path, rank: int) -> Iterator[None]:
    """Also write everything to logs/rank-N.log in a run's folder."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)  # another rank may be here before rank 0 has made it
    handler = logging.FileHandler(folder / "logs" / f"rank-{rank}.log", delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)-7s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class Short(logging.Formatter):
    """The message alone; of a warning only what it says, not where in which library it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.name == "py.warnings":
            return "warning: " + re.sub(r"^\S+:\d+: (\w+Warning: )?", "", text).splitlines()[0]
        return text


def for_terminal(record: logging.LogRecord) -> bool:
    """False for what a progress bar shows already, and for the advertisements that Lightning prints."""
    return not getattr(record, "file_only", False) and "💡" not in record.getMessage()
