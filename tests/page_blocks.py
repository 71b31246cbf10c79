"""What the pages show in fenced blocks: files, commands, and what the commands print."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block, continued lines joined."""
    return [(language, content.replace("\\\n", " ")) for _, language, content in BLOCK.findall(text)]


def named_file(content: str) -> Path | None:
    """The file that a block shows, by its first line: `# my_data.py`."""
    match = re.match(r"# ([\w./]+\.(?:py|yaml))\n", content)
    return Path(match[1]) if match else None


def commands(content: str) -> Iterator[tuple[list[str], str]]:
    """Each `python …` command of a block as its words, and the line below it, which may be what it prints."""
    lines = content.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        command = re.match(r"(?:\$ )?python (\w+\.py\b.*)", line)
        words = shlex.split(command[1], comments=True) if command else []
        if words and not any("…" in word for word in words):
            yield words, following
