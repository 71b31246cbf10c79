"""Plots of real runs and of measurements, drawn by matplotlib as SVG."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

INK, PALE, ACCENT, WARM = "#1f2933", "#a9b4c0", "#1f6fb4", "#d9622b"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "pictures",  # the same picture, the same file
}


def save(figure: Figure, file: Path) -> None:
    """Write a figure, without the time at which it was made."""
    figure.savefig(file, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})


def resumed(whole: Path, killed: Path, resumed_at: Sequence[int], file: Path) -> None:
    """A run that was killed on top of one that was not: loss of each training step, and of each validation."""
    import pandas as pd

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.6))
        for axes, metric in zip(figure.subplots(1, 2), ("train/loss", "val/loss"), strict=True):
            for run, look, label in (
                (whole, dict(color=PALE, linewidth=6), "never killed"),
                (killed, dict(color=ACCENT, linewidth=1.4), "killed and resumed"),
            ):
                rows = pd.read_csv(run / "metrics.csv").dropna(subset=[metric])
                axes.plot(rows["step"], rows[metric], label=label, solid_capstyle="butt", **look)
            for number, step in enumerate(resumed_at):
                label = None if number else "resumed here"
                axes.axvline(step, color=WARM, linestyle=":", linewidth=1.5, label=label)
            axes.set(yscale="log", xlabel="optimizer step", title=metric)
        axes.legend()
        save(figure, file)


def maps(run: Path, epochs: Sequence[int], file: Path) -> None:
    """CKA maps of a run, from epoch to epoch: its layers against those at the start."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * len(epochs), 2.6), layout="constrained")
        row = figure.subplots(1, len(epochs))
        for axes, epoch in zip(row, epochs, strict=True):
            with np.load(run / "cka" / f"epoch-{epoch:03d}.npz") as saved:
                matrix = saved["matrix"]
            image = axes.imshow(matrix, vmin=0, vmax=1, origin="lower", cmap="magma")
            mean = np.nanmean(np.diag(matrix))
            axes.set(title=f"epoch {epoch}", xticks=[], yticks=[], xlabel=f"diagonal {mean:.2f}")
        row[0].set_ylabel("layers now →")
        figure.supxlabel("layers before training →", fontsize=11)
        figure.colorbar(image, ax=list(row), label="CKA")
        save(figure, file)


def curves(runs: Path, key: str, metric: str, file: Path) -> None:
    """Learning curves as means over trials with bands of a standard deviation, a colour for each value of a setting."""
    from lightning_hpc.results import read

    results = read(str(runs))
    table = results.curves[results.curves["metric"] == metric]
    table = table.assign(setting=table["run"].astype(str).map(results.table[key]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6))
        axes = figure.subplots()
        values = sorted(table["setting"].unique())
        for value, colour in zip(values, mpl.colormaps["viridis"](np.linspace(0.05, 0.8, len(values))), strict=True):
            by_epoch = table[table["setting"] == value].groupby("epoch")["value"]
            mean, spread = by_epoch.mean(), by_epoch.std()
            axes.plot(mean.index, mean, color=colour, label=f"{key.rsplit('.', 1)[-1]} {value:g}")
            axes.fill_between(mean.index, (mean - spread).clip(mean.min() / 3), mean + spread, color=colour, alpha=0.18)
        axes.set(xlabel="epoch", ylabel=metric, yscale="log")
        axes.legend()
        save(figure, file)


def slices(figures: Path, file: Path) -> None:
    """Two nodes and a queue: when one long job, and when short slices get to run. From the benchmark's figures."""
    record = json.loads(figures.read_text(encoding="utf-8"))
    words = record["command"].split()
    # The jobs of others end five seconds before their time.
    gap, bigger = (int(words[words.index(f"--{name}") + 1]) - 5 for name in ("gap", "bigger"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.8))
        for axes, row in zip(figure.subplots(2, 1, sharex=True), record["rows"], strict=True):
            begun, done = row["begun after, s"], row["done after, s"]
            axes.barh(1, gap, color=PALE, label="a job of others")
            axes.barh([0, 1], bigger, left=gap, color="#6b7785", label="a bigger one, which wants both nodes")
            node = 0 if begun < gap else 1
            axes.barh(node, done - begun, left=begun, color=ACCENT, label="the run")
            axes.annotate(f"done after {done} s", (done, node), (6, 0), "data", "offset points", va="center")
            axes.set_yticks([0, 1], ["node 2", "node 1"])
            axes.set_title(row["way"], loc="left", fontsize=11)
            axes.set_xlim(0, 1500)
        axes.set_xlabel("seconds since the submission")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.subplots_adjust(hspace=0.45, bottom=0.24)
        save(figure, file)
