"""Settings of Sphinx. What must agree with the code, or was measured, is not typed but filled in: filled_in.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from filled_in import fill_in

project = "cookiecutter-lightning-hpc"
author = "the cookiecutter-lightning-hpc authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links such as clusters.md#hec-lancaster


def setup(app):
    app.connect("source-read", lambda app, page, source: source.__setitem__(0, fill_in(source[0])))
