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
from lightning.pytorch.utilities import rank_zero_only

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
        self.rows = 0
        self._columns = ["step", "epoch"]
        self._file: Any = None

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run's settings are in its config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._open()
        row = {"step": step, **metrics}
        if new := [name for name in row if name not in self._columns]:
            rows = self._read()
            self._columns += new
            self._rewrite(rows)
        self._file.write(self._line(row))
        self._file.flush()
        self.rows += 1

    @rank_zero_only
    def sync(self) -> None:
        """Wait until all rows are on disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    @rank_zero_only
    def rewind(self, rows: int) -> None:
        """Drop all rows but the first `rows`."""
        self._open()
        if self.rows > rows:
            self._rewrite(self._read()[:rows])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def _open(self) -> None:
        """Go on with the file if there is one."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite(self._read())

    def _read(self) -> list[dict[str, str]]:
        """All rows of the file; without a last line that a kill has cut off. Takes over the file's columns."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        self._columns = list(reader.fieldnames or self._columns)
        return list(reader)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the file by these rows, at once, and open it to add to."""
        if self._file is not None:
            self._file.close()
        with atomic_write(self.path) as file:
            lines = [self._line(dict(zip(self._columns, self._columns, strict=True))), *map(self._line, rows)]
            file.write("".join(lines).encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self.rows = len(rows)

    def _line(self, row: dict[str, Any]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([row.get(name, "") for name in self._columns])
        return line.getvalue()
