"""One object, as `inspect` shows it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Header, RichLog

from sampan.cli.ui.tables import clean


class Details(Screen[None]):
    """The object's JSON, to scroll in.

    Args:
        title: what it is.
        shape: what the daemon says of it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "app.pop_screen", "Back")]

    def __init__(self, title: str, shape: Any) -> None:
        super().__init__()
        self.title = title
        self._text = clean_lines(json.dumps(shape, indent=2, ensure_ascii=False))

    def compose(self) -> ComposeResult:
        """The text below a title."""
        yield Header()
        yield RichLog(id="text", auto_scroll=False, wrap=True)
        yield Footer()

    def on_mount(self) -> None:
        """Fill in the text."""
        from rich.text import Text

        self.query_one(RichLog).write(Text(self._text), scroll_end=False)
        self.query_one(RichLog).focus()


def clean_lines(text: str) -> str:
    """Text that keeps its lines and nothing else that steers a terminal."""
    return "\n".join(clean(line) for line in text.split("\n"))
