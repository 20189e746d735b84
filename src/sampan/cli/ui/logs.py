"""What a container prints, as it comes."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Header, RichLog

from sampan.cli.ui.source import Source, Stream
from sampan.cli.ui.tables import clean

_LINES_BACK, _LINES_KEPT = 500, 10_000
_LINE_LIMIT = 20_000


class Printed(Message):
    """Output arrived, in the thread that reads it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


class Ended(Message):
    """There will be no more; `reason` is "" for a plain end."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Logs(Screen[None]):
    """A container's log, followed.

    Args:
        container: its id.
        name: its name.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back"),
        Binding("f", "follow", "Follow/hold"),
        Binding("w", "wrap", "Wrap"),
    ]

    def __init__(self, source: Source, container: str, name: str) -> None:
        super().__init__()
        self.title = f"Log of {name}"
        self._source = source
        self._container = container
        self._rest = b""
        self._stream: Stream | None = None
        self._left = False

    def compose(self) -> ComposeResult:
        """The lines below a title."""
        yield Header()
        yield RichLog(id="log", max_lines=_LINES_KEPT, wrap=False)
        yield Footer()

    def on_mount(self) -> None:
        """Ask for the log; the answer comes in a thread."""
        self.query_one(RichLog).focus()
        self.run_worker(self._begin, thread=True, exit_on_error=False)

    def _begin(self) -> None:
        from sampan.cli.failures import CommandError

        try:
            self._stream = stream = self._source.logs(self._container, _LINES_BACK)
        except (CommandError, OSError) as error:
            self.post_message(Ended(str(getattr(error, "message", error))))
            return
        stream.follow(
            lambda data: self.post_message(Printed(data)), lambda reason: self.post_message(Ended(reason))
        )
        if self._left:  # while that was asked
            stream.stop()

    def on_unmount(self) -> None:
        """Let the stream go."""
        self._left = True
        if self._stream is not None:
            self._stream.stop()

    def on_printed(self, message: Printed) -> None:
        """Show whole lines; what is left of the last one waits for its end."""
        if not self.query(RichLog):
            return  # the screen has been left
        *lines, self._rest = (self._rest + message.data).split(b"\n")
        if len(self._rest) > _LINE_LIMIT:
            lines, self._rest = [*lines, self._rest], b""
        self._show(lines)

    def _show(self, lines: list[bytes]) -> None:
        log = self.query_one(RichLog)
        for line in lines:
            # A carriage return begins the line anew, as progress bars do it.
            text = line[:_LINE_LIMIT].rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
            log.write(Text(clean(text), no_wrap=not log.wrap))

    def on_ended(self, message: Ended) -> None:
        """Say that it is over."""
        if not self.query(RichLog):
            return  # the screen has been left
        if self._rest:
            self._show([self._rest])
            self._rest = b""
        self.query_one(RichLog).write(Text(f"— {message.reason or 'the container has ended'} —", style="dim"))

    def action_follow(self) -> None:
        """Stay with the end, or hold."""
        log = self.query_one(RichLog)
        log.auto_scroll = not log.auto_scroll
        if log.auto_scroll:
            log.scroll_end(animate=False)

    def action_wrap(self) -> None:
        """Wrap long lines from now on, or not."""
        log = self.query_one(RichLog)
        log.wrap = not log.wrap
