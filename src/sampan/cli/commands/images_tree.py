"""`sampan images --tree`: each image with its names, and below it the platforms that it is there for."""

from __future__ import annotations

import os
from functools import partial

from sampan.cli.app import line
from sampan.cli.human import ellipsis, short_id, size, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App

_WARNING = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
_GAP = "   "
_NARROWEST_NAME = 12
_BOLD, _FAINT, _NAME, _NORMAL = "\x1b[39m\x1b[1m", "\x1b[39m\x1b[2m", "\x1b[34m\x1b[1m", "\x1b[39m"
_USED = "\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m"


class Row:
    """An image, or one of its platforms."""

    __slots__ = ("content", "disk", "identity", "used")

    def __init__(self, identity: str, disk: int, content: int, used: bool) -> None:
        self.identity = short_id(identity)
        self.disk = size(disk)
        self.content = size(content)
        self.used = used


def show(app: App, everything: bool, chosen: dict[str, Any]) -> None:
    """Print the tree."""
    query = {"all": everything, "filters": chosen, "manifests": True}
    images = app.client.call("GET", "/images/json", query)
    trees = [_read(image) for image in images if everything or image.get("RepoTags")]
    terminal = os.isatty(1)
    columns = _columns()
    plain = "NO_COLOR" in os.environ and bool(os.environ["NO_COLOR"])
    coloured = terminal and not plain
    paint = _paint if coloured else _unpainted
    line(paint("\x1b[93m", _WARNING))
    line(_legend(columns, coloured))
    line("")
    # Name, then id, disk, content, extra; those at the end give way where the terminal is narrow.
    widths = [12, 10, 12, 5]
    room = columns
    for place, one in enumerate(widths):
        if room - one - len(_GAP) < _NARROWEST_NAME:
            widths = widths[:place]
            break
        room -= one + len(_GAP)
    names = [name for labels, _, below in trees for name in (*labels, *(text for text, _ in below))]
    room = min(room, max(map(width, [*names, "Image"])))
    titles = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")[: len(widths) + 1]
    head = _unpainted if plain else _paint  # docker's is bold in a pipe too
    parts = [
        _left(partial(head, _BOLD), title, one) for title, one in zip(titles, [room, *widths], strict=True)
    ]
    line(_GAP.join(parts))
    spaced = any(below for *_, below in trees)
    for labels, row, below in trees:
        for name in labels[:-1]:
            line(paint(_NAME, ellipsis(name, columns)))
        shown = (
            _left(partial(paint, _NAME), labels[-1], room)
            if labels
            else _left(partial(paint, _FAINT), "<untagged>", room)
        )
        line(_GAP.join([shown, *_details(row, widths, partial(paint, _NORMAL), coloured)]))
        for place, (platform, details) in enumerate(below):
            branch = ("└─ " if place == len(below) - 1 else "├─ ") + platform
            cells = [_left(partial(paint, _NORMAL), branch, room)]
            line(_GAP.join([*cells, *_details(details, widths, partial(paint, _NORMAL), coloured)]))
        if spaced:
            line("")


def _columns() -> int:
    try:
        return max(os.get_terminal_size(1).columns or 80, 20)
    except OSError:
        return 80


def _read(image: dict[str, Any]) -> tuple[list[str], Row, list[tuple[str, Row]]]:
    """The names of an image, the longest first; itself; its platforms."""
    content, used = 0, False
    below = []
    for manifest in image.get("Manifests") or ():
        if manifest.get("Kind") != "image":
            continue
        data = manifest.get("ImageData") or {}
        platform = data.get("Platform") or {}
        parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
        running = bool(data.get("Containers"))
        sizes = manifest.get("Size") or {}
        row = Row(manifest["ID"], sizes.get("Total", 0), sizes.get("Content", 0), running)
        below.append(("/".join(part for part in parts if part), row))
        content += sizes.get("Content", 0)
        used = used or running
    names = sorted(image.get("RepoTags") or (), key=lambda name: -len(name))
    return names, Row(image["Id"], image["Size"], content, used), below


def _legend(columns: int, coloured: bool) -> str:
    if coloured:
        info = "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m"
        return " " * max(columns - 21, 0) + f"{info} {_USED} In Use "
    return " " * max(columns - 18, 0) + "Info ->  U In Use "


def _details(row: Row, widths: list[int], paint: Any, coloured: bool) -> list[str]:
    cells = [
        _left(paint, row.identity, 12),
        " " * max(10 - width(row.disk), 0) + paint(row.disk),
        " " * max(12 - width(row.content), 0) + paint(row.content),
        ((_USED + "  ") if coloured else "U    ") if row.used else "     ",
    ]
    return cells[: len(widths)]


def _left(paint: Any, text: str, most: int) -> str:
    if width(text) > most:
        return str(paint(ellipsis(text, most)))
    return str(paint(text)) + " " * (most - width(text))


def _paint(colour: str, text: str) -> str:
    return f"{colour}{text}\x1b[0m"


def _unpainted(_: str, text: str) -> str:
    return text
