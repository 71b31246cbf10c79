"""One run = one folder = one identity: a hash of what determines the run's result, never a job id, never a date.

The identity names the folder, the W&B run and the place of the checkpoints, so a run that is started again, by hand, by
SLURM after a requeue or by another agent, finds what it left.
"""

import functools
import hashlib
import json
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ..settings.errors import SettingsError
from .folder import RunFolder

# What may differ between two starts of the same run: where it writes, what it prints, how often it saves.
NOT_IDENTITY = (
    "name",
    "run",
    "runs_dir",
    "resume",
    "code",
    "config",
    "print_config",
    "trial",  # its effect is the seed, which counts
    "canary",
    "then",
    "checkpoints",
    "mirror",
    "cka",
    "data.num_workers",
    "data.data_dir",
    "data.test_on",
    "data.predict_dir",
    "data.also_validate",
    "trainer.default_root_dir",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.logger",
    "ckpt_path",
    "weights_only",
    "verbose",
)


def canonical(value: Any) -> Any:
    """The value in one form for all ways of writing it: 3 for 3.0, lists for tuples, maps sorted by key."""
    # YAML keys may be numbers or empty, which can't be sorted among texts.
    if isinstance(value, Mapping):
        sorted_map = {}
        for key in sorted(value, key=str):
            sorted_map[str(key)] = canonical(value[key])
        return sorted_map

    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]

    # From 2**53 on, a float no longer tells neighbouring whole numbers apart.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)

    return value


def fingerprint(flat: Mapping[str, Any]) -> str:
    """A text that is the same for settings that mean the same."""
    return json.dumps(canonical(flat), sort_keys=True, default=str)


def counting(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine a run's result, without those of NOT_IDENTITY and everything below them."""
    counting_settings = {}
    for key, value in flat.items():
        if counts(key):
            counting_settings[key] = value
    return counting_settings


@functools.cache  # a plan of 100,000 runs has the same few keys in each
def counts(key: str) -> bool:
    """True if a setting can change a run's result."""
    for name in NOT_IDENTITY:
        if key == name or key.startswith(f"{name}."):
            return False
    return True


def seed_of(settings: Mapping[str, Any], trial: object) -> object:
    """The seed of a run: its trial's number, unless seed_everything says otherwise.

    Raises:
        SettingsError: the trial is no number, or it has another seed.
    """
    if not isinstance(trial, int) or trial < 0:
        raise SettingsError(f"--trial must be a whole number from 0 on, got {trial}")
    seed = settings.get("seed_everything")
    if seed is None:
        seed = trial

    # Otherwise two trials, so two folders, could hold the same run. Trial 0 is the one that may have any seed.
    if trial and trial != seed:
        raise SettingsError(f"--trial {trial} means seed {trial}, but seed_everything is {seed}: give only one of them")
    return seed


def identity(flat: Mapping[str, Any], codeversion: str | None = None) -> str:
    """16 hexadecimal digits for a run's settings (short keys → values) and, optionally, a version of the code."""
    # A change of this text, even by a space, would part every run from its folder, checkpoints and W&B run.
    text = json.dumps([canonical(counting(flat)), codeversion], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def folder_name(trial: int, changes: Mapping[str, Any], run_identity: str) -> str:
    """The name of a run's folder, NNN-SHORTNAME-HASH8: for readers. Which run is in a folder, its status.json says."""
    return f"{trial:03d}-{short_name(changes)}-{run_identity[:8]}"


def another_name(name: str, taken: Container[str]) -> str:
    """A name for the folder of a run if another run has the one that it would have: NNN-SHORTNAME-2-HASH8, and so on.

    Eight digits are short enough to be typed. Of a thousand runs, two have the same with a probability of 1 / 8,600.
    """
    beginning, _, digits = name.rpartition("-")
    number = 2
    while f"{beginning}-{number}-{digits}" in taken:
        number += 1
    return f"{beginning}-{number}-{digits}"


def existing_folder(folder: Path, run_identity: str) -> RunFolder:
    """The folder of the run with this identity, which may have another name; a free one if there is none yet.

    A run's readable name depends on what it was planned with; started by hand it is still the same run.
    """
    # A folder without an identity is that of a run which has not begun, or of an early version.
    if folder.exists() and RunFolder(folder).status().get("identity") in (None, run_identity):
        return RunFolder(folder)

    others = list(folder.parent.glob(f"*-{run_identity[:8]}"))
    for other in others:
        if RunFolder(other).status().get("identity") == run_identity:
            return RunFolder(other)

    # What stands there under this name is another run, whose identity only begins with the same digits.
    name = folder.name
    if folder.exists():
        name = another_name(name, {other.name for other in others})
    return RunFolder(folder.with_name(name))


def short_name(changes: Mapping[str, Any], length: int = 48) -> str:
    """A name for a folder from what a run changes: `batch_size=64,lr=0.01`, path-safe, `base` if nothing is changed.

    Only the last part of each key is used where that is unambiguous; class names lose their module.
    """
    changes = counting(changes)
    last_words = [last_word(key) for key in changes]

    parts = []
    for key in sorted(changes):  # changes in another order make the same run, so the same folder
        label = last_word(key)
        if last_words.count(label) > 1:
            label = ".".join(key.split(".")[-2:])
        parts.append(f"{label}={short_value(changes[key])}")

    safe = re.sub(r"[^\w=.,+-]+", "_", ",".join(parts), flags=re.ASCII)
    safe = safe.strip("._-,")  # no hidden folder, and no name that looks like an option
    return safe[:length].rstrip("._-,=") or "base"


def last_word(key: str) -> str:
    """`lr` of `model.optimizer.lr`."""
    return key.rsplit(".", 1)[-1]


def short_value(value: Any) -> str:
    """A value as part of a name: a class without its module, a list of classes joined by +, a number to 4 digits."""
    if isinstance(value, float):
        return f"{value:.4g}"

    if isinstance(value, Mapping) and "class_path" in value:
        return short_value(value["class_path"])

    if isinstance(value, list) and any(isinstance(item, Mapping) and "class_path" in item for item in value):
        return "+".join(short_value(item) for item in value)

    # A class's path: words with dots between them, the last with a capital letter.
    if isinstance(value, str) and re.fullmatch(r"[\w.]+\.[A-Z]\w*", value):
        return last_word(value)

    if isinstance(value, list | Mapping):
        return json.dumps(canonical(value), default=str)
    return str(canonical(value))
