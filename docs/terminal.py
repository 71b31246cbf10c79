"""Record commands in a real terminal, and draw what it showed as an SVG that plays once, without scripts.

    with Terminal(folder) as terminal:
        terminal.type("python Train.py fit", kill_at="epoch 4/")
        Path("fit.svg").write_text(drawing(terminal.lines))

Waiting is shortened to at most a second, and the folder above the project is called ~; nothing else is changed. Whoever
wants no motion sees the end at once.
"""

import os
import re
import signal
import time
from html import escape
from pathlib import Path
from typing import NamedTuple

import pexpect

COLUMNS = 104
PROMPT = "$ "
LONGEST_WAIT, TYPING = 0.9, 1.0  # seconds
WIDTH, HEIGHT, MARGIN = 8.43, 19, 18  # of a character at 14 pixels, of a line, around all: pixels

STYLE = """\
.t { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #d6dae0; white-space: pre }
.p { fill: #ffffff; font-weight: bold }
.e { fill: #ff9d8a }
.h { fill: #8ce99a }
.t { animation: show 1ms both }
@keyframes show { from { opacity: 0 } to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { .t { animation: none } }
"""


class Line(NamedTuple):
    """A line of the terminal: seconds since the beginning, and its text."""

    at: float
    text: str


class Terminal:
    """A shell in a terminal, which remembers when it has shown what.

    Args:
        folder: where the shell starts.
        environment: more variables.
        columns: the terminal's width.
    """

    def __init__(self, folder: Path, environment: dict[str, str] | None = None, columns: int = COLUMNS) -> None:
        self.folder, self.columns = folder, columns
        self.environment = os.environ | (environment or {})

        # Last, since a virtual environment that is active has a prompt of its own.
        self.environment |= {"TERM": "xterm", "PS1": PROMPT, "CI": "true", "COLUMNS": str(columns)}
        self.lines: list[Line] = []

    def __enter__(self) -> "Terminal":
        self.shell = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting", "-i"],
            cwd=self.folder,
            env=self.environment,
            encoding="utf-8",
            dimensions=(50, 1000),  # so wide that bash breaks no line: the drawing does
            timeout=600,
            echo=False,
        )
        self.shell.expect_exact(PROMPT)
        return self

    def __exit__(self, *_) -> None:
        self.shell.close(force=True)

    def type(self, command: str, kill_at: str | None = None) -> str:
        """Type a command and wait until it has ended; returns what it has printed.

        Args:
            command: one line.
            kill_at: SIGKILL ends the command once it has printed a line with this.
        """
        self.show(PROMPT + command, wait=TYPING)
        self.shell.sendline(command)
        printed, last = [], time.monotonic()
        while self.shell.expect_exact(["\r\n", PROMPT]) == 0:
            text, now = self.shell.before, time.monotonic()
            self.show(text, wait=min(now - last, LONGEST_WAIT))
            printed.append(text)
            last = now
            if kill_at and kill_at in text:
                kill_children(self.shell.pid)
        return "\n".join(printed)

    def show(self, text: str, wait: float) -> None:
        """Note a line, broken where the terminal's width ends it."""
        text = text.replace(str(self.folder.parent), "~")
        text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x1b[=>]|\r", "", text)
        at = (self.lines[-1].at if self.lines else 0) + wait
        for start in range(0, max(len(text), 1), self.columns):
            self.lines.append(Line(at, text[start : start + self.columns]))


def kill_children(pid: int) -> None:
    """Send SIGKILL to the programs that a shell has started."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def drawing(lines: list[Line], title: str, bright: str = r"$^") -> str:
    """Lines of a terminal as SVG.

    Args:
        lines: what it showed, and when.
        title: what there is to see, for those who don't see it.
        bright: regular expression of what is to be noticed.
    """
    columns = max(len(line.text) for line in lines)
    width, height = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    lines = [Line(line.at - lines[0].at, line.text) for line in lines]  # the first is there from the beginning
    rows = "\n".join(row(number, line, bright) for number, line in enumerate(lines) if line.text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" width="{width:.0f}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#1d2127"/>\n{rows}\n</svg>\n'
    )


def row(number: int, line: Line, bright: str) -> str:
    """One line: a command bold, an error red, and in green what is to be noticed."""
    kind = "t"
    if line.text.startswith(PROMPT):
        kind = "t p"
    elif line.text.startswith(("error:", "Killed")):
        kind = "t e"

    text = re.sub(bright, lambda found: f'<tspan class="h">{found[0]}</tspan>', escape(line.text, quote=False))
    y = MARGIN + (number + 0.75) * HEIGHT
    length = f'textLength="{len(line.text) * WIDTH:.0f}" lengthAdjust="spacingAndGlyphs"'
    return (
        f'<text class="{kind}" x="{MARGIN}" y="{y:.0f}" {length} style="animation-delay:{line.at:.2f}s">{text}</text>'
    )
