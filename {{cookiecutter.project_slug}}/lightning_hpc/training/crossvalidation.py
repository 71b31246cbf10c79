"""K-fold cross-validation: each fold is an ordinary run, and what they say together is a mean and a standard deviation.

    python Train.py crossvalidate --folds 5 --name wide --model.network.width 64     one fold after the other
    python SlurmTrain.py submit SPEC                                                 with `folds: 5`: all at once
    python Report.py cross-validation runs/wide                                      the means, of either

A fold differs from other runs only in data.fold, so it has its own folder and checkpoints, and resumes from them.
Its metrics are those at its end, not the best: on the fold that chose it, the best is too good; and a final model,
trained on everything, has no validation that could choose.
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import signals
from ..code.compare import warn_of_other_code
from ..processes import Child, is_other_rank, wait_and_hand_on
from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.folds import CROSS_VALIDATION, gather_cross_validations
from ..runs.identity import short_name
from ..runs.run import Run, read_command_line
from ..settings.command_line import take_options
from ..settings.errors import SettingsError
from ..warm import Warm

QUESTIONS = {"-h", "--help", "--print_config"}  # they are answered by `fit`, and nothing is trained

# What a W&B sweep tells the run it starts. The sweep's run is the one that has the means; folds are runs of their own.
OF_THE_SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "SWEEP_AGENT_LEAVING")


def crossvalidate(arguments: Sequence[str], root: Path) -> int:
    """Train the folds that are not done, one after the other, then report; returns the exit code.

    Args:
        arguments: as for `fit`, and --folds.
        root: the project's folder.

    Raises:
        SettingsError: something asked for is wrong; nothing has been trained.
    """
    given, settings = take_options(arguments, "--folds")
    settings += [f"--data.mode={CROSS_VALIDATION}", *(f"--data.folds={folds}" for folds in given)]
    whole = read_command_line("fit", settings, root)
    count = whole.settings.flat.get("data.folds", 5)
    if not isinstance(count, int) or count < 2:
        raise SettingsError(f"--folds must be a whole number from 2 on, got {count}")
    if QUESTIONS & set(settings):
        return train(whole, root, os.environ)

    folds = [read_command_line("fit", [*settings, f"--data.fold={fold}"], root) for fold in range(count)]
    code = train_folds(folds, root, again=whole.settings.flat.get("resume") == "never")
    if code != 0:
        if "WANDB_SWEEP_ID" in os.environ:
            report(whole, {}, code)  # the sweep waits for a result
        return code
    if is_other_rank():
        return 0  # the first process reports

    validations = gather_cross_validations(folds[0].folder.path.parent)
    mine = next(validation for validation in validations if folds[-1].folder.path.name in validation.runs.values())
    print(mine.line())
    report(whole, mine.metrics(), 0)
    return 0


def train_folds(folds: Sequence[Run], root: Path, again: bool) -> int:
    """Train the folds that are not done, until one does not end well; returns its exit code, or 0.

    Args:
        folds: their runs.
        root: the project's folder.
        again: True if folds that are done are trained anew.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_SWEEP}
    with Warm(root, own_group=False) as warm:
        for number, fold in enumerate(folds, start=1):
            done = fold.folder.status().get("state") == "done"
            if done and not again:
                code = (fold.folder.status(), root, fold.folder.path.parent.parent, fold.settings.flat)
                for line in warn_of_other_code(*code):
                    print(f"fold {number} of {len(folds)} is done; {line}", flush=True)
                continue
            print(f"fold {number} of {len(folds)}", flush=True)
            warm.get_ready(environment)

            # A signal may have come between two folds, when there was none to hand it on to.
            stopped = signals.received()
            code = EXIT_CODES[stopped] if stopped else train(fold, root, environment, warm)
            if code != 0:
                return code
    return 0


def train(run: Run, root: Path, environment: Mapping[str, str], warm: Warm | None = None) -> int:
    """Run one fold in a process of its own, and hand on the signal that is to stop it; returns its exit code."""
    command = [sys.executable, str(root / "Train.py"), "fit", *run.typed]
    fold = Child(command, environment, own_group=False, warm=warm)
    wait_and_hand_on(fold)
    return fold.exit_code(EXIT_CODES)


def report(whole: Run, metrics: Mapping[str, float], code: int) -> None:
    """Give the trackers the means, in a run of their own beside the folds' runs.

    Args:
        whole: the run without a fold.
        metrics: the means; none if a fold has not been done.
        code: the exit code.
    """
    from ..settings.classes import import_class
    from ..settings.parser import CLI  # late: it imports torch, which the folds' processes have for themselves
    from ..trackers.chosen import finish_trackers, place_loggers

    cli = CLI(whole.command, whole.settings)
    name = short_name({key: value for key, value in whole.changes.items() if key != "data.mode"})
    folder = whole.folder.path.with_name(f"{CROSS_VALIDATION}-{name}-{whole.identity[:8]}")
    run = dataclasses.replace(whole, folder=RunFolder(folder))
    folder.mkdir(exist_ok=True)  # for the trackers' own files

    trackers = []
    for chosen in place_loggers(cli.config.trainer.logger, run):
        settings = vars(chosen.get("init_args") or {})
        trackers.append(import_class(chosen.class_path)(**settings))

    for tracker in trackers:
        tracker.log_hyperparams(cli.resolved)
        tracker.log_metrics(dict(metrics), step=0)
        tracker.finalize("success" if code == 0 else "failed")
    finish_trackers(trackers, code)
    if not any(folder.iterdir()):
        folder.rmdir()
