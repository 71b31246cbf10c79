"""K-fold cross-validation: each fold is an ordinary run, and what they say together is a mean and a standard deviation.

    python Train.py crossvalidate --folds 5 --name wide --model.network.width 64     one fold after the other
    python SlurmTrain.py submit SPEC                                                 with `folds: 5`: all at once
    python Report.py cross-validation runs/wide                                      the means, of either

A fold differs from other runs only in data.fold, so it has its own folder and checkpoints, and goes on where it was.
Its metrics are those at its end, not the best: on the fold that chose it, the best is too good; and a final model,
trained on everything, has no validation that could choose.
"""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..runs.folder import EXIT_CODES, RunFolder, write_atomically
from ..runs.identity import identity, short_name
from ..runs.request import Request, request, take_options
from ..runs.settings import Flat, SettingsError, read
from . import signals

MODE = "cross-validation"
FILE = "cross-validation.json"
# What a W&B sweep tells the run it starts. The sweep's run is the one that has the means; folds are runs of their own.
OF_THE_SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "SWEEP_AGENT_LEAVING")


def crossvalidate(arguments: Sequence[str], root: Path) -> int:
    """Train the folds that are not done, one after the other, then report; returns the exit code.

    Args:
        arguments: as for `fit`, and --folds.
        root: the project's folder.
    """
    given, settings = take_options(arguments, "--folds")
    settings += [f"--data.mode={MODE}", *(f"--data.folds={folds}" for folds in given)]
    whole = request("fit", settings, root)
    folds = whole.settings.flat.get("data.folds", 5)
    if not isinstance(folds, int) or folds < 2:
        raise SettingsError(f"--folds must be a whole number from 2 on, got {folds}")
    if {"-h", "--help", "--print_config"} & set(settings):
        return train(whole, root)
    again = whole.settings.flat.get("resume") == "never"
    for fold in range(folds):
        wanted = request("fit", [*settings, f"--data.fold={fold}"], root)
        if wanted.folder.status().get("state") == "done" and not again:
            continue
        print(f"fold {fold + 1} of {folds}", flush=True)
        stopped = signals.received()
        if code := EXIT_CODES[stopped] if stopped else train(wanted, root):
            if "WANDB_SWEEP_ID" in os.environ:
                report(whole, {}, code)
            return code
    if int(os.environ.get("SLURM_PROCID") or os.environ.get("RANK") or 0):
        return 0  # the first process reports
    experiment = wanted.folder.path.parent
    found = collect(experiment)
    write(experiment, found)
    mine = next(each for each in found if wanted.folder.path.name in each.runs.values())
    print(mine.line())
    report(whole, mine.metrics(), 0)
    return 0


