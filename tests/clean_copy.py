"""The template as git sees it: cookiecutter would also render caches that lie about in the original."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def clean_copy(target: Path) -> Path:
    """Copy what git tracks or would track, without the tests; returns the copy's folder."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
