"""metrics.csv: one row per call of the trainer's loggers, one column per metric; continuous over restarts.

    trainer = Trainer(logger=[MetricsFile(folder), ...], callbacks=[ExactResume(seed), Checkpoints(), ...])

A row is in the file as soon as it is logged, and on disk at each checkpoint. A checkpoint knows how many rows there
were; on resume the rows after it are dropped, since they are about to be logged again: none is lost and none is there
twice. Numbers are written so that reading gives the same float. (Lightning's CSVLogger deletes the file on a restart.)
"""

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from .checkpoint_files import atomic_write


class MetricsFile(Logger):
    """Writes metrics.csv, on rank 0. A metric logged for the first time adds a column, for which the file is rewritten.

    Args:
        save_dir: folder of the file.
        file_name: name of the file.
    """

    name = None
    version = None

    def __init__(self, save_dir: str | Path, file_name: str = "metrics.csv") -> None:
        super().__init__()
        self.path = Path(save_dir) / file_name
        self.rows = 0  # logged so far
        self._columns = ["step", "epoch"]
        self._waiting: list[dict[str, Any]] = []  # logged, but not in the file: only when the disk is full
        self._file: Any = None

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run's settings are in its config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; on a full disk it waits in memory, and is tried again with the next."""
        self._open()
        self._waiting.append({"step": step, **metrics})
        self.rows += 1
        try:
            self._write()
        except OSError as error:
            if len(self._waiting) == 1:
                rank_zero_warn(f"could not write to {self.path}: {error.strerror}; its rows wait in memory")

    @rank_zero_only
    def sync(self) -> None:
        """Wait until all rows are on disk; OSError if it is full."""
        self._open()
        self._write()
        os.fsync(self._file.fileno())

    @rank_zero_only
    def rewind(self, rows: int) -> None:
        """Drop all rows but the first `rows`."""
        self._open()
        if self.rows > rows:
            self._rewrite(self._read()[:rows], self._columns)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def _open(self) -> None:
        """Go on with the file if there is one; a last line that a kill has cut off is dropped."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            rows = self._read()
            self._rewrite(rows, list(rows[0]) if rows else self._columns)

    def _read(self) -> list[dict[str, Any]]:
        """All whole rows of the file."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))

    def _write(self) -> None:
        """Bring the rows that wait into the file."""
        if new := dict.fromkeys(name for row in self._waiting for name in row if name not in self._columns):
            self._rewrite(self._read() + self._waiting, [*self._columns, *new])
        elif self._waiting:
            text, end = lines(self._waiting, self._columns), self._file.seek(0, os.SEEK_END)
            try:
                while text:
                    text = text[self._file.write(text) :]
            except OSError:
                self._file.truncate(end)  # no half line
                raise
        self._waiting = []

    def _rewrite(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        """Replace the file, at once, by one with these rows and columns, and open it to add to."""
        with atomic_write(self.path) as file:
            file.write(lines([dict(zip(columns, columns, strict=True)), *rows], columns))
        if self._file is not None:
            self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self.rows, self._columns = len(rows), columns


def lines(rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    """Rows as lines of CSV; a float is written with all digits it needs."""
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
