"""The trackers that the settings choose: given to a run at its start, and told how it has ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from ..runs.run import Run
from ..settings.classes import import_class
from .tracker import Tracker
from .wandb_runs import exit_for_sure

# Settings of loggers that name a folder; a relative one is meant relative to the run's folder.
FOLDER_SETTINGS = ("save_dir", "offline_directory")


def place_loggers(loggers: Any, run: Run) -> list[Any]:
    """Give each configured logger the run's folder and, if it is one of `trackers/`, what the run is called there.

    Args:
        loggers: the parsed setting trainer.logger: None, a bool, one logger or a list of them.
        run: the run.

    Returns:
        the list of loggers, settings changed in place.
    """
    if not loggers or loggers is True:
        return []
    if not isinstance(loggers, list):
        loggers = [loggers]

    for chosen in loggers:
        settings: Namespace = chosen.get("init_args") or Namespace()
        for key in FOLDER_SETTINGS:
            if isinstance(settings.get(key), str | Path):
                settings[key] = str(run.folder.path / settings[key])

        kind = import_class(chosen.class_path)
        if isinstance(kind, type) and issubclass(kind, Tracker):
            for key, value in kind.settings_of(run).items():
                if settings.get(key) is None:
                    settings[key] = value
    return loggers


def finish_trackers(loggers: Sequence[Logger], code: int) -> None:
    """Let all trackers have what is left, and how the run has ended.

    Args:
        loggers: those of the Trainer.
        code: the exit code.
    """
    for tracker in loggers:
        if isinstance(tracker, Tracker):
            tracker.finish(code)
    exit_for_sure(code)
