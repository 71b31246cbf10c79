"""What each benchmark keeps for the pages: its figures, with the machine, the date and the command."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any


def this_machine(*more: str) -> str:
    """The machine in words, and what else counts, such as the version of another program."""
    processor = platform.processor() or platform.machine()
    return ", ".join([f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}", *more])


def write_figures(file: Path, machine: str, command: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of a table as docs/filled_in.py reads them.

    Args:
        file: usually in docs/benchmarks/data.
        machine: where they were measured.
        command: what prints them again.
        rows: column → cell of each.
    """
    record = dict(machine=machine, date=str(date.today()), command=command, rows=list(rows))
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
