"""What the folds of a cross-validation say together: a mean and a standard deviation of each metric."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..files import write_json
from ..settings.errors import SettingsError
from ..settings.flat import Flat, read_settings
from .folder import RunFolder
from .identity import identity, short_name

CROSS_VALIDATION = "cross-validation"  # the value of data.mode


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

    def complete(self) -> bool:
        """True if all folds are done."""
        return len(self.runs) == self.folds

    def metrics(self) -> dict[str, float]:
        """Mean and sample standard deviation (of K − 1) of each metric, as cross_validation_METRIC and …_std."""
        result = {}
        for name, values in self.each_fold().items():
            mean, deviation = statistics.fmean(values), 0.0
            if not math.isfinite(mean):  # one fold is NaN, so nothing is known of their mean
                mean = deviation = math.nan
            elif len(values) > 1:
                deviation = statistics.stdev(values)
            result[f"cross_validation_{name}"] = mean
            result[f"cross_validation_{name}_std"] = deviation
        return result

    def each_fold(self) -> dict[str, list[float]]:
        """Metric → its values, fold by fold, for the metrics that all folds have."""
        if not self.values:
            return {}

        # A mean over fewer folds than its neighbour's would not compare with it.
        rows = [self.values[fold] for fold in sorted(self.values)]
        common = set.intersection(*(set(row) for row in rows))
        return {name: [number(row[name]) for row in rows] for name in sorted(common)}

    def line(self) -> str:
        """The result for a person to read; metrics of training are left out."""
        metrics = self.metrics()
        results = []
        for name, values in self.each_fold().items():
            if name.startswith("train/"):
                continue
            mean = metrics[f"cross_validation_{name}"]
            deviation = metrics[f"cross_validation_{name}_std"]
            text = f"{name} {mean:.4g} ± {deviation:.2g}"
            if math.isnan(mean):
                by_fold = zip(sorted(self.values), values, strict=True)
                folds = [str(fold) for fold, value in by_fold if not math.isfinite(value)]
                text = f"{name} nan (fold {', '.join(folds)})"
            results.append(text)

        same_for_all = ("data.mode", "data.folds", "name")
        changes = {key: value for key, value in self.settings.items() if key not in same_for_all}
        done = f"{len(self.runs)} of {self.folds} folds"
        return f"{short_name(changes)} ({done}): {', '.join(results) or 'nothing yet'}"


def number(value: float | None) -> float:
    """A metric as status.json has it: null stands for NaN."""
    return math.nan if value is None else value


def cross_validation_identity(changes: Flat) -> str:
    """What a cross-validation's folds have in common, and no other run."""
    # The trial is no part of an identity; its effect, the seed, is.
    common = {key: value for key, value in changes.items() if key != "data.fold"}
    return identity({**common, "seed": changes.get("trial", 0)})


def read_cross_validations(experiment: Path) -> list[CrossValidation]:
    """Find the cross-validations in an experiment's folder; there are several if its runs differ in more than the fold.

    Raises:
        SettingsError: there are none.
    """
    cross_validations: dict[str, CrossValidation] = {}

    for file in sorted(experiment.glob("*/overlay.yaml")):
        try:
            changes = read_settings(file)
        except SettingsError:
            if file.exists():
                raise
            continue  # its run starts over at this moment, and its earlier results are moved aside
        if changes.get("data.mode") != CROSS_VALIDATION:
            continue

        # A fold that is not done yet is known, too: it says that its cross-validation is not complete.
        key = cross_validation_identity(changes)
        if key not in cross_validations:
            settings = {name: value for name, value in changes.items() if name != "data.fold"}
            cross_validations[key] = CrossValidation(settings, changes.get("data.folds", 5))

        status = RunFolder(file.parent).status()
        if status.get("state") == "done":
            fold = changes.get("data.fold", 0)
            cross_validations[key].runs[fold] = file.parent.name
            cross_validations[key].values[fold] = status.get("metrics") or {}

    if not cross_validations:
        raise SettingsError(f"{experiment} has no runs of a cross-validation (data.mode {CROSS_VALIDATION})")
    return list(cross_validations.values())


def write_cross_validations(experiment: Path, cross_validations: Sequence[CrossValidation]) -> None:
    """Write cross-validation.json in the experiment's folder: a list of those all of whose folds are done."""
    entries = []
    for cross_validation in cross_validations:
        if cross_validation.complete():
            runs = cross_validation.runs
            entries.append(
                dict(
                    settings=cross_validation.settings,
                    folds=cross_validation.folds,
                    metrics=cross_validation.metrics(),
                    each_fold=cross_validation.each_fold(),
                    runs=[runs[fold] for fold in sorted(runs)],
                )
            )

    if entries:
        write_json(experiment / "cross-validation.json", entries)


def gather_cross_validations(experiment: Path) -> list[CrossValidation]:
    """Read the cross-validations in an experiment's folder, and write those all of whose folds are done.

    Raises:
        SettingsError: there are none.
    """
    found, written = read_cross_validations(experiment), None

    # Another one may end, and write the file, between the look at its folds and the writing here: so look once more.
    while (done := [one.runs for one in found]) != written:
        write_cross_validations(experiment, found)
        found, written = read_cross_validations(experiment), done
    return found
