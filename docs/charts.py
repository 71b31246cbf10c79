"""Bars beside the tables of measurements, drawn from the same files at each build, so that they can't drift apart.

A marker in a page, on a line of its own, is replaced by the chart of that name below: <!-- chart: launch -->
"""

import json
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "benchmarks" / "data"
WIDTH, ROW, LABELS, NUMBERS = 760, 24, 330, 90  # pixels: of the chart, of a bar's row, left of the bars, right of them
Rows = list[dict[str, Any]]


class Bar(NamedTuple):
    """One bar: what it is, how long, what is written behind it, and whether it is this template's."""

    label: str
    value: float
    text: str
    ours: bool = False


class Chart(NamedTuple):
    """A chart: its file in docs/benchmarks/data, what the bars are, and how they are made of the file's rows."""

    file: str
    title: str
    bars: Callable[[Rows], Iterable[Bar]]


def seconds(value: float) -> str:
    """A time with its unit."""
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def length_and_text(measured: float | str) -> tuple[float, str]:
    """How long a bar of seconds is, and what stands behind it; `more than 120` was given up after 120."""
    if isinstance(measured, str):
        return float(measured.split()[-1]), f"{measured} s"
    return measured, seconds(measured)


def of_column(label: str, value: str, ours: str, text: Callable[[float], str]) -> Callable[[Rows], list[Bar]]:
    """Bars of one column; ours are those whose label begins with the given words."""

    def bars(rows: Rows) -> list[Bar]:
        numbers = [row for row in rows if isinstance(row.get(value), int | float)]
        return [
            Bar(str(row[label]), row[value], text(row[value]), any(part in str(row[label]) for part in ours.split("|")))
            for row in numbers
        ]

    return bars


def of_pairs(group: str, theirs: str, ours: str, words: tuple[str, str]) -> Callable[[Rows], list[Bar]]:
    """Two bars a row: another way, and this template's. `words` say what the rows and the two ways are called."""

    def bars(rows: Rows) -> list[Bar]:
        made = []
        for row in rows:
            unit = f"{row[group]:,} {words[0]}" if isinstance(row[group], int) else str(row[group])
            made.append(Bar(f"{unit}, {words[1]}", *length_and_text(row[theirs])))
            made.append(Bar(f"{unit}, this template", *length_and_text(row[ours]), ours=True))
        return made

    return bars


def cka(rows: Rows) -> list[Bar]:
    """Each tool's time on each network, as a multiple of this template's."""
    timed = [row for row in rows if isinstance(row.get("× template"), int | float)]
    return [
        Bar(f"{row['case']}: {row['tool']}", row["× template"], f"{row['× template']:.3g} ×", row["tool"] == "template")
        for row in timed
    ]


def kills(rows: Rows) -> list[Bar]:
    """Of the ways to train that a system has, the share that ends equal to the bit."""
    made = []
    for system in ("this template", "stock Lightning", "accelerate"):
        answers = [row[system] for row in rows if row.get(system, "–") != "–"]
        equal = answers.count("equal to the bit")
        if answers:
            made.append(Bar(system, equal / len(answers), f"{equal} of {len(answers)}", system == "this template"))
    return made


CHARTS = {
    "cka": Chart("cka.json", "CPU time, as a multiple of this template's", cka),
    "kill_chain": Chart("kill_chain.json", "Ways to train that end equal to the bit after kills", kills),
    "launch": Chart(
        "launch.json",
        "Seconds until all runs are submitted",
        of_pairs("runs", "one by one, s", "submit, s", ("runs", "one by one")),
    ),
    "results": Chart(
        "results.json",
        "CPU seconds to read runs into a table",
        of_pairs("runs", "table file by file, CPU s", "table, CPU s", ("runs", "file by file")),
    ),
    "page": Chart(
        "results.json",
        "Seconds until the page of all runs can be used",
        of_pairs("runs", "plain HTML, usable after s", "page, usable after s", ("runs", "plain HTML")),
    ),
    "slices": Chart("slices.json", "The run is done after", of_column("way", "done after, s", "slices", seconds)),
    "packing": Chart(
        "packing.json",
        "Four runs are done after",
        of_pairs("a run", "one at a time, s", "one job of 4, s", ("", "one at a time")),
    ),
    "step_overhead": Chart(
        "step_overhead.json",
        "CPU time of a step, as a multiple of the bare Trainer's",
        of_column("case", "ratio", "this template", "{:.3g} ×".format),
    ),
    "generation": Chart(
        "generation.json", "Least CPU seconds", of_column("case", "least CPU s", "complete|without hooks", seconds)
    ),
    "sweeps": Chart("sweeps.json", "Trials a second", of_column("case", "trials/s", "agents", "{:.3g}".format)),
}


def chart(name: str) -> str:
    """The chart of that name as SVG within a page."""
    file, title, make = CHARTS[name]
    bars = list(make(json.loads((DATA / file).read_text(encoding="utf-8"))["rows"]))
    longest = max(bar.value for bar in bars)
    lines = []
    for number, bar in enumerate(bars):
        y = number * ROW
        length = max(bar.value / longest * (WIDTH - LABELS - NUMBERS), 1)
        kind = ' class="ours"' if bar.ours else ""
        label = bar.label if len(bar.label) < 50 else f"{bar.label[:48]}…"
        lines += [
            f'<text x="{LABELS - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>',
            f'<rect{kind} x="{LABELS}" y="{y + 4}" width="{length:.1f}" height="{ROW - 8}" rx="2"/>',
            f'<text x="{LABELS + length + 6:.0f}" y="{y + 16}">{escape(bar.text)}</text>',
        ]
    said = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    head = f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {len(bars) * ROW}" xmlns="http://www.w3.org/2000/svg">'
    body = "\n".join(lines)
    return (
        f"<figure>\n<figcaption>{escape(title)}</figcaption>\n"
        f"{head}\n<title>{escape(f'{title}. {said}')}</title>\n{body}\n</svg>\n</figure>\n"
    )
