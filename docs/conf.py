"""The documentation as a site: `make docs`; warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from option_keys import write_option_keys  # noqa: E402

import kd_plugins  # noqa: E402 - it repairs what basicsr imports

project = "kd_plugins"
version = release = kd_plugins.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = "kd_plugins"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["study"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "imported-members": True}
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
html_show_copyright = False

write_option_keys(Path(__file__).parent / "reference" / "option_keys.md")


def _escape_bars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A formula's |x| is no substitution of reStructuredText."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def _link_within(app: object, relative: Path, parent: str, content: list[str]) -> None:
    """The README links to files beside it: one is a page here, the other a file of the repository."""
    content[0] = (
        content[0].replace("(CONTRIBUTING.md)", "(contributing.md)").replace("[CITATION.cff](CITATION.cff)", "`CITATION.cff`")
    )


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("include-read", _link_within)
