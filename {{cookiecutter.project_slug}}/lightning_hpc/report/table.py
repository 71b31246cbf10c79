"""The command `Report.py table`."""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..printing import BESIDE, WIDE, as_markdown, as_text, plus_minus
from ..results.reading import Results, read
from ..results.repetitions import over
from ..results.rows import AFTER
from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import read_settings
from ..settings.layers import BASE
from ..settings.places import existing, in_project, shown
from .receipts import with_receipts, write_latex

if TYPE_CHECKING:
    import pandas as pd

HELP = "show the runs in these folders as a table: state, the settings that differ, the newest metrics"
EXAMPLES = """examples:
  python Report.py table                                    all runs in runs/
  python Report.py table runs/wide --sort val/acc           the best last
  python Report.py table --where 'state == "done" and `val/acc` > 0.9'
  python Report.py table --columns run model.optimizer.lr val/acc val/loss
  python Report.py table runs/wide --over trial             mean ± standard deviation over the trials
  python Report.py table runs/wide --csv > wide.csv         everything, for another program
  python Report.py table runs/wide --over trial --latex wide.tex    for a paper: \\input{wide.tex}
"""
WHERE_HELP = """only the runs for which this is true, in the query language of pandas; names with / or . in backquotes,
and so all in single quotes"""
HINT = "a wider terminal, --columns or --csv shows them"
LATEX_HELP = """write a table for a paper, each number with the runs that it comes from; `verify FILE` computes them
again"""


def add_table(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options to those of Report.py."""
    raw = argparse.RawDescriptionHelpFormatter
    table = commands.add_parser("table", help=HELP, description=HELP, epilog=EXAMPLES, formatter_class=raw)

    option = table.add_argument
    option("folders", type=existing, nargs="*", help="folders of experiments or runs; default: the project's runs")
    option("--where", metavar="QUERY", help=WHERE_HELP)
    option("--last", type=int, metavar="N", help="only the N runs that were started last")
    option("--columns", nargs="+", metavar="NAME", help="these columns, in this order")
    option("--sort", metavar="NAME", help="order the rows by this column; NAME- puts the largest first")
    option(
        "--over", nargs="+", metavar="NAME", help="one row for all runs that differ only in trial, fold or a setting"
    )

    output = table.add_mutually_exclusive_group()
    output.add_argument("--csv", action="store_true", help="print CSV, with all columns and all digits")
    output.add_argument("--json", action="store_true", help="print a list of objects, with all columns and all digits")
    output.add_argument("--markdown", action="store_true", help="print a table for a README or an issue")
    output.add_argument("--latex", type=Path, metavar="FILE", help=LATEX_HELP)


def print_table(arguments: argparse.Namespace, root: Path) -> int:
    """Print the table; returns the exit code.

    Raises:
        SettingsError: a folder, a column or the query is none.
    """
    # Without a folder, the project's runs are meant, wherever the command is typed.
    folders = arguments.folders or [runs_of(root)]
    results = read(*folders, where=arguments.where, last=arguments.last)
    if not len(results):
        print("no runs", file=sys.stderr)
        return 0

    table = results.table
    first = first_columns(results)
    if arguments.over:
        table = over(results, arguments.over)
        first = list(table.columns)

    table = sort(table, arguments.sort)
    for_a_program = arguments.csv or arguments.json
    columns = list(table.columns) if for_a_program else first
    if arguments.columns:
        check_columns(arguments.columns, table)
        columns = arguments.columns

    table = table[columns]
    if arguments.latex:
        receipts = with_receipts(results, table, arguments.over)
        write_latex(arguments.latex, table, receipts, shlex.join(["python", "Report.py", *sys.argv[1:]]))
        print(f"{arguments.latex}: {len(table)} rows, {len(receipts)} numbers with receipts")
    elif arguments.csv:
        table.to_csv(sys.stdout, index=not arguments.over)
    elif arguments.json:
        print(table.reset_index(drop=bool(arguments.over)).to_json(orient="records", indent=2))
    else:
        if arguments.over:
            table = plus_minus(table, [name for name in table.columns if f"{name}_sd" in table.columns])
        print(as_markdown(table) if arguments.markdown else as_text(table, terminal_width(), hint=HINT))
    return 0


def runs_of(root: Path) -> Path:
    """The folder of all runs of a project, as configs/base.yaml has it."""
    base = root / BASE
    settings = read_settings(base) if base.is_file() else {}
    return shown(in_project(settings.get("runs_dir", "runs")))


def first_columns(results: Results) -> list[str]:
    """Columns for a person, the most important first: those of the machine come last, if they fit."""
    columns = list(results.table.columns)
    several = len(set(results.table["experiment"])) > 1
    hidden = {"reason", *AFTER}
    if not several:
        hidden.add("experiment")

    shown = [name for name in columns if name not in hidden]

    # What is the same for all runs, and what is measured beside the results, is looked for less often.
    same = [name for name in results.settings if name not in results.different and len(results) > 1]
    beside = [name for name in shown if name.startswith(BESIDE)]
    shown = [name for name in shown if name not in same and name not in beside] + beside
    shown += [name for name in same if name in columns]

    # Why a run has failed matters more than its metrics, and is empty where none has.
    place = shown.index("state") + 1
    return [*shown[:place], "reason", *shown[place:]]


def sort(table: "pd.DataFrame", name: str | None) -> "pd.DataFrame":
    """The table in the order of a column; a name that ends with - means from the largest down."""
    if name is None:
        return table
    is_down = name.endswith("-") and name not in table.columns
    if is_down:
        name = name.removesuffix("-")
    check_columns([name], table)
    return table.sort_values(name, ascending=not is_down, kind="stable", key=comparable)


def comparable(column: "pd.Series") -> "pd.Series":
    """Values in an order: numbers as numbers; a setting that is a number here and a text there, as text."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column
    return column.map(lambda value: None if value is None else str(value))


def check_columns(names: Sequence[str], table: "pd.DataFrame") -> None:
    """Raise SettingsError for a name that is no column."""
    for name in names:
        if name not in table.columns:
            near = did_you_mean(name, [str(column) for column in table.columns])
            raise SettingsError(f"there is no column {name}{near}; `--csv` shows all")


def terminal_width() -> int:
    """Characters of a line; without a terminal a line may be as long as it likes."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return WIDE
    return shutil.get_terminal_size().columns
