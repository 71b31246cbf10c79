"""Folders of runs as Train.py leaves them, made in a moment."""

import csv
import json
from pathlib import Path

import numpy as np

from lightning_hpc.settings.yaml_files import dump


def write_run(folder: Path, state="done", started=0, metrics=None, changes=None, rows=(), maps=(), **settings) -> Path:
    """Write a run's folder as Train.py does.

    Args:
        folder: EXPERIMENT/RUN.
        metrics: the newest values.
        changes: the overlay: what was asked for.
        rows: of metrics.csv, the header first.
        maps: (layers, layers) CKA matrices, one an epoch.
        settings: of the model.
    """
    folder.mkdir(parents=True)
    status = dict(
        state=state, reason="a node failed" if state == "failed" else None, seconds=1800, monitor="val/acc",
        best=(metrics or {}).get("val/acc"), started=f"2026-01-01T00:{started // 60:02d}:{started % 60:02d}+00:00",
        metrics=metrics or {}, command=f"python Train.py fit --name {folder.parent.name}",
        identity=folder.name[-8:] * 2,
    )  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    config = dict(seed_everything=0, model=dict(class_path="my.Model", init_args=dict(lr=0.1, width=3) | settings))
    (folder / "config.yaml").write_text(dump(config))
    (folder / "overlay.yaml").write_text(dump(dict(name=folder.parent.name) | (changes or {})))
    if rows:
        with (folder / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    for epoch, matrix in enumerate(maps):
        (folder / "cka").mkdir(exist_ok=True)
        layers = [f"layer{number}" for number in range(len(matrix))]
        numbers = dict(matrix=matrix, rows=layers, columns=layers, samples=128, row_label="now", column_label="init")
        np.savez(folder / "cka" / f"epoch-{epoch:03d}.npz", **numbers)
    return folder
