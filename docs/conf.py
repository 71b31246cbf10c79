"""Settings of Sphinx. What must agree with the code, or was measured, is not typed but filled in: filled_in.py.

The built pages ask for nothing from anywhere: formulas are MathML, and all scripts and styles lie beside them.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from filled_in import fill_in  # noqa: E402 - from this folder

project = "cookiecutter-lightning-hpc"
copyright = re.search(r"Copyright \(c\) (.*)", (DOCS.parent / "LICENSE").read_text())[1]
author = copyright.partition(" ")[2]
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_js_files = ["pages.js"]
html_show_sourcelink = html_copy_source = False  # the sources have markers, which are filled in here
html_math_renderer = "mathml"
smartquotes_action = "q"  # two hyphens begin an option, in headings and tables, too
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3  # links such as clusters.md#hec-lancaster

# Prompts and what is printed are not copied.
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def mathml(self, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers draw by themselves."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app):
    app.connect("source-read", lambda app, page, source: source.__setitem__(0, fill_in(source[0])))
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
