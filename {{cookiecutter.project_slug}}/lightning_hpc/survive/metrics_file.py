"""metrics.csv: one row per call of the trainer's loggers, one column per metric; continuous over restarts.

    trainer = Trainer(logger=[MetricsFile(folder), ...], callbacks=[ExactResume(seed), Checkpoints(), ...])

A row is in the file as soon as it is logged, and on disk at each checkpoint; until then, nothing waits for the disk. A
checkpoint knows how many rows there were. On resume the rows after it are dropped, since they are about to be logged
again: none is lost and none is there twice. A checkpoint that is not one of the run's own can't know the rows. Then
they are cut by its step, and what is cut is kept in .old/. Numbers are written so that reading gives the same float.
(Lightning's CSVLogger deletes the file on a restart.)

`seconds` is the running time of all attempts together when the row was logged, without the waiting in between: what a
learning curve over time needs. Work that was lost and is repeated counts twice, as it costs twice. It is the one column
that differs between a run that was interrupted and one that was not.
"""

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ..files import atomic_write, new_file, place_aside, sync_folder, write_all


class MetricsFile(Logger):
    """Writes metrics.csv, on rank 0. A metric logged for the first time adds a column, for which the file is rewritten.

    Epochs are counted from 1, unlike in Lightning.

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
        self.repeats = False  # what is logged now is in the file already
        self._columns = ["step", "epoch", "seconds"]
        self._clock = time.monotonic()
        self._seconds_before = 0.0  # of earlier attempts, as far as they have logged
        self._waiting: list[dict[str, Any]] = []  # logged, but not in the file: only when the disk is full
        self._file: Any = None  # unbuffered, so that a row is in the file when `write` returns
        self._counted = False  # a checkpoint may count on rows of the file, so they stay on disk
        self._is_new = False  # after a power cut, an earlier file could have the name

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """Where a model may put files of its own."""
        return self.save_dir

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run's settings are in its config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; on a full disk it waits in memory, and is tried again with the next."""
        if self.repeats:
            return
        self._open()
        seconds = round(self._seconds_before + time.monotonic() - self._clock, 3)
        row = {"step": step, "seconds": seconds, **metrics}
        if "epoch" in row:
            row["epoch"] += 1  # Lightning counts from 0; people, and the lines that a run prints, from 1
        self._waiting.append(row)
        self.rows += 1

        try:
            self._write_waiting()
        except OSError as error:
            if len(self._waiting) == 1:  # only the first one warns
                rank_zero_warn(f"could not write to {self.path}: {error.strerror}; its rows wait in memory")

    @rank_zero_only
    def sync(self) -> None:
        """Wait until all rows are on disk; OSError if it is full."""
        self._open()
        self._write_waiting()
        os.fsync(self._file.fileno())
        self._counted = True
        if self._is_new:
            sync_folder(self.path.parent)
            self._is_new = False

    @rank_zero_only
    def rewind(self, rows: int, keep: bool = False) -> None:
        """Drop all rows but the first `rows`.

        Args:
            rows: as many as a checkpoint counts.
            keep: move the others into a file of their own, .old/metrics.csv-K.
        """
        self._open()
        if self.rows < rows:
            old = self.path.parent / ".old"
            rank_zero_warn(
                f"{self.path} has {self.rows} rows, and had {rows} when this checkpoint was saved; see {old} for rows "
                "that were moved when the run resumed from an earlier one"
            )
        elif self.rows > rows:
            all_rows = self._read()
            if keep:
                self._put_aside(all_rows[rows:])
            self._rewrite(all_rows[:rows], self._columns)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Move all rows from a step on into a file of its own, .old/metrics.csv-K; a row without step follows another.

        Args:
            step: the first step that is about to be logged, counted from 0.
        """
        self._open()
        kept, later = rows_before(step, self._read())
        if later:
            self._put_aside(later)
            self._rewrite(kept, self._columns)

    def _put_aside(self, rows: list[dict[str, Any]]) -> None:
        """Write rows that are about to be dropped into a file of their own, and say so."""
        aside = place_aside(self.path)
        with atomic_write(aside) as file:
            file.write(with_header(rows, self._columns))
        rows_are = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
        rank_zero_warn(f"of {self.path} the last {rows_are} now in {aside}")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is None:
            return
        try:
            self.sync()
        except OSError as error:
            rank_zero_warn(f"{self.path} may lack its last rows: {error.strerror}")
        self._file.close()
        self._file = None
        self._clock = time.monotonic()  # what may still come counts from the last row on

    def _open(self) -> None:
        """Continue the file if there is one; a last line that a kill has cut off is dropped."""
        if self._file is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        self._counted = bool(rows)
        columns = list(rows[0]) if rows else self._columns
        self._seconds_before = latest(rows)  # now, while the rows are there that are about to be dropped
        self._rewrite(rows, columns)

    def _read(self) -> list[dict[str, Any]]:
        """All whole rows of the file."""
        try:
            text = self.path.read_text(encoding="utf-8") if self._file is None else self._read_open()
        except FileNotFoundError:
            return []
        whole_lines = text[: text.rfind("\n") + 1]
        return list(csv.DictReader(io.StringIO(whole_lines, newline="")))

    def _read_open(self) -> str:
        """The text of the file that is open."""
        self._file.seek(0)
        return self._file.read().decode("utf-8")

    def _write_waiting(self) -> None:
        """Bring the rows that wait into the file."""
        names = [name for row in self._waiting for name in row if name not in self._columns]
        new_columns = list(dict.fromkeys(names))  # each once, in the order in which they were logged

        if new_columns:
            self._rewrite(self._read() + self._waiting, [*self._columns, *new_columns])
        elif self._waiting:
            self._append(lines(self._waiting, self._columns))
        self._waiting = []

    def _append(self, text: bytes) -> None:
        """Write lines at the end of the file: all of them, or none and OSError."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            write_all(self._file, text)
        except OSError:
            self._file.truncate(end)  # no half line
            raise

    def _rewrite(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        """Replace the file, at once, by one with these rows and columns, which stays open to add to."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        file = new_file(part, buffering=0)
        try:
            write_all(file, with_header(rows, columns))
            if self._counted:
                os.fsync(file.fileno())
            os.replace(part, self.path)
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise

        if self._file is not None:
            self._file.close()
        self._file, self._is_new = file, True
        self.rows, self._columns = len(rows), columns


Row = dict[str, Any]


def rows_before(step: int, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of earlier steps, and the others."""
    earlier: list[Row] = []
    later: list[Row] = []
    place = earlier
    for row in rows:
        if row.get("step"):  # else it belongs to the row before
            place = earlier if float(row["step"]) < step else later
        place.append(row)
    return earlier, later


def latest(rows: list[Row]) -> float:
    """The largest number of seconds in these rows; 0 if there is none, as in files of earlier versions."""
    return max((float(row["seconds"]) for row in rows if row.get("seconds")), default=0.0)


def with_header(rows: list[Row], columns: list[str]) -> bytes:
    """A whole file."""
    header = dict(zip(columns, columns, strict=True))
    return lines([header, *rows], columns)


def lines(rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    """Rows as lines of CSV; a float is written with all digits it needs."""
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
