"""The folds of a cross-validation: which belong together, their mean and deviation, and what is written."""

import json

import pytest

from lightning_hpc.runs import folds
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.runs.folds import gather_cross_validations, read_cross_validations, write_cross_validations
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.yaml_files import dump


def run(experiment, fold, state="done", metrics=None, folds=2, **changes):
    """A run's folder as a finished fold leaves it."""
    settings = {"data.mode": "cross-validation", "data.folds": folds, "data.fold": fold, "name": "x", **changes}
    folder = RunFolder(experiment / f"{len(list(experiment.glob('*'))):03d}-fold={fold}")
    folder.start()
    folder.end(state, metrics=metrics or {})
    (folder.path / "overlay.yaml").write_text(dump(settings))
    return folder.path.name


def test_mean_and_sample_deviation_of_the_metrics_that_all_folds_have(tmp_path):
    names = [
        run(tmp_path, 1, metrics={"val/acc": 0.8, "train/loss": 3.0, "only/here": 1.0}),
        run(tmp_path, 0, metrics={"val/acc": 0.6, "train/loss": 1.0}),
    ]
    (cross_validation,) = read_cross_validations(tmp_path)
    assert cross_validation.complete()
    assert cross_validation.each_fold() == {"train/loss": [1.0, 3.0], "val/acc": [0.6, 0.8]}
    assert cross_validation.metrics() == pytest.approx(
        {
            "cross_validation_train/loss": 2.0,
            "cross_validation_train/loss_std": 2**0.5,
            "cross_validation_val/acc": 0.7,
            "cross_validation_val/acc_std": 0.02**0.5,
        }
    )
    assert cross_validation.line() == "base (2 of 2 folds): val/acc 0.7 ± 0.14"

    write_cross_validations(tmp_path, [cross_validation])
    (entry,) = json.loads((tmp_path / "cross-validation.json").read_text())
    assert entry["settings"] == {"data.mode": "cross-validation", "data.folds": 2, "name": "x"}
    assert entry["folds"] == 2 and entry["each_fold"] == cross_validation.each_fold()
    assert entry["metrics"] == cross_validation.metrics()
    assert entry["runs"] == names[::-1]  # by fold


def test_runs_that_differ_in_more_than_the_fold_are_cross_validations_of_their_own(tmp_path):
    for rate in (0.1, 0.2):
        for fold in (0, 1):
            run(tmp_path, fold, metrics={"val/acc": rate}, **{"model.optimizer.lr": rate})
    run(tmp_path, 0, trial=1, **{"model.optimizer.lr": 0.1})
    lines = [cross_validation.line() for cross_validation in read_cross_validations(tmp_path)]
    assert lines == [
        "lr=0.1 (2 of 2 folds): val/acc 0.1 ± 0",
        "lr=0.2 (2 of 2 folds): val/acc 0.2 ± 0",
        "lr=0.1 (1 of 2 folds): nothing yet",
    ]


def test_only_folds_that_are_done_count_and_only_what_is_complete_is_written(tmp_path):
    run(tmp_path, 0, metrics={"val/acc": 0.5})
    run(tmp_path, 1, state="failed", metrics={"val/acc": 0.9})
    (cross_validation,) = read_cross_validations(tmp_path)
    assert not cross_validation.complete()
    assert cross_validation.line() == "base (1 of 2 folds): val/acc 0.5 ± 0"
    write_cross_validations(tmp_path, [cross_validation])
    assert not (tmp_path / "cross-validation.json").exists()


def test_an_experiment_without_folds_is_refused(tmp_path):
    run(tmp_path, 0, **{"data.mode": "validation"})
    with pytest.raises(SettingsError, match="has no runs of a cross-validation"):
        read_cross_validations(tmp_path)


def test_a_fold_that_is_not_a_number_is_named_and_costs_no_other_metric(tmp_path):
    for fold, loss in enumerate((1.0, float("nan"), float("inf"))):
        run(tmp_path, fold, metrics={"val/loss": loss, "val/acc/class_0": 0.5}, folds=3)
    validations = read_cross_validations(tmp_path)
    (line,) = [validation.line() for validation in validations]
    assert line == "base (3 of 3 folds): val/acc/class_0 0.5 ± 0, val/loss nan (fold 1, 2)"
    write_cross_validations(tmp_path, validations)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    for file in tmp_path.rglob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)
    (entry,) = json.loads((tmp_path / "cross-validation.json").read_text())
    assert entry["each_fold"]["val/loss"] == [1.0, None, None] and entry["metrics"]["cross_validation_val/loss"] is None


def test_two_cross_validations_that_end_at_the_same_time_are_both_written(tmp_path, monkeypatch):
    """The second one ends, and writes the file, when the first one has looked and not yet written."""
    for fold in (0, 1):
        run(tmp_path, fold, metrics={"val/acc": 0.5})
    write, seconds = write_cross_validations, []

    def the_second_ends_before(experiment, validations):
        if not seconds:
            seconds.extend(run(tmp_path, fold, metrics={"val/acc": 0.9}, trial=1) for fold in (0, 1))
            gather_cross_validations(experiment)
        write(experiment, validations)

    monkeypatch.setattr(folds, "write_cross_validations", the_second_ends_before)
    assert len(gather_cross_validations(tmp_path)) == 2
    first, second = json.loads((tmp_path / "cross-validation.json").read_text())
    assert first["each_fold"] == {"val/acc": [0.5, 0.5]} and second["each_fold"] == {"val/acc": [0.9, 0.9]}
    assert second["runs"] == seconds


def test_another_run_that_starts_over_at_this_moment_is_no_error(tmp_path, monkeypatch):
    for fold in (0, 1):
        run(tmp_path, fold, metrics={"val/acc": 0.5})
    other, read_settings = run(tmp_path, 0, trial=1), folds.read_settings

    def starts_over_before(file):
        if file.parent.name == other:
            RunFolder(file.parent).move_aside()
        return read_settings(file)

    monkeypatch.setattr(folds, "read_settings", starts_over_before)
    (cross_validation,) = read_cross_validations(tmp_path)
    assert cross_validation.complete()
