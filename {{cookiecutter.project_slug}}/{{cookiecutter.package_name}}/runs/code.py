"""Which code runs: the git commit and what has been changed since, also for a copy of the project without .git."""

import json
import subprocess
from pathlib import Path

NOTE, DIFF = "commit.json", "uncommitted.diff"


def version(root: Path) -> tuple[str | None, str | None]:
    """The commit of the code in a folder, and the changes that are not committed; None where there is no git.

    Args:
        root: a project's folder, or a snapshot of one, which has the answer in files.
    """
    if (root / NOTE).is_file():
        diff = root / DIFF
        return json.loads((root / NOTE).read_text())["commit"], diff.read_text("utf-8") if diff.is_file() else None
    commit, diff = git(root, "rev-parse", "HEAD"), git(root, "diff", "HEAD", "--", ".")
    return (commit or "").strip() or None, diff or None


def note_version(root: Path, snapshot: Path) -> None:
    """Write the version of the code in `root` beside its copy."""
    commit, diff = version(root)
    (snapshot / NOTE).write_text(json.dumps(dict(commit=commit, uncommitted_changes=bool(diff))) + "\n")
    if diff:
        (snapshot / DIFF).write_text(diff, encoding="utf-8")


def git(root: Path, *command: str) -> str | None:
    """What a git command prints; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")
