"""One run = one folder = one identity: a hash of what determines the run's result, never a job id, never a date.

The identity names the folder, the W&B run and the place of the checkpoints, so a run that is started again, by hand, by
SLURM after a requeue or by another agent, finds what it left.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

# What may differ between two starts of the same run: where it writes, what it prints, how often it saves.
NOT_IDENTITY = (
    "name",
    "run",
    "runs_dir",
    "resume",
    "config",
    "print_config",
    "trial",  # its effect is the seed, which counts
    "canary",
    "checkpoints",
    "cka",
    "data.num_workers",
    "data.data_dir",
    "data.data_dir",
    "data.test_on",
    "trainer.default_root_dir",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.logger",
    "ckpt_path",
    "weights_only",
    "verbose",
)


def canonical(value: Any) -> Any:
    """A value so that equal settings are equal texts: 1e-3 and 0.001, 3 and 3.0, maps in any order."""
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def counting(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine a run's result, without those of NOT_IDENTITY and everything below them."""
    return {k: v for k, v in flat.items() if not any(k == name or k.startswith(f"{name}.") for name in NOT_IDENTITY)}


def identity(flat: Mapping[str, Any], codeversion: str | None = None) -> str:
    """16 hexadecimal digits for a run's settings (short keys → values) and, optionally, a version of the code."""
    text = json.dumps([canonical(counting(flat)), codeversion], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def folder_name(trial: int, changes: Mapping[str, Any], run_identity: str) -> str:
    """The name of a run's folder, NNN-SHORTNAME-HASH8; only the last part tells runs apart."""
    return f"{trial:03d}-{short_name(changes)}-{run_identity[:8]}"


def short_name(changes: Mapping[str, Any], length: int = 48) -> str:
    """A name for a folder from what a run changes: `batch_size=64,lr=0.01`, path-safe, `base` if nothing is changed.

    Only the last part of each key is used where that is unambiguous; class names lose their module.
    """
    changes = counting(changes)
    leaves = [key.rsplit(".", 1)[-1] for key in changes]
    parts = []
    for key, value in sorted(changes.items()):  # in any order they make the same run, so the same folder
        leaf = key.rsplit(".", 1)[-1]
        label = leaf if leaves.count(leaf) == 1 else ".".join(key.split(".")[-2:])
        parts.append(f"{label}={short_value(value)}")
    safe = re.sub(r"[^\w=.,+-]+", "_", ",".join(parts), flags=re.ASCII).strip("._-,")
    return safe[:length].rstrip("._-,=") or "base"


def short_value(value: Any) -> str:
    """A value as part of a name: a class without its module, a list of classes joined by +, a number to 4 digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and "class_path" in value:
        return short_value(value["class_path"])
    if isinstance(value, list) and any(isinstance(item, Mapping) and "class_path" in item for item in value):
        return "+".join(short_value(item) for item in value)
    if isinstance(value, str) and re.fullmatch(r"[\w.]+\.[A-Z]\w*", value):
        return value.rsplit(".", 1)[-1]
    return json.dumps(canonical(value), default=str) if isinstance(value, list | Mapping) else str(canonical(value))
