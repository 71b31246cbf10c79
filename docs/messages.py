"""All that the machine room's errors can say, read from its code without importing it.

A message is the text that is given to an exception for users; what it fills in is written as `…`. The page errors.md
answers the usual ones, and a test holds its headings to these messages.
"""

import ast
import re
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOMS = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}" / "lightning_hpc"

# Exceptions whose message is written for whoever has typed a command. All others are faults, or have an answer within.
FOR_USERS = {
    "SettingsError",
    "MirrorError",
    "StoreError",
    "NotPutBack",
    "TakenOver",
    "CheckpointError",
    "CKAError",
    "DownloadError",
    "SplitError",
    "CannotCopy",
    "Diverged",
    "FolderIsLost",
    "LostConnection",
    "InsecureRedirect",
}


class Message(NamedTuple):
    """What an error says, and which room says it."""

    room: str
    text: str


def messages() -> list[Message]:
    """All messages, in the order of rooms, files and lines; each once."""
    found = {}
    for file in sorted(ROOMS.rglob("*.py")):
        room = file.relative_to(ROOMS).parts[0].removesuffix(".py")
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for node in sorted(calls, key=lambda node: node.lineno):
            text = message_of(node)
            if text and re.search(r"\w{3}", text):
                found.setdefault(Message(room, text))
    return list(found)


def message_of(call: ast.Call) -> str | None:
    """The text that an exception is made with; None where it is not for users, or its text made elsewhere."""
    if not (call.args and getattr(call.func, "id", "") in FOR_USERS):
        return None
    return text_of(call.args[0])


def text_of(node: ast.expr) -> str:
    """A string as it is printed, with `…` for what it fills in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(text_of(part) for part in node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "…"


def is_said(shown: str, message: str) -> bool:
    """True if a text, with `…` for what varies, can be what a message says, or its beginning."""
    pattern = ".*".join(map(re.escape, shown.split("…")))
    return re.match(pattern, message, re.DOTALL) is not None


def anchor(text: str) -> str:
    """A message's name in links: its first words."""
    words = re.findall(r"[a-z0-9_]+", text.lower())
    return "-".join(words[:9])


def listed() -> str:
    """A list of all messages for a page, by room; each has an anchor."""
    lines, room, taken = [], "", set()
    for message in messages():
        if message.room != room:
            lines += ["", "</ul>", ""] if room else []
            room = message.room
            lines += [f"## {room}", "", "<ul>"]
        name = anchor(message.text)
        while name in taken:
            name += "-2"
        taken.add(name)
        lines.append(
            f'<li id="{name}"><a href="#{name}"><code>{escape(" ".join(message.text.split()))}</code></a></li>'
        )
    return "\n".join([*lines, "", "</ul>"]) + "\n"
