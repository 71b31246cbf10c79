"""What the text of a status.json says, also where it is damaged."""

import json
from pathlib import Path
from typing import Any

from ..files import read_json


def understood(text: bytes, folder: Path) -> dict[str, Any]:
    """What the text of a run's status.json says or, if it is cut off or overwritten, what the checkpoints tell."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        return content

    # Whether it was done, nobody knows.
    last = read_json(folder / "checkpoints" / "meta.json").get("last")
    if not last:
        return dict(state="unknown", reason="status.json is damaged, and there is no checkpoints/meta.json")

    reason = f"status.json is damaged; checkpoints/meta.json tells of step {last['step']}"
    rebuilt = dict(state="unknown", reason=reason, step=last["step"], epoch=last.get("epoch"))
    if last.get("config"):
        rebuilt["identity"] = last["config"]
    return rebuilt
