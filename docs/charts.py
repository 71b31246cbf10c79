"""Bars beside the tables of measurements, drawn from the same files at each build, so that they can't drift apart.

A marker in a page, on a line of its own, is replaced by the chart of that name below: <!-- chart: launch -->
"""

import json
import re
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "benchmarks" / "data"
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
    if not isinstance(measured, str):
        return measured, seconds(measured)
    last = measured.split()[-1]
    return (float(last), f"{measured} s") if last.isdigit() else (0.0, measured)


def of_column(label: str, value: str, ours: str, text: Callable[[float], str]) -> Callable[[Rows], list[Bar]]:
    """Bars of one column; ours are those whose label begins with the given words."""

    def bars(rows: Rows) -> list[Bar]:
        numbers = [row for row in rows if isinstance(row.get(value), int | float)]
        return [
            Bar(
                str(row[label]).replace("`", ""),
                row[value],
                text(row[value]),
                any(part in str(row[label]) for part in ours.split("|")),
            )
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
    cases = [row["case"] for row in timed]
    timed.sort(key=lambda row: (cases.index(row["case"]), row["tool"] == "template"))
    return [
        Bar(f"{row['case']}: {row['tool']}", row["× template"], f"{row['× template']:.3g} ×", row["tool"] == "template")
        for row in timed
    ]


def still(rows: Rows) -> list[Bar]:
    """How long each way to save holds up training, as a multiple of a copy in memory."""
    ways = {"torch.save": "torch.save", "async_save": "async_save", "this template": "ours"}
    made = []
    for row in rows:
        for way, column in ways.items():
            ratio = row[f"{column}, CPU s"] / row["copy, CPU s"]
            label = f"{row['parameters, MB']:,} MB, {way}"
            made.append(Bar(label, ratio, f"{ratio:.2g} ×", way == "this template"))
    return made


def batches(rows: Rows) -> list[Bar]:
    """What a batch of the larger set takes, with the plain loader and with the exact one."""
    made = []
    for row in rows[len(rows) // 2 :]:
        kind = f"{row['of']}, {row['workers']} workers"
        plain = row["DataLoader, CPU µs a batch"]
        ours = plain / row["ratio"]
        made.append(Bar(f"{kind}: DataLoader", plain, f"{plain:.0f} µs"))
        made.append(Bar(f"{kind}: this template", ours, f"{ours:.0f} µs", ours=True))
    return made


def orders(column: str, text: Callable[[float], str]) -> Callable[[Rows], list[Bar]]:
    """What the order of a shuffled epoch takes in this process; cells are such as `85 (DataLoader 464)`."""

    def bars(rows: Rows) -> list[Bar]:
        made = []
        for row in rows:
            if row["of"] != "rows" or row["workers"]:
                continue
            ours, plain = (float(word) for word in re.findall(r"[\d.]+", row[column]))
            samples = f"{float(row['samples']):,.0f} samples"
            made.append(Bar(f"{samples}, DataLoader", plain, text(plain)))
            made.append(Bar(f"{samples}, this template", ours, text(ours), ours=True))
        return made

    return bars


def uploads(rows: Rows) -> list[Bar]:
    """How fast a checkpoint goes up, beside a plain copy of the same file."""
    made = []
    for row in rows:
        if not row["measured"].endswith("MB/s"):
            continue
        rate = float(row["measured"].split()[0])
        plain = rate * float(row["ratio"])
        made.append(Bar(f"{row['what']}, a plain copy", plain, f"{plain:.0f} MB/s"))
        made.append(Bar(f"{row['what']}, this template", rate, f"{rate:.0f} MB/s", ours=True))
    return made


def kills(rows: Rows) -> list[Bar]:
    """Of the ways to train that a system has, the share that ends equal to the bit."""
    made = []
    ways = [row for row in rows if row["way"] != "all"]
    for system in ("accelerate", "stock Lightning", "this template"):
        answers = [row[system] for row in ways if row.get(system, "–") != "–"]
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
    "footprint": Chart(
        "footprint.json",
        "Opens, writes, fsyncs and changed names in a minute of training",
        of_column("a run", "all four", "this template", "{:.0f}".format),
    ),
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
    "sweeps": Chart(
        "sweeps.json", "CPU seconds of a trial of ten steps", of_column("case", "CPU s/trial", "local sweep", seconds)
    ),
    "start": Chart("start.json", "CPU seconds until the first step", of_column("start", "CPU s", "template", seconds)),
    "checkpoints": Chart("checkpoints.json", "CPU time that training waits for, as a multiple of a copy", still),
    "loaders": Chart("loaders.json", "CPU time of a batch of 64 samples", batches),
    "order": Chart("loaders.json", "Memory that a shuffled epoch takes", orders("memory, MB", "{:.0f} MB".format)),
    "mirror": Chart("mirror.json", "Speed of an upload", uploads),
}


def chart(name: str) -> str:
    """The chart of that name as HTML within a page; pages.css makes bars of the shares of the longest."""
    file, title, make = CHARTS[name]
    bars = list(make(json.loads((DATA / file).read_text(encoding="utf-8"))["rows"]))
    longest = max(bar.value for bar in bars)
    lines = ['<figure class="chart">', f"<figcaption>{escape(title)}</figcaption>", "<dl>"]
    for bar in bars:
        kind = ' class="ours"' if bar.ours else ""
        drawn = f'<span style="--share: {bar.value / longest:.3f}"></span>'
        lines.append(f"<dt>{escape(bar.label)}</dt><dd{kind}>{drawn}{escape(bar.text)}</dd>")
    return "\n".join([*lines, "</dl>", "</figure>", ""])
