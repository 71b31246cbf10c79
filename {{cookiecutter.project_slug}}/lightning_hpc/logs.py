"""Messages: short on the terminal, with time, rank and level in the run's log files. Set up before torch is there."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

PACKAGE = __package__.partition(".")[0]

logger = logging.getLogger(PACKAGE)

# What Lightning says at each start and nobody asked: of hardware that is not there, that srun is not used by hand, and
# what our own lines say too. The log files have it.
NOISE = re.compile(
    r"💡"
    r"|TPU available: False"
    r"|The `srun` command is available on your system but is not used"
    r"|Loading `train_dataloader` to estimate number of stepping batches"
    r"|(Restoring|Restored all) states from the checkpoint"
    r"|Loaded model weights from the checkpoint"
)


def start_terminal() -> None:
    """Show messages of this package and of Lightning, and all warnings, on the terminal.

    To be called before Lightning is imported: it leaves its messages to the root logger where that has a handler.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, Short):  # of another run in this process, whose stderr may have been another
            root.removeHandler(handler)

    handler = Terminal()
    handler.setFormatter(Short())
    handler.addFilter(for_terminal)
    root.addHandler(handler)
    for name in (PACKAGE, "lightning"):
        logging.getLogger(name).setLevel(logging.INFO)

    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6's own use of a function that torch has renamed


def say(line: str) -> None:
    """Say one line to the person at the terminal and in the log file: once, however many ranks there are."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only  # late: this file is used before torch is there

    if rank_zero_only.rank == 0:
        logger.info(line)


def note(line: str) -> None:
    """Write one line to the log file, and not to the terminal, for which it may be long."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    if rank_zero_only.rank == 0:
        logger.info(line, extra=dict(file_only=True))


def show(text: str, file: TextIO | None = None) -> None:
    """Print, or go without: the output can be a file on a full disk, and how a run has ended is in its status.json.

    Args:
        text: what to print.
        file: where; None: the output.
    """
    try:
        print(text, file=file)
    except BrokenPipeError:
        raise  # the one who asked has gone away
    except OSError:
        pass


def quiet_lightning() -> None:
    """Remove the handler that Lightning adds when it is imported, beside ours: each message would be shown twice."""
    logging.getLogger("lightning").handlers.clear()


@contextlib.contextmanager
def log_file(folder: Path, rank: int) -> Iterator[None]:
    """Also write everything to logs/rank-N.log in a run's folder."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)  # another rank may be here before rank 0 has made it
    handler = LogFile(logs / f"rank-{rank}.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)-7s %(message)s"))

    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class Terminal(logging.StreamHandler):
    """Writes to what stderr is at the moment: while a progress bar is drawn, that puts lines above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


class LogFile(logging.FileHandler):
    """A log file that goes without what it can't write: on a full disk, messages are not worth a run."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # from opening it
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # from writing what was left
            super().close()


class Short(logging.Formatter):
    """The message alone; of a warning only what it says, not where in which library it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.name != "py.warnings":
            return text
        without_place = re.sub(r"^\S+:\d+: (\w+Warning: )?", "", text)
        return "warning: " + without_place.splitlines()[0]


def for_terminal(record: logging.LogRecord) -> bool:
    """False for what a progress bar shows already, and for what is only noise there."""
    if getattr(record, "file_only", False):
        return False
    return NOISE.search(record.getMessage()) is None
