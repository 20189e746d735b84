"""How Sphinx makes the site of these pages; `python3 tools/site.py` calls it, and adds the reference.

Nothing is fetched, at the build or by a reader: theme, search and scripts lie beside the pages, fonts are the
system's.
"""

from __future__ import annotations

from typing import Any

from sampan import __version__

project = "Sampan"
author = "the Sampan authors"
release = version = __version__
language = "en"

extensions = ["myst_parser"]
myst_heading_anchors = 4  # `page.md#heading` must lead somewhere
source_suffix = {".md": "markdown"}
highlight_language = "sh"  # of indented blocks, which have no word for it
suppress_warnings = ["misc.highlighting_failure"]  # a shell's words with `…` in them
nitpicky = True

html_theme = "furo"
html_title = f"Sampan {release}"
html_theme_options = {"footer_icons": []}
html_copy_source = False
html_show_copyright = False
html_last_updated_fmt = None  # the same pages give the same bytes

LANGUAGES = {"tutorial/zh": "zh-CN"}


def say_language(_app: Any, name: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """A page's own language, for fonts, hyphens and readers aloud."""
    if name in LANGUAGES:
        context["language"] = LANGUAGES[name]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", say_language)
