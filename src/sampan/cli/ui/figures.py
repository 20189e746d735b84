"""What one container uses, as numbers and as graphs of the last minutes."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Header, Static

from sampan.cli.commands.stats import block_io, cpu_percent, memory_percent, used_memory
from sampan.cli.graphs import graph
from sampan.cli.human import binary_size, size
from sampan.cli.ui.source import Source

_KEPT = 600


class Measured(Message):
    """Figures arrived, in the thread that reads them."""

    def __init__(self, frame: dict[str, Any]) -> None:
        super().__init__()
        self.frame = frame


class Gone(Message):
    """There will be no more figures."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Figures(Screen[None]):
    """A container's processor time, memory, network and disk.

    Args:
        container: its id.
        name: its name.
    """

    DEFAULT_CSS = """
    Figures Static { padding: 0 1; }
    Figures .graph { color: $success; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "app.pop_screen", "Back")]

    def __init__(self, source: Source, container: str, name: str) -> None:
        super().__init__()
        self.title = f"Figures of {name}"
        self._stream = source.figures(container)
        self._series: dict[str, deque[float]] = {
            key: deque(maxlen=_KEPT) for key in ("cpu", "memory", "received", "sent")
        }
        self._before: tuple[int, int] | None = None

    def compose(self) -> ComposeResult:
        """A title and a graph for each figure."""
        yield Header()
        with VerticalScroll():
            for key in self._series:
                yield Static("", id=f"{key}-title", markup=False)
                yield Static("", id=f"{key}-graph", classes="graph", markup=False)
            yield Static("", id="rest", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self._stream.follow(
            lambda frame: self.post_message(Measured(frame)), lambda reason: self.post_message(Gone(reason))
        )

    def on_unmount(self) -> None:
        """Let the stream go."""
        self._stream.stop()

    def on_gone(self, message: Gone) -> None:
        """Say that it is over."""
        if not self.query("#rest"):
            return  # the screen has been left
        self.query_one("#rest", Static).update(message.reason or "The container has ended")

    def on_measured(self, message: Measured) -> None:
        """Take one more figure of each kind."""
        if not self.query("#rest"):
            return  # the screen has been left
        frame = message.frame
        if not (frame.get("cpu_stats") or {}).get("system_cpu_usage"):
            return  # what comes of a container that does not run
        used, limit = used_memory(frame), int((frame.get("memory_stats") or {}).get("limit", 0))
        counters = (frame.get("networks") or {}).values()
        totals = (
            sum(int(one.get("rx_bytes", 0)) for one in counters),
            sum(int(one.get("tx_bytes", 0)) for one in counters),
        )
        cpu = cpu_percent(frame)
        self._add("cpu", cpu, f"CPU {cpu:.2f}%")
        share = memory_percent(frame)
        self._add("memory", share, f"Memory {binary_size(used)} / {binary_size(limit)} ({share:.2f}%)", 100.0)
        before, self._before = self._before, totals
        for key, now, last in zip(("received", "sent"), totals, before or totals, strict=True):
            self._add(key, max(now - last, 0), f"Network {key} {size(now)}, {size(max(now - last, 0))}/s")
        pids = (frame.get("pids_stats") or {}).get("current", 0)
        self.query_one("#rest", Static).update(f"Processes {pids}   Block I/O {block_io(frame)}")

    def _add(self, key: str, value: float, title: str, top: float | None = None) -> None:
        series = self._series[key]
        series.append(float(value))
        self.query_one(f"#{key}-title", Static).update(title)
        width = max(self.size.width - 4, 10)
        self.query_one(f"#{key}-graph", Static).update(graph(series, width, top))
