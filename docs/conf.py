"""How Sphinx makes the site of these pages; `python3 tools/site.py` calls it, and adds the reference.

Nothing is fetched, at the build or by a reader: theme, search and scripts lie beside the pages, fonts are the
system's.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.search.en import SearchEnglish

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
html_static_path = ["_static"]
html_css_files = ["site.css"]
smartquotes_action = "q"  # quotes alone: a dash is half of an option
html_last_updated_fmt = None  # the same pages give the same bytes

LANGUAGES = {"tutorial/zh": "zh-CN"}


def say_language(_app: Any, name: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """A page's own language, for fonts, hyphens and readers aloud."""
    if name in LANGUAGES:
        context["language"] = LANGUAGES[name]


# A line's end within a paragraph is a space, of which Chinese has none.
WRAPPED = re.compile(
    r"(?<=[\u3000-\u303f\u3400-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u303f\u3400-\u9fff\uff00-\uffef])"
)


def join_lines(_app: Any, _name: str, source: list[str]) -> None:
    """Chinese text as it is meant to be read."""
    source[0] = WRAPPED.sub("", source[0])


class Search(SearchEnglish):
    """Finds Chinese too, which has no spaces: by each two neighbouring characters, beside whole runs."""

    def split(self, input: str) -> list[str]:
        """The words of a text."""
        words: list[str] = super().split(input)
        runs = (run for word in words for run in re.findall(r"[\u3400-\u9fff]{3,}", word))
        return words + [run[place : place + 2] for run in runs for place in range(len(run) - 1)]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_search_language(Search)
    app.connect("source-read", join_lines)
    app.connect("html-page-context", say_language)
