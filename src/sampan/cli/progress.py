"""The daemon's progress messages (pull, load, import): one line each, redrawn in place on a terminal."""

from __future__ import annotations

import os

from sampan.cli import terminal as terminals
from sampan.cli.failures import CommandError
from sampan.cli.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_ROOM_FOR_A_BAR = 110  # columns


def show_progress(messages: Iterable[dict[str, Any]], fd: int = 1, quiet: bool = False) -> None:
    """Show messages until the stream ends.

    Raises:
        CommandError: a message carried an error.
    """
    terminal = os.isatty(fd)
    lines: dict[str, int] = {}
    for message in messages:
        problem = message.get("errorDetail") or message.get("error")
        if problem:
            text = problem.get("message", "") if isinstance(problem, dict) else str(problem)
            code = problem.get("code") if isinstance(problem, dict) else None
            raise CommandError(text, code if isinstance(code, int) and 0 < code < 256 else None)
        if quiet or "aux" in message:
            continue
        _show(message, fd, terminal, lines)


def _show(message: dict[str, Any], fd: int, terminal: bool, lines: dict[str, int]) -> None:
    identity = message.get("id", "")
    if "stream" in message:
        write_all(fd, _bytes(message["stream"]))
        return
    rows, columns = (terminals.size(fd) or (0, 0)) if terminal else (0, 0)
    bar = _bar(message, columns)
    if bar and not terminal:
        return
    text = message.get("status", "")
    if identity:
        text = f"{identity}: {text}"
    if bar:
        text = f"{text} {bar}"
    if not terminal:
        write_all(fd, _bytes(f"{text}\n"))
        return
    if columns:
        text = text[: columns - 1]  # a line that wraps could not be found again
    if not identity or "progressDetail" not in message:
        lines.clear()
        write_all(fd, _bytes(text) + b"\r\n")
        return
    if identity not in lines:
        lines[identity] = len(lines)
        write_all(fd, b"\n")
    up = len(lines) - lines[identity]
    if not rows or up < rows:  # what has scrolled away stays as it was
        write_all(fd, b"\x1b[%dA\x1b[2K\r%s\r\x1b[%dB" % (up, _bytes(text), up))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _bar(message: dict[str, Any], columns: int) -> str:
    """How far it is: counts, and a bar before them where there is room for it."""
    detail = message.get("progressDetail") or {}
    current, total = detail.get("current", 0), detail.get("total", 0)
    if current <= 0 and total <= 0:
        return ""
    from sampan.cli.human import size

    counts = f"{size(current):>8}"
    if total <= 0 or current > total:
        return counts
    share = min(50, int(current * 50 / total))
    bar = f"[{'=' * share}>{' ' * (50 - share)}]  " if columns == 0 or columns > _ROOM_FOR_A_BAR else ""
    return f"{bar}{counts}/{size(total)}"
