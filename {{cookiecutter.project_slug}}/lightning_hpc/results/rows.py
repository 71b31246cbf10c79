"""What is known of each run: its status, settings and metrics, read again only where its files have changed."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..runs.status import understood
from ..settings.flat import Flat
from .run_files import CONFIG, EVALUATIONS, OVERLAY, STATUS, RunFiles, Signature, read_runs, signatures
from .similar_yaml import SimilarFiles

FILES = (STATUS, CONFIG, OVERLAY, *EVALUATIONS)

# Columns behind a run's settings and metrics, from status.json.
AFTER = (
    "step", "epoch", "monitor", "mode", "best", "seconds", "attempt", "host", "slurm_job", "started", "updated",
    "commit", "uncommitted_changes", "identity", "lightning_hpc", "command",
)  # fmt: skip

# What evaluations note about themselves.
NO_METRICS = ("checkpoint", "step", "epoch", "time")

# Folder → what was read of it, and when: a second look reads only what has changed.
_known: dict[Path, tuple[Signature, "Row"]] = {}
_yaml = {CONFIG: SimilarFiles(), OVERLAY: SimilarFiles()}


class Row:
    """What is known of one run.

    Attributes:
        status: fields of status.json.
        settings: all settings, resolved, as short keys.
        changes: those that were asked for.
        metrics: the newest values, and those of the evaluations.
        reason: why something of it can't be read, or may be understood wrongly; None if all is well.
    """

    def __init__(self, files: RunFiles) -> None:
        self.reason = files.reason
        self.status = understood(files.texts[STATUS], files.folder) if STATUS in files.texts else {}
        self.settings = self._read_yaml(files, CONFIG)
        self.changes = self._read_yaml(files, OVERLAY)
        self.metrics: dict[str, Any] = {}

        newest = self.status.get("metrics")
        if isinstance(newest, Mapping):
            self.metrics |= newest
        for name in EVALUATIONS:
            evaluation = self._read_json(files, name)
            self.metrics |= {key: value for key, value in evaluation.items() if key not in NO_METRICS}

        version = self.status.get("lightning_hpc")
        if version != __version__ and numbers_of(version) > numbers_of(__version__):
            self.reason = self.reason or self.status.get("reason") or f"of lightning_hpc {version}, newer than this one"

    def _read_json(self, files: RunFiles, name: str) -> dict[str, Any]:
        """A file that holds an object; {} with a reason if it does not."""
        text = files.texts.get(name)
        if text is None:
            return {}
        try:
            content = json.loads(text)
        except ValueError as error:
            self.reason = f"{name} can't be read: {error}"
            return {}
        if not isinstance(content, dict):
            self.reason = f"{name} can't be read: it holds no object"
            return {}
        return content

    def _read_yaml(self, files: RunFiles, name: str) -> Flat:
        """A file of settings; {} with a reason if it is none."""
        text = files.texts.get(name)
        if text is None:
            return {}
        try:
            return _yaml[name].read(text)
        except ValueError as error:
            self.reason = f"{name} can't be read: {error}"
            return {}

    def setting(self, key: str) -> Any:
        """A setting by its short key; None if the run has none of this name."""
        return self.settings.get(key, self.changes.get(key))

    def seed_is_trial(self) -> bool:
        """True if the seed says nothing that the trial does not say."""
        return self.settings.get("seed_everything", 0) == self.changes.get("trial", 0)

    def cells(self) -> dict[str, Any]:
        """Its columns that come from status.json. What can't be read is `unknown`, which is neither done nor failed."""
        status = self.status
        state = status.get("state") or ("unknown" if self.reason else "not started")
        reason = self.reason or status.get("reason")
        return dict(state=state, reason=reason) | {name: status.get(name) for name in AFTER}


def numbers_of(version: Any) -> list[int]:
    """The numbers in a version: [0, 1, 0] of "0.1.0"; none where nothing is known."""
    return [int(number) for number in re.findall(r"\d+", str(version))]


def rows_of(folders: Sequence[Path]) -> list[Row]:
    """What is known of each folder; those whose files are as they were are not read again."""
    changed = {}
    for folder, mark in zip(folders, signatures(folders, FILES), strict=True):
        known = _known.get(folder)
        if known is None or known[0] != mark:
            changed[folder] = mark

    # The signature was taken before reading: what changes in between is read again at the next look.
    for files in read_runs(list(changed), FILES):
        _known[files.folder] = (changed[files.folder], Row(files))
    return [_known[folder][1] for folder in folders]
