"""Numbers in a paper that say which runs they come from, and can be computed again.

`Report.py table --latex FILE` writes each number as \\receipt{ID}{0.912}, which LaTeX prints as 0.912, and for each ID
a comment with the metric, the value in full, and the identities of the runs. Both may be copied into another file.
`Report.py verify FILE` names each number that no longer holds.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_atomically
from ..printing import text_of
from ..results.reading import Results
from ..results.repetitions import repetitions
from ..settings.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

FIRST_LINE = "% Made by"
MACRO = r"\providecommand{\receipt}[2]{#2}  % prints its second argument"
USE = re.compile(r"\\receipt\{(\w+)\}\{([^{}]*)\}")
LINE = re.compile(r"^% receipt (\w+): (value|mean|sd) of (.+) = (\S+) from ([\w ]+)$", re.MULTILINE)
TOLERANCE = 1e-9  # relative: a sum in another order differs in its last digit

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True)
class Receipt:
    """Where a number comes from.

    Attributes:
        statistic: "value" of one run, or "mean" or "sd" (of n − 1) over several.
        metric: the column of the table.
        value: the number in full.
        identities: of the runs.
    """

    statistic: str
    metric: str
    value: float
    identities: tuple[str, ...]

    @property
    def id(self) -> str:
        """Eight digits that stay the same as long as the metric and the runs do."""
        text = "\n".join([self.statistic, self.metric, *self.identities])
        return "r" + hashlib.sha256(text.encode()).hexdigest()[:8]

    def line(self) -> str:
        """The receipt as a comment of LaTeX."""
        runs = " ".join(self.identities)
        return f"% receipt {self.id}: {self.statistic} of {self.metric} = {self.value!r} from {runs}"

    def cell(self) -> str:
        """The number as LaTeX prints it."""
        return "\\receipt" + braced(self.id) + braced(printed(self.statistic, self.value))


def printed(statistic: str, value: float) -> str:
    """A number with the digits that count: four, and two of a deviation."""
    return f"{value:.2g}" if statistic == "sd" else text_of(value)


def with_receipts(
    results: Results, table: "pd.DataFrame", names: Sequence[str] | None
) -> dict[tuple[int, str], Receipt]:
    """The receipts of all numbers in a table that are metrics.

    Args:
        results: the runs.
        table: `results.table`, or `over(results, names)`; rows and columns may be fewer, and in another order.
        names: what was averaged over, if anything was.

    Returns:
        (row, column) → its receipt; none where a run has no such number.
    """
    metrics = {name for label in results.metrics for name in (label, f"{label} (metric)")}
    identities: dict[object, tuple[str, ...]] = {
        folder: (str(identity),) for folder, identity in results.table["identity"].items()
    }
    if names:
        # The rows of `over` are numbered in the order of its groups.
        groups = repetitions(results, names, "done")["identity"].agg(tuple)
        identities = dict(enumerate(groups.tolist()))

    receipts = {}
    for row, key in enumerate(table.index):
        for column in table.columns:
            statistic, metric = "value", column
            if names:
                is_deviation = column.endswith("_sd") and column.removesuffix("_sd") in metrics
                statistic, metric = ("sd", column.removesuffix("_sd")) if is_deviation else ("mean", column)

            value = table.iloc[row][column]
            if metric in metrics and isinstance(value, float) and not math.isnan(value):
                receipts[row, column] = Receipt(statistic, metric, float(value), identities[key])
    return receipts


def write_latex(path: Path, table: "pd.DataFrame", receipts: dict[tuple[int, str], Receipt], command: str) -> None:
    """Write a table for LaTeX with its receipts.

    Raises:
        SettingsError: a file is there that this command has not made.
    """
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE):
        raise SettingsError(f"--latex {path}: this file is not a table of this command; name another, and \\input it")

    deviations = {name for name in table.columns if f"{name}_sd" in table.columns}
    columns = [name for name in table.columns if name.removesuffix("_sd") not in deviations or name in deviations]
    alignment = ["r" if is_number(table[name]) else "l" for name in columns]
    rows = [" & ".join(escaped(name) for name in columns)]
    for row in range(len(table)):
        cells = [cell_of(table, row, name, receipts) for name in columns]
        rows.append(" & ".join(cells))

    lines = [
        f"{FIRST_LINE} `{' '.join(command.split())}`, {date.today()}.",
        "% `python Report.py verify FILE` computes each number again; copy the receipts along with the table.",
        *dict.fromkeys(receipt.line() for receipt in receipts.values()),
        MACRO,
        r"\begin{tabular}" + braced("".join(alignment)),
        "  \\hline",
        f"  {rows[0]} \\\\",
        "  \\hline",
        *(f"  {row} \\\\" for row in rows[1:]),
        "  \\hline",
        "\\end{tabular}",
    ]
    try:
        write_atomically(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise SettingsError(f"--latex {path} can't be written: {error.strerror}") from None


def cell_of(table: "pd.DataFrame", row: int, name: str, receipts: dict[tuple[int, str], Receipt]) -> str:
    """One cell for LaTeX; a mean with its deviation."""
    if (row, name) not in receipts:
        return escaped(text_of(table.iloc[row][name]))
    text = receipts[row, name].cell()
    deviation = receipts.get((row, f"{name}_sd"))
    return f"{text} $\\pm$ {deviation.cell()}" if deviation else text


def is_number(column: "pd.Series") -> bool:
    """True for a column that LaTeX should align at its right."""
    return not any(isinstance(value, str) for value in column)


def braced(text: str) -> str:
    """A text as an argument of a macro."""
    return "{" + text + "}"


def escaped(text: str) -> str:
    """A text that means itself in LaTeX."""
    return "".join(SPECIAL.get(character, character) for character in text)


def verify(text: str, results: Results) -> tuple[int, list[str]]:
    """Compute all numbers of a LaTeX file again.

    Args:
        text: the file's.
        results: the runs that there are now.

    Returns:
        how many numbers were looked at, and a line for each that does not hold.
    """
    receipts = {}
    for name, statistic, metric, value, identities in LINE.findall(text):
        receipts[name] = Receipt(statistic, metric, float(value), tuple(identities.split()))

    body = re.sub(r"(?<!\\)%.*", "", text)
    uses = USE.findall(body)
    table = results.table.set_index("identity")
    table = table[~table.index.duplicated()]

    problems = []
    for name, shown in uses:
        if name not in receipts:
            problems.append(f"{shown}: the line `% receipt {name}: …` is missing")
            continue
        receipt = receipts[name]
        problem = what_is_wrong(receipt, shown, table)
        if problem:
            problems.append(f"{shown}, {receipt.statistic} of {receipt.metric}: {problem}")
    return len(uses), problems


def what_is_wrong(receipt: Receipt, shown: str, table: "pd.DataFrame") -> str | None:
    """Why a number does not hold; None if it does.

    Args:
        receipt: where it comes from.
        shown: what the paper prints.
        table: the runs that there are now, by identity.
    """
    if shown.strip() != printed(receipt.statistic, receipt.value):
        return f"the receipt says {printed(receipt.statistic, receipt.value)}"

    missing = [identity for identity in receipt.identities if identity not in table.index]
    if missing:
        return f"{len(missing)} of its {len(receipt.identities)} runs are not here: {', '.join(missing)}"
    if receipt.metric not in table.columns:
        return "no run here has this metric"

    values = table.loc[list(receipt.identities), receipt.metric].astype(float)
    computed = {"value": values.iloc[0], "mean": values.mean(), "sd": values.std()}[receipt.statistic]
    if not math.isclose(computed, receipt.value, rel_tol=TOLERANCE):
        return f"was {receipt.value!r} and is {float(computed)!r} now"
    return None
