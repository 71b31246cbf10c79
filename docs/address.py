"""Say in one place where the template is published; the pages follow.

    python docs/address.py https://github.com/someone/cookiecutter-lightning-hpc

The place is `repository-code` in CITATION.cff. Until it is there, the commands on the pages name a checkout; afterwards
they name the address, as cookiecutter and cruft abbreviate it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKOUT = "path/to/cookiecutter-lightning-hpc"
KEY = re.compile(r"^repository-code: (\S+)$", re.MULTILINE)
ABBREVIATIONS = {"https://github.com/": "gh:", "https://gitlab.com/": "gl:", "https://bitbucket.org/": "bb:"}


def pages(root: Path) -> list[Path]:
    """The files that name the template's address."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def address_of(root: Path) -> str:
    """What is typed after `cookiecutter`: the address that CITATION.cff has, in short, or a checkout."""
    published = KEY.search((root / "CITATION.cff").read_text(encoding="utf-8"))
    if not published:
        return CHECKOUT

    for long, short in ABBREVIATIONS.items():
        if published[1].startswith(long):
            return short + published[1].removeprefix(long).removesuffix(".git")
    return published[1]


def publish(root: Path, repository: str) -> list[Path]:
    """Write the address of the repository into CITATION.cff and the pages; returns what has changed.

    Args:
        root: the template's folder.
        repository: its address, https://…
    """
    before = address_of(root)
    citation = root / "CITATION.cff"
    text = KEY.sub("", citation.read_text(encoding="utf-8")).rstrip("\n")
    citation.write_text(f"{text}\nrepository-code: {repository}\n", encoding="utf-8")

    changed = [citation]
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        if before in text:
            page.write_text(text.replace(before, address_of(root)), encoding="utf-8")
            changed.append(page)
    return changed


def main() -> None:
    """The command."""
    if len(sys.argv) != 2 or not re.fullmatch(r"https://[^/\s]+/\S+", sys.argv[1]):
        sys.exit(__doc__)
    for file in publish(ROOT, sys.argv[1].rstrip("/")):
        print(f"changed {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