def train(wanted: Request, root: Path) -> int:
    """Run one fold in a process of its own, and hand on the signal that is to stop it; returns its exit code."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_SWEEP}
    told = None
    with subprocess.Popen([sys.executable, str(root / "Train.py"), "fit", *wanted.typed], env=environment) as process:
        while True:
            try:
                code = process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if signals.received() and not told:
                    told = next(number for number, reason in signals.REASONS.items() if reason == signals.received())
                    if told != signal.SIGINT:  # a terminal's Ctrl-C reaches all processes in it
                        process.send_signal(told)
    if told and code < 0:  # before it could take notice
        return EXIT_CODES[signals.REASONS[told]]
    return code if code >= 0 else 128 - code


@dataclass
class CrossValidation:
    """The folds of one cross-validation that are done.

    Attributes:
        settings: what its runs change, without the fold.
        folds: how many there are to be.
        runs: fold → its folder.
        values: fold → its metrics.
    """

    settings: Flat
    folds: int
    runs: dict[int, str] = field(default_factory=dict)
    values: dict[int, dict[str, float]] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Mean and sample standard deviation (of K − 1) of each metric, as cross_validation_METRIC and …_std."""
        result = {}
        for name, values in self.each_fold().items():
            result[f"cross_validation_{name}"] = statistics.fmean(values)
            result[f"cross_validation_{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        return result

    def each_fold(self) -> dict[str, list[float]]:
        """Metric → its values, fold by fold, for the metrics that all folds have."""
        rows = [self.values[fold] for fold in sorted(self.values)]
        names = set.intersection(*(set(row) for row in rows)) if rows else set()
        return {name: [row[name] for row in rows] for name in sorted(names)}

    def line(self) -> str:
        """The result for a person to read."""
        name = short_name({k: v for k, v in self.settings.items() if k not in ("data.mode", "data.folds", "name")})
        values = self.metrics()
        parts = [
            f"{metric} {values[f'cross_validation_{metric}']:.4g} ± {values[f'cross_validation_{metric}_std']:.2g}"
            for metric in self.each_fold()
            if not metric.startswith("train/")
        ]
        return f"{name} ({len(self.runs)} of {self.folds} folds): {', '.join(parts) or 'nothing yet'}"


def key(changes: Flat) -> str:
    """What a cross-validation's folds have in common, and no other run."""
    return identity({k: v for k, v in changes.items() if k != "data.fold"} | {"seed": changes.get("trial", 0)})


def collect(experiment: Path) -> list[CrossValidation]:
    """Find the cross-validations in an experiment's folder; there are several if its runs differ in more than the fold.

    Raises:
        SettingsError: there are none.
    """
    found: dict[str, CrossValidation] = {}
    for file in sorted(experiment.glob("*/overlay.yaml")):
        changes = read(file)
        if changes.get("data.mode") != MODE:
            continue
        settings = {name: value for name, value in changes.items() if name != "data.fold"}
        new = CrossValidation(settings, changes.get("data.folds", 5))
        status, each = RunFolder(file.parent).status(), found.setdefault(key(changes), new)
        if status.get("state") == "done":
            fold = changes.get("data.fold", 0)
            each.runs[fold], each.values[fold] = file.parent.name, status.get("metrics") or {}
    if not found:
        raise SettingsError(f"{experiment} has no runs of a cross-validation (data.mode {MODE})")
    return list(found.values())


def write(experiment: Path, found: Sequence[CrossValidation]) -> None:
    """Write cross-validation.json in the experiment's folder: a list of those all of whose folds are done."""
    entries = [
        dict(
            settings=each.settings,
            folds=each.folds,
            metrics=each.metrics(),
            each_fold=each.each_fold(),
            runs=[each.runs[fold] for fold in sorted(each.runs)],
        )
        for each in found
        if len(each.runs) == each.folds
    ]
    if entries:
        write_atomically(experiment / FILE, json.dumps(entries, indent=2, default=str) + "\n")


def report(whole: Request, metrics: Mapping[str, float], code: int) -> None:
    """Give the trackers the means, in a run of their own beside the folds' runs.

    Args:
        whole: the request without a fold.
        metrics: the means; none if a fold has not been done.
        code: the exit code.
    """
    from .cli import CLI  # late: it imports torch, which the folds' processes have for themselves
    from .errors import import_class
    from .trackers import finish_trackers, place_loggers

    cli = CLI(whole)
    name = short_name({k: v for k, v in whole.changes.items() if k != "data.mode"})
    folder = whole.folder.path.with_name(f"{MODE}-{name}-{whole.identity[:8]}")
    chosen = place_loggers(cli.config.fit.trainer.logger, dataclasses.replace(whole, folder=RunFolder(folder)))
    folder.mkdir(exist_ok=True)  # for the trackers' own files
    trackers = [import_class(each.class_path)(**vars(each.get("init_args") or {})) for each in chosen]
    for tracker in trackers:
        tracker.log_hyperparams(cli.resolved)
        tracker.log_metrics(dict(metrics), step=0)
        tracker.finalize("success" if code == 0 else "failed")
    finish_trackers(trackers, code)
    if not any(folder.iterdir()):
        folder.rmdir()
