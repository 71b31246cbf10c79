"""The page of all runs as one file: HTML, style, scripts and data, which load nothing from anywhere."""

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"

# In the order in which they need each other; all are joined into one script.
SCRIPTS = (
    "logic.js", "importance.js", "data.js", "table.js", "chart.js", "curves.js", "sweep.js", "details.js", "maps.js",
    "main.js",
)  # fmt: skip


def make_page(content: dict[str, Any]) -> str:
    """The page's HTML.

    A Content-Security-Policy allows this very script and style, and nothing else: names and values of runs are hostile
    input, and a report must not tell anybody that it is being read.

    Args:
        content: what `page_content` returns.
    """
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)

    # Compressed and as base64, data can't end the element that it stands in.
    packed = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    data = base64.b64encode(gzip.compress(packed, compresslevel=6, mtime=0)).decode()

    policy = f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'"
    page = (ASSETS / "page.html").read_text(encoding="utf-8")
    for name, value in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script), ("DATA", data)):
        before, found, after = page.partition(f">{name}<" if name != "POLICY" else '"POLICY"')
        page = before + found.replace(name, value) + after
    return page


def digest(text: str) -> str:
    """A script or style as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
