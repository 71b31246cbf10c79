"""What was sent here from a laptop: a folder that has no git, and knows all the same which version of the code it has.

.sent/sums lists the files, as sha256sum writes it; .sent/version.json says which commit they are, and what else.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import read_json

SUMS, VERSION = ".sent/sums", ".sent/version.json"


def line_of(name: str, content: bytes) -> str:
    """A file's line in .sent/sums."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


def sent_files(root: Path) -> list[str]:
    """The files that were sent, in the order of the list; [] where none were."""
    return list(sums(root))


def sums(root: Path) -> dict[str, str]:
    """File → its line in the list."""
    try:
        lines = (root / SUMS).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    return {line.rstrip("\n").partition("  ")[2]: line for line in lines}


def version_text(commit: str | None, uncommitted_changes: bool | None, diff: str | None) -> str:
    """The text of .sent/version.json."""
    return json.dumps(dict(commit=commit, uncommitted_changes=uncommitted_changes, diff=diff))


def sent_version(root: Path, new: list[str]) -> dict[str, Any]:
    """What `version_text` has written, and what has changed here since; {} where nothing was sent.

    Args:
        root: the project's folder.
        new: code that was not sent.
    """
    version = read_json(root / VERSION)
    if not version:
        return {}

    changed = list(new)
    for name, line in sums(root).items():
        file = root / name
        if not file.is_file() or line_of(name, file.read_bytes()) != line:
            changed.append(name)
    if changed and version["commit"] is not None:
        notes = "".join(f"# not as it was sent, or new: {name}\n" for name in sorted(changed))
        version |= dict(uncommitted_changes=True, diff=notes + (version["diff"] or ""))
    return version
