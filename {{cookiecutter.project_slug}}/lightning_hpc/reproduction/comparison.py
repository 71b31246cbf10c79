"""What differs between some runs: settings, metrics, code and environment, each as rows of cells."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..code.fingerprint import STORE, copy_of, kept
from ..files import read_json
from ..printing import BESIDE, shorten, text_of
from ..provenance.environment import differences, read_environments
from ..results.reading import Results
from ..settings.places import quoted, shown

Cells = list[list[str]]  # rows; the first cell of each says what it is about

# Metrics that are compared are results; what is measured beside them is left to the table.
NO_RESULTS = tuple(name for name in BESIDE if name != "train/")

GAP = "  "


def aligned(rows: Cells) -> list[str]:
    """Rows as lines with columns."""
    shortened = [[row[0], *map(shorten, row[1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shortened, strict=True)]
    lines = []
    for row in shortened:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(GAP.join(cells).rstrip())
    return lines


def settings_rows(results: Results) -> Cells:
    """The settings that differ, one a row."""
    rows = []
    for key in results.settings:
        if key in results.different:
            values = [row.settings.get(key, row.changes.get(key)) for row in results.rows]
            rows.append([key, *("none" if value is None else text_of(value) for value in values)])
    return rows


def metric_rows(results: Results) -> Cells:
    """Metrics at the best checkpoint, at the end, and of the evaluations, one a row."""
    at_best = [best_metrics(folder) for folder in results.folders]
    names = {name: None for metrics in at_best for name in metrics} | dict.fromkeys(results.metrics)

    rows = []
    for name in names:
        if name.startswith(NO_RESULTS):
            continue
        best = [text_of(number(metrics.get(name))) for metrics in at_best]
        last = [text_of(number(row.metrics.get(name))) for row in results.rows]
        if any(best):
            rows.append([f"{name} (best)", *best])
        if any(last):
            is_test = name.startswith("test")
            rows.append([name if is_test else f"{name} (last)", *last])
    return rows


def best_metrics(folder: Path) -> dict[str, Any]:
    """The metrics of a run's best checkpoint; {} if it has none."""
    best = read_json(folder / "checkpoints" / "meta.json").get("best") or {}
    return best.get("metrics") or {}


def number(value: Any) -> Any:
    """A number as a float, which is printed with four digits; anything else as it is."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def environment_rows(folders: Sequence[Path]) -> Cells:
    """What of the environments differs, one thing a row; the last environment of a run counts."""
    records = []
    for folder in folders:
        of_run = read_environments(folder)
        records.append({name: value for name, value in of_run[-1].items() if name != "settings"} if of_run else {})

    known = next((record for record in records if record), {})
    changed: dict[str, None] = {}
    for record in records:
        if record:  # of a run without one nothing is known, which is not the same as another environment
            changed |= dict.fromkeys(differences(known, record))

    rows = []
    if not all(records):
        rows.append(["kept", *("yes" if record else "no" for record in records)])
    for name in changed:
        rows.append([name, *(environment_cell(record, name) for record in records)])
    return rows


def environment_cell(record: dict[str, Any], name: str) -> str:
    """What a record says of a package or of anything else; a run without a record may have had it or not."""
    if not record:
        return "not known"
    value = record.get(name, record.get("packages", {}).get(name))
    return "none" if value is None else str(value)


def code_lines(folders: Sequence[Path], statuses: Sequence[dict[str, Any]], letters: Sequence[str]) -> list[str]:
    """How the code of the other runs differs from that of the first one.

    Args:
        folders, statuses: of the runs.
        letters: what they are called.
    """
    lines = []
    first = files_of(folders[0], statuses[0])
    for folder, status, letter in zip(folders[1:], statuses[1:], letters[1:], strict=True):
        files = files_of(folder, status)
        if not first or not files:
            lines.append(f"{letter}: don't know, the code of {folder if first else folders[0]} is not kept")
        elif first == files:
            lines.append(f"{letter}: the same as {letters[0]}")
        else:
            lines += [f"{letter}: {line}" for line in changed_files(first, files)]
    return lines


def files_of(folder: Path, status: dict[str, Any]) -> dict[str, Path]:
    """Path → the copy that is kept of it, of each file of a run's code; {} if nobody knows it any more."""
    store = folder.resolve().parent.parent / STORE
    return {name: copy_of(digest, store) for name, digest in kept(str(status.get("code")), store).items()}


def changed_files(first: dict[str, Path], other: dict[str, Path]) -> list[str]:
    """One line for each file that is changed, new or removed."""
    lines = []
    for name in sorted(set(first) | set(other)):
        before, after = first.get(name), other.get(name)
        if before is None:
            lines.append(f"new {name}")
        elif after is None:
            lines.append(f"without {name}")
        elif before.name != after.name or before.parent.name != after.parent.name:
            lines.append(f"changed {name}{counted(before, after)}")
    return lines


def counted(before: Path, after: Path) -> str:
    """` (+3 -1): diff …`: how many lines are added and removed; nothing if a copy is not kept."""
    try:
        texts = [file.read_text(encoding="utf-8").splitlines() for file in (before, after)]
    except (OSError, UnicodeError):
        return ""
    marks = [line[:1] for line in difflib.unified_diff(*texts, n=0, lineterm="")][2:]
    return f" (+{marks.count('+')} -{marks.count('-')}): diff {quoted(shown(before))} {quoted(shown(after))}"
